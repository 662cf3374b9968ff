# The front door. Everything behind it is plain cargo and the scripts in scripts/.

.PHONY: demo test check bench postgres

# PostgreSQL, a synchronous standby, a crash and a restore; see README.md.
demo:
	scripts/demo

# Every test, those against real servers of every supported version included.
test: postgres
	cargo build --workspace --bins --examples
	cargo nextest run --workspace

# What needs no PostgreSQL: format, lints, documentation, unit and property tests.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo test

bench:
	cargo bench -p benches

postgres:
	scripts/install-postgres 15
	scripts/fetch-postgres 13 14 15 16 17 18
