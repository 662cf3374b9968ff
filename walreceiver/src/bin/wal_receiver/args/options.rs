//! The options there are, and how a long one is recognised.

use super::error::UsageError;

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Help,
    Version,
    Directory,
    Dbname,
    Endpos,
    Host,
    Port,
    Username,
    NoLoop,
    NoPassword,
    Password,
    StatusInterval,
    Slot,
    Verbose,
    Compress,
    CreateSlot,
    DropSlot,
    IfNotExists,
    Synchronous,
    NoSync,
    Start,
    ReceiveTimeout,
    FollowFork,
    LogFormat,
    OnEvent,
}

/// An option, with what it means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec<M = Meaning> {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes_value: bool,
    pub(crate) meaning: M,
}

pub(crate) const fn flag<M: Copy>(long: &'static str, short: Option<char>, meaning: M) -> Spec<M> {
    Spec {
        long,
        short,
        takes_value: false,
        meaning,
    }
}

pub(crate) const fn value<M: Copy>(long: &'static str, short: Option<char>, meaning: M) -> Spec<M> {
    Spec {
        long,
        short,
        takes_value: true,
        meaning,
    }
}

/// `pg_receivewal`'s options, in the order in which it lists ambiguous ones.
const POSTGRESQL: [Spec; 20] = [
    flag("help", Some('?'), Meaning::Help),
    flag("version", Some('V'), Meaning::Version),
    value("directory", Some('D'), Meaning::Directory),
    value("dbname", Some('d'), Meaning::Dbname),
    value("endpos", Some('E'), Meaning::Endpos),
    value("host", Some('h'), Meaning::Host),
    value("port", Some('p'), Meaning::Port),
    value("username", Some('U'), Meaning::Username),
    flag("no-loop", Some('n'), Meaning::NoLoop),
    flag("no-password", Some('w'), Meaning::NoPassword),
    flag("password", Some('W'), Meaning::Password),
    value("status-interval", Some('s'), Meaning::StatusInterval),
    value("slot", Some('S'), Meaning::Slot),
    flag("verbose", Some('v'), Meaning::Verbose),
    value("compress", Some('Z'), Meaning::Compress),
    flag("create-slot", None, Meaning::CreateSlot),
    flag("drop-slot", None, Meaning::DropSlot),
    flag("if-not-exists", None, Meaning::IfNotExists),
    flag("synchronous", None, Meaning::Synchronous),
    flag("no-sync", None, Meaning::NoSync),
];

/// Our own. They are not abbreviated, so that every abbreviation that works with
/// `pg_receivewal` goes on meaning the same.
const OWN: [Spec; 5] = [
    value("start", None, Meaning::Start),
    value("receive-timeout", None, Meaning::ReceiveTimeout),
    flag("follow-fork", None, Meaning::FollowFork),
    value("log-format", None, Meaning::LogFormat),
    value("on-event", None, Meaning::OnEvent),
];

/// The option of this letter among those of a subcommand.
pub(crate) fn find_short<M>(specs: &[Spec<M>], letter: char) -> Result<&Spec<M>, UsageError> {
    let found = specs.iter().find(|spec| spec.short == Some(letter));
    found.ok_or(UsageError::InvalidLetter { letter })
}

/// The option of exactly this name among those of a subcommand. `argument` is the whole argument
/// without the dashes, for the error.
pub(crate) fn find_long<'a, M>(
    specs: &'a [Spec<M>],
    name: &str,
    argument: &str,
) -> Result<&'a Spec<M>, UsageError> {
    let found = specs.iter().find(|spec| spec.long == name);
    found.ok_or_else(|| UsageError::UnrecognizedOption {
        argument: argument.to_owned(),
    })
}

/// The option of this letter.
pub(super) fn short(letter: char) -> Result<&'static Spec, UsageError> {
    POSTGRESQL
        .iter()
        .find(|spec| spec.short == Some(letter))
        .ok_or(UsageError::InvalidLetter { letter })
}

/// The option of this name or of the one name that begins with it, as `getopt_long` does it.
///
/// `argument` is the whole argument without the dashes, for the error.
pub(super) fn long(name: &str, argument: &str) -> Result<&'static Spec, UsageError> {
    let mut all = POSTGRESQL.iter().chain(&OWN);
    if let Some(spec) = all.find(|spec| spec.long == name) {
        return Ok(spec);
    }
    let mut candidates = POSTGRESQL.iter().filter(|spec| spec.long.starts_with(name));
    match (candidates.next(), candidates.next()) {
        (Some(spec), None) => Ok(spec),
        (None, _) => Err(UsageError::UnrecognizedOption {
            argument: argument.to_owned(),
        }),
        (Some(first), Some(second)) => Err(UsageError::AmbiguousOption {
            argument: argument.to_owned(),
            possibilities: [first, second]
                .into_iter()
                .chain(candidates)
                .map(|spec| format!(" '--{}'", spec.long))
                .collect(),
        }),
    }
}
