//! What can be wrong with a command line, in the words of `getopt_long` and `pg_receivewal`.

use walproto::InvalidSlotName;
use walsender::InvalidListenAddress;
use walsender::policy::PolicyError;

use super::compression::CompressionError;

/// Why a command line is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("unrecognized option '--{argument}'")]
    UnrecognizedOption { argument: String },
    #[error("option '--{argument}' is ambiguous; possibilities:{possibilities}")]
    AmbiguousOption {
        argument: String,
        /// Each with a space before it.
        possibilities: String,
    },
    #[error("option '--{option}' doesn't allow an argument")]
    UnexpectedValue { option: &'static str },
    #[error("option '--{option}' requires an argument")]
    MissingValue { option: &'static str },
    #[error("invalid option -- '{letter}'")]
    InvalidLetter { letter: char },
    #[error("option requires an argument -- '{letter}'")]
    MissingLetterValue { letter: char },

    #[error("too many command-line arguments (first is \"{first}\")")]
    TooManyArguments { first: String },
    #[error("cannot use --create-slot together with --drop-slot")]
    CreateAndDrop,
    #[error("cannot use {given} together with {action}")]
    Together {
        given: &'static str,
        action: &'static str,
    },
    #[error("{given} is for the program by its own name, wal-receiver")]
    OwnNameOnly { given: &'static str },
    #[error("{action} needs a slot to be specified using --slot")]
    NoSlot { action: &'static str },
    #[error("cannot use --synchronous together with --no-sync")]
    SynchronousWithoutSync,
    #[error("must specify oldest kept WAL file")]
    NoOldestKept,
    #[error("invalid file name argument \"{name}\": expected the name of a WAL segment")]
    OldestKept { name: String },
    #[error("no target directory specified")]
    NoDirectory,
    #[error("no standby specified")]
    NoStandby,
    #[error("no address to listen at specified using --listen")]
    NoListenAddress,
    #[error("--{option} needs an address to listen at, specified using --listen")]
    NeedsListen { option: &'static str },
    #[error("cannot use --listen together with {other}")]
    ListenWith { other: &'static str },
    #[error("{given} needs {missing}")]
    Needs {
        given: &'static str,
        missing: &'static str,
    },

    #[error("invalid value \"{value}\" for option {option}, expected {expected}")]
    Unexpected {
        option: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("invalid value \"{value}\" for option {option}")]
    InvalidNumber { option: &'static str, value: String },
    #[error("{option} must be in range 0..{max}")]
    OutOfRange { option: &'static str, max: u32 },
    #[error("could not parse end position \"{value}\"")]
    EndPosition { value: String },
    #[error("could not parse start position \"{value}\"")]
    StartPosition { value: String },
    #[error("invalid value \"{value}\" for option --log-format, expected text or json")]
    LogFormat { value: String },
    #[error("value of option {option} is not valid UTF-8")]
    NotUtf8 { option: &'static str },
    #[error(transparent)]
    ListenAddress(InvalidListenAddress),
    #[error("invalid value for option --sync-downstream: {0}")]
    SyncDownstream(PolicyError),
    #[error(transparent)]
    Slot(InvalidSlotName),
    #[error(transparent)]
    Compression(CompressionError),
}

impl UsageError {
    /// Whether `getopt_long` is the one that complains, whose messages have no `error: `.
    pub(crate) const fn is_from_getopt(&self) -> bool {
        matches!(
            self,
            Self::UnrecognizedOption { .. }
                | Self::AmbiguousOption { .. }
                | Self::UnexpectedValue { .. }
                | Self::MissingValue { .. }
                | Self::InvalidLetter { .. }
                | Self::MissingLetterValue { .. }
        )
    }

    /// Whether a hint at `--help` follows.
    pub(crate) const fn hints_at_help(&self) -> bool {
        self.is_from_getopt()
            || matches!(
                self,
                Self::TooManyArguments { .. }
                    | Self::CreateAndDrop
                    | Self::Together { .. }
                    | Self::OwnNameOnly { .. }
                    | Self::NoSlot { .. }
                    | Self::SynchronousWithoutSync
                    | Self::NoDirectory
                    | Self::NoOldestKept
                    | Self::OldestKept { .. }
                    | Self::NoStandby
                    | Self::NoListenAddress
                    | Self::NeedsListen { .. }
                    | Self::ListenWith { .. }
                    | Self::Needs { .. }
            )
    }
}
