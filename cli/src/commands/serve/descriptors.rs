//! How many files may be open, and how many clients fit into that.
//!
//! Clients must not take the descriptors that the archive's writer needs at the next segment's
//! end. So a part of them is reserved, and the number of clients is limited by the rest.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;
use walsender::ServeConfig;

use crate::error::MainError;
use crate::flags::serving::Serving;

/// What a process has open beside a server and its clients: the writer's segments and directories,
/// segments that are compressed or filled with zeros, histories, locks and markers (32); all hosts
/// of the upstream at a time (32); 64 clients of the control socket; runtimes, signals, and pipes to
/// commands (32); what libraries open for a moment, as to resolve a name (32).
const RESERVED: usize = 192;

/// The soft limit is raised no further than this unless more is needed. Some programs, which
/// `--on-event` may run, close each number up to the limit when they begin.
const ENOUGH: u64 = 65_536;

/// Raises the limit of open files as far as that is allowed and useful, and makes sure that the
/// clients fit into it. Without `--max-connections` fewer of them are allowed.
///
/// # Errors
/// When as many clients as `--max-connections` says do not fit, or none do.
pub(crate) fn fit(serving: &mut Serving) -> Result<(), MainError> {
    let needed = needed(&serving.config);
    let allowed = raise(needed);
    let Some(connections) = connections_within(allowed, &serving.config) else {
        return Ok(());
    };
    let limits = &mut serving.config.limits;
    if serving.explicit_connections || connections == 0 {
        return Err(MainError::TooFewDescriptors {
            connections: limits.connections,
            needed,
            allowed,
            fitting: connections,
        });
    }
    warn!(
        event = "fewer_clients",
        "only {connections} clients can connect at a time, not {}: this process may open {allowed} \
         files; raise the hard limit (ulimit -Hn, or LimitNOFILE= of the service) to {needed}",
        limits.connections
    );
    limits.connections = connections;
    limits.connections_per_user = limits.connections_per_user.min(connections);
    Ok(())
}

fn needed(config: &ServeConfig) -> usize {
    config.descriptors().saturating_add(RESERVED)
}

/// As many clients as fit, if not as many do as are allowed.
fn connections_within(allowed: usize, config: &ServeConfig) -> Option<usize> {
    let missing = needed(config).checked_sub(allowed).filter(|&n| n > 0)?;
    // Each has two.
    let connections = config.limits.connections;
    Some(connections.saturating_sub(missing.div_ceil(2)))
}

/// How many files may be open, after the soft limit was raised.
fn raise(needed: usize) -> usize {
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let wanted = needed.max(ENOUGH).min(hard);
    let mut allowed = limit.current.unwrap_or(u64::MAX);
    if allowed < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => allowed = wanted,
            Err(error) => warn!(
                event = "limit_not_raised",
                "could not raise the limit of open files to {wanted}: {error}"
            ),
        }
    }
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_clients_as_fit_are_allowed_and_no_more() {
        let mut config = ServeConfig::new(vec!["*".parse().unwrap()]);
        config.limits.connections = 100;
        let needed = needed(&config);
        for (allowed, expected) in [
            (usize::MAX, None),
            (needed, None),
            (needed - 1, Some(99)),
            (needed - 2, Some(99)),
            (needed - 3, Some(98)),
            (needed - 200, Some(0)),
            (0, Some(0)),
        ] {
            assert_eq!(connections_within(allowed, &config), expected, "{allowed}");
            if let Some(fewer @ 1..) = expected {
                let mut fitting = config.clone();
                fitting.limits.connections = fewer;
                assert_eq!(connections_within(allowed, &fitting), None);
            }
        }
    }
}
