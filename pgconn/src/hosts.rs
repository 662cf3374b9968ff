//! Several hosts: which of them is connected to.
//!
//! Source: the PostgreSQL manual, "Specifying Multiple Hosts" and `target_session_attrs`.

mod answers;
mod suits;

use walproto::client::SessionTimes;

use crate::connection::{Address, Attempt, ConnectError, Connection, addresses};
use crate::conninfo::{ConnectionConfig, HostCandidate, LoadBalanceHosts, TargetSessionAttrs};
pub use answers::{Answer, Answered, ask_all};
use suits::connect_suitable;
pub use suits::{Suits, connect_checked};

/// Connects to the first host that works and is in the state that `target_session_attrs` asks
/// for.
///
/// libpq gives up when a server answers and refuses the password; here the other hosts are tried
/// too.
///
/// # Cancel safety
/// Dropped half way, the attempt is given up.
///
/// # Errors
/// When there is none; each try is named.
pub async fn connect_any(
    config: &ConnectionConfig,
    times: SessionTimes,
) -> Result<Connection, ConnectError> {
    let mut attempts = Vec::new();
    for wanted in passes(config.target_session_attrs) {
        attempts.clear();
        for host in order(config) {
            let addresses = match addresses(config, host).await {
                Ok(addresses) => addresses,
                Err(failed) => {
                    attempts.push(failed);
                    continue;
                }
            };
            match connect_first(config, &addresses, times, *wanted).await {
                Ok(connection) => return Ok(connection),
                Err(mut failed) => attempts.append(&mut failed),
            }
        }
    }
    Err(ConnectError { attempts })
}

/// Connects to the first of a host's addresses that works and is in the state asked for.
async fn connect_first(
    config: &ConnectionConfig,
    addresses: &[Address<'_>],
    times: SessionTimes,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Vec<Attempt>> {
    let mut attempts = Vec::new();
    for address in addresses {
        match connect_suitable(config, address, times, wanted).await {
            Ok(connection) => return Ok(connection),
            Err(mut failed) => attempts.append(&mut failed),
        }
    }
    Err(attempts)
}

/// What to look for, and what to look for when that is not found.
const fn passes(wanted: TargetSessionAttrs) -> &'static [TargetSessionAttrs] {
    match wanted {
        TargetSessionAttrs::Any => &[TargetSessionAttrs::Any],
        TargetSessionAttrs::ReadWrite => &[TargetSessionAttrs::ReadWrite],
        TargetSessionAttrs::ReadOnly => &[TargetSessionAttrs::ReadOnly],
        TargetSessionAttrs::Primary => &[TargetSessionAttrs::Primary],
        TargetSessionAttrs::Standby => &[TargetSessionAttrs::Standby],
        TargetSessionAttrs::PreferStandby => {
            &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any]
        }
    }
}

/// The hosts in the order in which they are to be tried.
fn order(config: &ConnectionConfig) -> Vec<&HostCandidate> {
    let mut hosts: Vec<_> = config.hosts.iter().collect();
    if config.load_balance_hosts == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut hosts);
    }
    hosts
}
