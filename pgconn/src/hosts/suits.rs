//! How well a server suits `target_session_attrs`.

use walproto::client::SessionTimes;

use crate::connection::{Address, Attempt, ConnectFailure, Connection, ConnectionError};
use crate::conninfo::{ConnectionConfig, TargetSessionAttrs};

/// How well a server suits `target_session_attrs`, from worst to best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Suits {
    /// Not at all: it is asked for what it knows, and not streamed from.
    No {
        /// The state that was asked for.
        wanted: &'static str,
        /// What is wrong about the server.
        found: &'static str,
    },
    /// If no other server suits better.
    Fallback,
    /// As was asked for.
    Well,
}

/// Connects to a server that suits `wanted`.
pub(super) async fn connect_suitable(
    config: &ConnectionConfig,
    address: &Address<'_>,
    times: SessionTimes,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Vec<Attempt>> {
    let (connection, suits) = connect_as(config, address, times, wanted).await?;
    let Suits::No { wanted, found } = suits else {
        return Ok(connection);
    };
    let server = connection.server().to_owned();
    connection.close().await;
    let failure = ConnectFailure::Target { found, wanted };
    Err(vec![Attempt { server, failure }])
}

/// Connects, and finds out how well the server suits `target_session_attrs`.
///
/// # Errors
/// When the connection fails; each try is named, as with TLS and without.
pub async fn connect_checked(
    config: &ConnectionConfig,
    address: &Address<'_>,
    times: SessionTimes,
) -> Result<(Connection, Suits), Vec<Attempt>> {
    connect_as(config, address, times, config.target_session_attrs).await
}

async fn connect_as(
    config: &ConnectionConfig,
    address: &Address<'_>,
    times: SessionTimes,
    wanted: TargetSessionAttrs,
) -> Result<(Connection, Suits), Vec<Attempt>> {
    let connected = address.connect(config, times).await;
    let mut connection = connected.map_err(|error| error.attempts)?;
    let checked = check(&mut connection, wanted);
    let checked = match config.connect_timeout {
        Some(after) => {
            tokio::time::timeout(after, checked)
                .await
                .unwrap_or(Err(ConnectFailure::Timeout {
                    after,
                    limit: "connect_timeout",
                }))
        }
        None => checked.await,
    };
    match checked {
        Ok(suits) => Ok((connection, suits)),
        Err(failure) => {
            let server = connection.server().to_owned();
            connection.close().await;
            Err(vec![Attempt { server, failure }])
        }
    }
}

/// What a server is, as far as `target_session_attrs` goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ServerState {
    hot_standby: bool,
    read_only: bool,
}

async fn check(
    connection: &mut Connection,
    wanted: TargetSessionAttrs,
) -> Result<Suits, ConnectFailure> {
    if wanted == TargetSessionAttrs::Any {
        return Ok(Suits::Well);
    }
    let state = match reported(
        connection.parameter("in_hot_standby"),
        connection.parameter("default_transaction_read_only"),
    ) {
        Some(state) => state,
        None => asked(connection)
            .await
            .map_err(|error| ConnectFailure::Connection(Box::new(error)))?,
    };
    Ok(match mismatch(state, wanted) {
        Some((wanted, found)) => Suits::No { wanted, found },
        None if wanted == TargetSessionAttrs::PreferStandby && !state.hot_standby => {
            Suits::Fallback
        }
        None => Suits::Well,
    })
}

/// What the server has said about itself when the session began, which it does from 14 on.
fn reported(in_hot_standby: Option<&str>, read_only: Option<&str>) -> Option<ServerState> {
    let hot_standby = in_hot_standby? == "on";
    Some(ServerState {
        hot_standby,
        read_only: hot_standby || read_only? == "on",
    })
}

/// Asks the server by SHOW, the only question of this kind that a physical walsender answers. A
/// primary of version 13 with `default_transaction_read_only = on` looks like a standby so.
async fn asked(connection: &mut Connection) -> Result<ServerState, ConnectionError> {
    let on = connection.show("transaction_read_only").await?.value == "on";
    Ok(ServerState {
        hot_standby: on,
        read_only: on,
    })
}

/// What is wrong with a server, in libpq's words, and what was asked for.
fn mismatch(
    state: ServerState,
    wanted: TargetSessionAttrs,
) -> Option<(&'static str, &'static str)> {
    match wanted {
        TargetSessionAttrs::ReadWrite if state.read_only => {
            Some(("read-write", "session is read-only"))
        }
        TargetSessionAttrs::ReadOnly if !state.read_only => {
            Some(("read-only", "session is not read-only"))
        }
        TargetSessionAttrs::Primary if state.hot_standby => {
            Some(("primary", "server is in hot standby mode"))
        }
        TargetSessionAttrs::Standby if !state.hot_standby => {
            Some(("standby", "server is not in hot standby mode"))
        }
        TargetSessionAttrs::Any
        | TargetSessionAttrs::ReadWrite
        | TargetSessionAttrs::ReadOnly
        | TargetSessionAttrs::Primary
        | TargetSessionAttrs::Standby
        | TargetSessionAttrs::PreferStandby => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart_by_what_they_report() {
        use TargetSessionAttrs::{Any, Primary, ReadOnly, ReadWrite, Standby};
        for (in_hot_standby, read_only, fits) in [
            ("off", "off", &[Any, ReadWrite, Primary][..]),
            ("off", "on", &[Any, ReadOnly, Primary]),
            ("on", "off", &[Any, ReadOnly, Standby]),
            ("on", "on", &[Any, ReadOnly, Standby]),
        ] {
            let state = reported(Some(in_hot_standby), Some(read_only)).unwrap();
            for wanted in [Any, ReadWrite, ReadOnly, Primary, Standby] {
                let found = mismatch(state, wanted);
                assert_eq!(
                    found.is_none(),
                    fits.contains(&wanted),
                    "{state:?} {wanted:?}"
                );
            }
        }
        assert_eq!(reported(None, Some("off")), None);
        assert_eq!(reported(Some("off"), None), None);
    }
}
