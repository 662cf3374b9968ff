//! Asking for a password.

use std::fs::OpenOptions;
use std::io;

/// Asks on the terminal, or on standard error and input where there is none.
///
/// # Errors
/// When nothing can be read.
///
/// Source: src/common/sprompt.c, `simple_prompt` (PG 15).
pub(super) fn ask() -> io::Result<Vec<u8>> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let config = match terminal {
        Ok(_) => rpassword::ConfigBuilder::new().build(),
        Err(_) => rpassword::ConfigBuilder::new()
            .input_reader(io::stdin())
            .output_writer(io::stderr())
            .build(),
    };
    rpassword::prompt_password_with_config("Password: ", config).map(String::into_bytes)
}
