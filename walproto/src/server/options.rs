//! The command line options that a client may give for its server process: a way to set
//! parameters.
//!
//! Source: src/backend/utils/init/postinit.c, `pg_split_opts`, and src/backend/tcop/postgres.c,
//! `process_postgres_switches` (PG 15). Of the options, `-c` and `--` are understood: the others
//! are short for them, or for a server process that nobody connects to.

use bytes::Bytes;

/// An option that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidOption {
    /// A parameter without a value.
    #[error("{option} requires a value")]
    NoValue { option: String },
    /// Anything else.
    #[error("invalid command-line argument for server process: {argument}")]
    Unknown { argument: String },
}

/// The parameters that options set, in their order.
pub(super) fn settings(options: &[u8]) -> Result<Vec<(Bytes, Bytes)>, InvalidOption> {
    let mut settings = Vec::new();
    let mut arguments = split(options).into_iter();
    while let Some(argument) = arguments.next() {
        let text = |argument: &[u8]| String::from_utf8_lossy(argument).into_owned();
        let (dashes, setting) = match argument.as_slice() {
            [b'-', b'-', setting @ ..] if !setting.is_empty() => ("--", setting.to_vec()),
            b"-c" => match arguments.next() {
                Some(setting) => ("-c ", setting),
                None => {
                    let argument = text(&argument);
                    return Err(InvalidOption::Unknown { argument });
                }
            },
            [b'-', b'c', setting @ ..] => ("-c ", setting.to_vec()),
            _ => {
                let argument = text(&argument);
                return Err(InvalidOption::Unknown { argument });
            }
        };
        let Some(equals) = setting.iter().position(|&b| b == b'=') else {
            let option = format!("{dashes}{}", text(&setting));
            return Err(InvalidOption::NoValue { option });
        };
        let (name, value) = setting.split_at(equals);
        let name = name.iter().map(|&b| if b == b'-' { b'_' } else { b });
        let value = value.get(1..).unwrap_or_default();
        settings.push((name.collect(), Bytes::copy_from_slice(value)));
    }
    Ok(settings)
}

/// Splits a line at white space. A backslash takes the meaning from what follows it.
fn split(options: &[u8]) -> Vec<Vec<u8>> {
    // A vertical tab is white space in C.
    let is_space = |b: u8| b.is_ascii_whitespace() || b == 0x0B;
    let mut arguments = Vec::new();
    let mut current = None;
    let mut bytes = options.iter().copied();
    while let Some(byte) = bytes.next() {
        if is_space(byte) {
            arguments.extend(current.take());
            continue;
        }
        let argument = current.get_or_insert_with(Vec::new);
        if byte != b'\\' {
            argument.push(byte);
        } else if let Some(escaped) = bytes.next() {
            argument.push(escaped);
        }
    }
    arguments.extend(current);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(options: &str) -> Result<Vec<(String, String)>, String> {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let settings = settings(options.as_bytes()).map_err(|error| error.to_string())?;
        Ok(settings
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect())
    }

    #[test]
    fn options_set_parameters_in_their_order() {
        let expected = |pairs: &[(&str, &str)]| {
            Ok(pairs
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<Vec<_>>())
        };
        assert_eq!(set("  "), expected(&[]));
        assert_eq!(
            set(" -c wal_sender_timeout=10s  --wal-sender-timeout=5000\t-cgeqo=off "),
            expected(&[
                ("wal_sender_timeout", "10s"),
                ("wal_sender_timeout", "5000"),
                ("geqo", "off"),
            ])
        );
        assert_eq!(
            set(r"-c application_name=a\ b\\=c -c x="),
            expected(&[("application_name", r"a b\=c"), ("x", "")])
        );
    }

    #[test]
    fn an_option_that_is_not_understood_is_named() {
        for (options, error) in [
            ("-c", "invalid command-line argument for server process: -c"),
            ("-c geqo", "-c geqo requires a value"),
            ("--geqo", "--geqo requires a value"),
            ("x", "invalid command-line argument for server process: x"),
            (
                "-d 5",
                "invalid command-line argument for server process: -d",
            ),
            ("--", "invalid command-line argument for server process: --"),
        ] {
            assert_eq!(set(options), Err(error.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn an_escaped_value_is_what_it_was(name in "[a-z_]{1,10}", value: String) {
            let escaped: String = value.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert_eq!(set(&format!("-c {name}={escaped}")), Ok(vec![(name, value)]));
        }
    }
}
