//! The options there are, and how a long one is recognised.

use super::error::UsageError;
use super::relay::{self, RelayMeaning};
use crate::face::Face;

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
    RetryInterval,
    FollowFork,
    LogFormat,
    OnEvent,
    Relay(RelayMeaning),
}

/// An option, with what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spec<M = Meaning> {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes_value: bool,
    pub(crate) meaning: M,
}

impl<M> Spec<M> {
    /// The same option among those that mean more.
    pub(crate) fn meaning<N>(self, of: impl FnOnce(M) -> N) -> Spec<N> {
        Spec {
            long: self.long,
            short: self.short,
            takes_value: self.takes_value,
            meaning: of(self.meaning),
        }
    }
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
const OWN: [Spec; 6] = [
    value("start", None, Meaning::Start),
    value("receive-timeout", None, Meaning::ReceiveTimeout),
    value("retry-interval", None, Meaning::RetryInterval),
    flag("follow-fork", None, Meaning::FollowFork),
    value("log-format", None, Meaning::LogFormat),
    value("on-event", None, Meaning::OnEvent),
];

/// The one of `options` that has this letter.
pub(crate) fn of_letter<M: Copy>(options: &[Spec<M>], letter: char) -> Result<Spec<M>, UsageError> {
    let found = options.iter().find(|spec| spec.short == Some(letter));
    found.copied().ok_or(UsageError::InvalidLetter { letter })
}

/// The one of `options` that has just this name.
pub(crate) fn of_name<M: Copy>(options: &[Spec<M>], name: &str) -> Option<Spec<M>> {
    options.iter().find(|spec| spec.long == name).copied()
}

/// No option has this name. `argument` is the whole argument without the dashes.
pub(crate) fn unrecognized(argument: &str) -> UsageError {
    UsageError::UnrecognizedOption {
        argument: argument.to_owned(),
    }
}

/// The option of this letter.
pub(super) fn short(letter: char) -> Result<Spec, UsageError> {
    of_letter(&POSTGRESQL, letter)
}

/// The option of this name or of the one name that begins with it, as `getopt_long` does it.
///
/// `argument` is the whole argument without the dashes, for the error.
pub(super) fn long(face: Face, name: &str, argument: &str) -> Result<Spec, UsageError> {
    if let Some(spec) = of_name(&POSTGRESQL, name).or_else(|| of_name(&OWN, name)) {
        return Ok(spec);
    }
    if face.relays()
        && let Some(spec) = relay::long(name)
    {
        return Ok(spec.meaning(Meaning::Relay));
    }
    let mut candidates = POSTGRESQL.iter().filter(|spec| spec.long.starts_with(name));
    match (candidates.next(), candidates.next()) {
        (Some(spec), None) => Ok(*spec),
        (None, _) => Err(unrecognized(argument)),
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
