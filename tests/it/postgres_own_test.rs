//! PostgreSQL's own test of `pg_receivewal`, from the source of PostgreSQL 15, with our program under
//! that name.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Receiver, Version, unprivileged_output, unprivileged_user};

/// The directory that `scripts/fetch-postgres-tests` prints.
fn fetched() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fetch-postgres-tests");
    let output = Command::new(&script).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "no test without PostgreSQL's own: {complaint}"
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn all_of_020_pg_receivewal_passes() {
    let version = Version::V15;
    if version.is_skipped() {
        return;
    }
    let fetched = fetched();
    let directory = tempfile::Builder::new()
        .prefix("walrecv-")
        .tempdir()
        .unwrap();
    let root = directory.path();
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    let [programs, include, build] = ["programs", "include", "build"].map(|name| root.join(name));
    for path in [&programs, &include, &build] {
        fs::create_dir(path).unwrap();
    }
    let (user, group) = unprivileged_user().unzip();
    chown(&build, user, group).unwrap();
    // A copy, since the user whom the servers belong to may not be able to look where ours is.
    fs::copy(Receiver::program(), programs.join("pg_receivewal")).unwrap();
    // Which compressions `pg_receivewal` was built with is what the test asks this header, which
    // Debian has in another package.
    let header = "#define HAVE_LIBZ 1\n#define USE_LZ4 1\n";
    fs::write(include.join("pg_config.h"), header).unwrap();
    let servers = version.server_program("");
    write_program(
        &programs.join("pg_config"),
        &format!(
            "#!/bin/sh\ncase \"$*\" in\n    --includedir-server) echo '{}' ;;\n    \
             *) exec '{}pg_config' \"$@\" ;;\nesac\n",
            include.display(),
            servers.display()
        ),
    );
    let path = std::env::var("PATH").unwrap();
    let mut prove = Command::new("prove");
    prove
        .args(["--verbose", "--merge"])
        .arg(fetched.join("020_pg_receivewal.pl"))
        .env(
            "PATH",
            format!("{}:{}:{path}", programs.display(), servers.display()),
        )
        .env(
            "PERL5LIB",
            format!(
                "{}:{}",
                fetched.join("perl").display(),
                fetched.join("modules").display()
            ),
        )
        // What sets up access on Windows, and nothing elsewhere.
        .env("PG_REGRESS", "true")
        .env("TESTDIR", &build)
        .env("top_builddir", &build)
        .env("GZIP_PROGRAM", "gzip")
        .env("LZ4", fetched.join("lz4"));
    let output = unprivileged_output(prove, &build);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("Tests=42,") && !text.contains("# skip"),
        "{text}"
    );
}
