# The front door. Everything behind it is plain cargo and the scripts in scripts/.

.PHONY: demo test check bench mutants tools postgres

# PostgreSQL, a synchronous standby, a crash and a restore; see README.md.
demo:
	scripts/demo

# Every test, those against real servers of every supported version included. Installs what it needs.
test: tools postgres
	cargo build --workspace --bins --examples
	cargo nextest run --workspace

# What needs no PostgreSQL: format, lints, documentation, unit and property tests.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo test

# Everything beside PostgreSQL's own programs, in some 30 minutes, into benches/results and the
# tables of BENCHMARKS.md and docs/scaling.md. With ARGS only what they say, into target/results:
# make bench ARGS=--quick, make bench ARGS="commits --rounds 9", make bench ARGS=--help.
ARGS ?= --output benches/results --document BENCHMARKS.md --scaling docs/scaling.md
bench:
	scripts/install-postgres 15
	cargo build --release --package wal-receiver --package benches --bins
	"$${CARGO_TARGET_DIR:-target}/release/harness" $(ARGS)

# Changes the code on which durability and positions depend, one line at a time, and runs the tests of
# its crate for each change. The results are in target/mutants.out; see CONTRIBUTING.md. Only some:
# make mutants MUTANTS="--re compress_sealed", make mutants MUTANTS=--list.
mutants:
	scripts/install-tools mutants
	nice cargo mutants --output target $(MUTANTS)

# What the tests call, with PostgreSQL after it: npm and pip fetch some versions.
tools:
	scripts/install-tools test

postgres: tools
	scripts/install-postgres 15
	scripts/fetch-postgres 13 14 15 16 17 18
	scripts/fetch-postgres-tests
