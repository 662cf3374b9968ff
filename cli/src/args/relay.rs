//! The options of a receiver that serves what it receives. They are our own, and not those of the
//! program when it is called as `pg_receivewal`.

use std::ffi::OsString;
use std::time::Duration;

use walsender::policy::SyncPolicy;

use super::error::UsageError;
use super::options::{Spec, flag, of_name, value};
use super::{seconds, text};
use crate::serve::options::{self, Serving, ServingMeaning};

/// For how many seconds a transaction that a standby needs counts unless told otherwise.
pub(crate) const MAX_FEEDBACK_AGE: u32 = 3600;

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayMeaning {
    Serving(ServingMeaning),
    SyncDownstream,
    HotStandbyFeedback,
    MaxFeedbackAge,
}

static OPTIONS: [Spec<RelayMeaning>; 3] = [
    value("sync-downstream", None, RelayMeaning::SyncDownstream),
    flag(
        "hot-standby-feedback",
        None,
        RelayMeaning::HotStandbyFeedback,
    ),
    value("max-feedback-age", None, RelayMeaning::MaxFeedbackAge),
];

/// The option of this name. None has a letter.
pub(super) fn long(name: &str) -> Option<Spec<RelayMeaning>> {
    of_name(&OPTIONS, name).or_else(|| Some(options::long(name)?.meaning(RelayMeaning::Serving)))
}

/// The options as they were given, before they are looked at together.
pub(super) struct Given {
    /// The first of them that was given.
    first: Option<&'static str>,
    listens: bool,
    serving: options::Given,
    policy: Option<SyncPolicy>,
    feedback: bool,
    /// What was said of the age, `None` in it being any.
    max_feedback_age: Option<Option<Duration>>,
}

impl Given {
    pub(super) fn new() -> Self {
        Self {
            first: None,
            listens: false,
            serving: options::Given::new(),
            policy: None,
            feedback: false,
            max_feedback_age: None,
        }
    }

    pub(super) fn set(
        &mut self,
        option: &'static str,
        meaning: RelayMeaning,
        value: OsString,
    ) -> Result<(), UsageError> {
        self.first.get_or_insert(option);
        match meaning {
            RelayMeaning::Serving(meaning) => {
                self.listens |= meaning == ServingMeaning::Listen;
                self.serving.set(option, meaning, value)?;
            }
            RelayMeaning::SyncDownstream => {
                let policy = text(option, value)?.parse();
                self.policy = Some(policy.map_err(UsageError::SyncDownstream)?);
            }
            RelayMeaning::HotStandbyFeedback => self.feedback = true,
            RelayMeaning::MaxFeedbackAge => {
                let age = seconds("--max-feedback-age", text(option, value)?)?;
                self.max_feedback_age = Some(age);
            }
        }
        Ok(())
    }

    /// Looks at the options together; `None` if nothing is to be served.
    ///
    /// `instead` is the option by which something else is to be done than receive, `sync` whether
    /// anything is made durable.
    pub(super) fn finish(
        self,
        instead: Option<&'static str>,
        sync: bool,
    ) -> Result<Option<Serving>, UsageError> {
        let Some(option) = self.first else {
            return Ok(None);
        };
        if !self.listens {
            return Err(UsageError::NeedsListen { option });
        }
        let contrary = instead.or((!sync).then_some("--no-sync"));
        if let Some(other) = contrary {
            return Err(UsageError::ListenWith { other });
        }
        if self.max_feedback_age.is_some() && !self.feedback {
            return Err(UsageError::Needs {
                given: "--max-feedback-age",
                missing: "--hot-standby-feedback",
            });
        }
        let mut serving = self.serving.finish()?;
        serving.config.policy = self.policy;
        serving.config.feedback_age = self.feedback.then(|| match self.max_feedback_age {
            None => Duration::from_secs(MAX_FEEDBACK_AGE.into()),
            Some(age) => age.unwrap_or(Duration::MAX),
        });
        Ok(Some(serving))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse_words, run};
    use super::*;
    use crate::face::Face;

    const RECEIVE: [&str; 2] = ["-D", "wal"];

    fn serving(words: &[&str]) -> Option<Serving> {
        run(Face::WalReceiver, &[&RECEIVE, words].concat()).serving
    }

    fn refused(face: Face, words: &[&str]) -> String {
        let words = [&RECEIVE, words].concat();
        parse_words(face, &words).unwrap_err().to_string()
    }

    #[test]
    fn who_listens_serves() {
        assert_eq!(serving(&[]), None);
        let config = serving(&["--listen=*", "--max-slots=3"]).unwrap();
        assert_eq!(config.slots.max_slots, 3);
        assert_eq!(
            (config.config.policy, config.config.feedback_age),
            (None, None)
        );
        let words = [
            "--sync-downstream=2 (a, \"B c\", d)",
            "--listen=127.0.0.1",
            "--hot-standby-feedback",
        ];
        let config = serving(&words).unwrap().config;
        let policy = config.policy.unwrap().to_string();
        assert_eq!(policy, "FIRST 2 (a, \"B c\", d)");
        assert_eq!(config.feedback_age, Some(Duration::from_secs(3600)));
        let age = |age| {
            let words = ["--listen=*", "--hot-standby-feedback", age];
            serving(&words).unwrap().config.feedback_age
        };
        assert_eq!(age("--max-feedback-age=5"), Some(Duration::from_secs(5)));
        assert_eq!(age("--max-feedback-age=0"), Some(Duration::MAX));
    }

    #[test]
    fn what_needs_a_server_is_refused_without_one() {
        for option in [
            "--trust-loopback",
            "--max-connections=2",
            "--sync-downstream=a",
            "--hot-standby-feedback",
            "--max-feedback-age=3",
        ] {
            let (name, _) = option.split_once('=').unwrap_or((option, ""));
            let expected =
                format!("{name} needs an address to listen at, specified using --listen");
            assert_eq!(refused(Face::WalReceiver, &[option]), expected);
            // Abbreviations and pg_receivewal's face know none of them.
            let unknown = format!("unrecognized option '{option}'");
            assert_eq!(refused(Face::PgReceivewal, &[option]), unknown);
        }
        let unknown = "unrecognized option '--liste=*'";
        assert_eq!(refused(Face::WalReceiver, &["--liste=*"]), unknown);
    }

    #[test]
    fn contradictions_are_named() {
        for (words, expected) in [
            (
                &["--no-sync"][..],
                "cannot use --listen together with --no-sync",
            ),
            (
                &["--create-slot", "-Sa"],
                "cannot use --listen together with --create-slot",
            ),
            (
                &["--max-feedback-age=3"],
                "--max-feedback-age needs --hot-standby-feedback",
            ),
            (&["--tls-key=k"], "--tls-key needs --tls-cert"),
            (
                &["--sync-downstream="],
                "invalid value for option --sync-downstream: syntax error in the list of \
                 synchronous standbys at end of input",
            ),
            (
                &["--max-feedback-age=-1"],
                "--max-feedback-age must be in range 0..2147483",
            ),
        ] {
            let words = [&["--listen=*"], words].concat();
            assert_eq!(refused(Face::WalReceiver, &words), expected, "{words:?}");
        }
    }
}
