//! What the options that say how an archive is served mean together.

use std::time::Duration;

use segstore::SlotLimits;
use walsender::ServeConfig;
use walsender::tls::TlsFiles;

use super::Section;
use super::error::UsageError;
use super::given::Given;
use super::rows::{ACCESS, DOWNSTREAM, SERVING};

/// The default number of replication slots (`max_replication_slots`).
pub(super) const MAX_SLOTS: usize = 10;
/// The default number of seconds for which a transaction that a standby needs counts.
pub(super) const MAX_FEEDBACK_AGE: u64 = 3600;

/// How an archive is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serving {
    pub(crate) config: ServeConfig,
    pub(crate) slots: SlotLimits,
    /// Whether `--max-connections` was given.
    pub(crate) explicit_connections: bool,
}

pub(crate) const ACCESS_SECTION: Section = Section {
    text: "Who may connect (without these: the same user, through a Unix socket):",
    flags: &[ACCESS],
};

impl Given {
    /// How to serve an archive.
    ///
    /// # Errors
    /// When there is no address to listen at, or TLS files are missing.
    pub(crate) fn serving(&self) -> Result<Serving, UsageError> {
        if self.listen.is_empty() {
            return Err(UsageError::NoListenAddress);
        }
        let mut config = ServeConfig::new(self.listen.clone());
        // The default is no limit of its own for one user.
        let limits = &mut config.limits;
        limits.connections = self.connections.unwrap_or(limits.connections);
        limits.connections_per_user = self.connections_per_user.unwrap_or(limits.connections);
        if let Some(timeout) = self.authentication_timeout {
            limits.authentication_timeout = timeout;
        }
        if let Some(timeout) = self.wal_sender_timeout {
            limits.wal_sender_timeout = timeout;
        }
        config.access.hba = self.hba.clone();
        config.access.users = self.users.clone();
        config.access.trust_loopback = self.trust_loopback;
        let needs = |given, missing| Err(UsageError::Needs { given, missing });
        config.access.tls = match (&self.certificate, &self.key, &self.client_authorities) {
            (Some(certificate), Some(key), client_authorities) => {
                if self.revocation_list.is_some() && client_authorities.is_none() {
                    return needs("--tls-crl", "--tls-client-ca");
                }
                Some(TlsFiles {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    client_authorities: client_authorities.clone(),
                    revocation_list: self.revocation_list.clone(),
                })
            }
            (Some(_), None, _) => return needs("--tls-cert", "--tls-key"),
            (None, Some(_), _) => return needs("--tls-key", "--tls-cert"),
            (None, None, Some(_)) => return needs("--tls-client-ca", "--tls-cert and --tls-key"),
            (None, None, None) if self.revocation_list.is_some() => {
                return needs("--tls-crl", "--tls-client-ca, --tls-cert and --tls-key");
            }
            (None, None, None) => None,
        };
        config.policy = self.policy.clone();
        config.feedback_age = self.feedback.then(|| match self.max_feedback_age {
            None => Duration::from_secs(MAX_FEEDBACK_AGE),
            Some(age) => age.unwrap_or(Duration::MAX),
        });
        Ok(Serving {
            config,
            slots: SlotLimits {
                max_slots: self.max_slots.unwrap_or(MAX_SLOTS),
                max_keep_bytes: self.max_slot_keep_bytes,
            },
            explicit_connections: self.connections.is_some(),
        })
    }

    /// How a receiver serves what it receives; `None` if it does not.
    ///
    /// `instead` is the option by which something else is to be done than receive.
    pub(super) fn relaying(
        &self,
        instead: Option<&'static str>,
    ) -> Result<Option<Serving>, UsageError> {
        let is_ours = |option: &&str| {
            let mut flags = [SERVING, DOWNSTREAM, ACCESS].into_iter().flatten();
            flags.any(|flag| flag.name() == *option)
        };
        let Some(option) = self.options.iter().copied().find(is_ours) else {
            return Ok(None);
        };
        if self.listen.is_empty() {
            return Err(UsageError::NeedsListen { option });
        }
        let contrary = instead.or(self.no_sync.then_some("--no-sync"));
        if let Some(other) = contrary {
            return Err(UsageError::ListenWith { other });
        }
        if self.max_feedback_age.is_some() && !self.feedback {
            return Err(UsageError::Needs {
                given: "--max-feedback-age",
                missing: "--hot-standby-feedback",
            });
        }
        self.serving().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::receive::tests::{parse_words, run};
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
