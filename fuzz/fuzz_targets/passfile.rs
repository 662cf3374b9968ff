//! A line that was written for somebody gives its password, unless an earlier one does; comments
//! and lines for others change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgconn::passfile::{PasswordKey, find};

fn escaped(field: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b':' | b'\\' | b'#' => vec![b'\\', *byte],
        other => vec![*other],
    };
    field.iter().flat_map(escape).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(5, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (host, database, user, password, file) = (part(), part(), part(), part(), part());
    let text = |field| {
        str::from_utf8(field)
            .ok()
            .filter(|field| !field.contains('\n'))
    };
    let (Some(host), Some(database), Some(user)) = (text(host), text(database), text(user)) else {
        return;
    };
    if password.iter().any(|byte| b"\n\r".contains(byte)) {
        return;
    }
    let key = PasswordKey {
        host,
        port: 5432,
        database,
        user,
    };
    let fields = [host, "5432", database, user].map(|field| escaped(field.as_bytes()));
    let line = [fields.join(&b':'), escaped(password)].join(&b':');
    let found = |parts: &[&[u8]]| find(&parts.join(&b'\n'), key);
    let found = |parts: &[&[u8]]| found(parts).map(|password| password.as_bytes().to_vec());
    assert_eq!(found(&[&line, file]).as_deref(), Some(password));
    let before = found(&[file]);
    assert_eq!(
        found(&[file, &line]),
        before.clone().or(Some(password.to_vec()))
    );
    assert_eq!(found(&[b"#", b"*:*:*", file]), before);
});
