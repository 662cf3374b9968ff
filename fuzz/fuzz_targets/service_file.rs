//! A service that is found is the same when it is written anew, and whatever comes after it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pgconn::service::find;

fuzz_target!(|text: &str| {
    let (service, file) = text.split_once('\n').unwrap_or((text, ""));
    let find = |text: &str| find(Path::new("pg_service.conf"), text, service);
    let Ok(Some(found)) = find(file) else {
        return;
    };
    let mut section = format!("[{service}]\n");
    for (keyword, value) in &found {
        section += &format!("{}={value}\n", keyword.name());
    }
    assert_eq!(find(&section).unwrap().as_ref(), Some(&found));
    let followed = format!("{section}[]\n{file}");
    assert_eq!(find(&followed).unwrap().as_ref(), Some(&found));
});
