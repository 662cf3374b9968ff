//! A relay that would receive from itself: nothing new ever comes, and no error either.

use std::net::{IpAddr, SocketAddr};

use pgconn::conninfo::{Endpoint, HostCandidate};
use walsender::ListenAddress;

use crate::error::MainError;

/// Refuses a server that is where this program is going to listen, as far as the addresses say so
/// themselves: no name is looked up but `localhost`.
///
/// # Errors
/// When there is one, which is named.
pub(super) fn refuse(hosts: &[HostCandidate], listen: &[ListenAddress]) -> Result<(), MainError> {
    for host in hosts {
        if let Some(address) = listen.iter().find(|address| is_same(host, address)) {
            return Err(MainError::OwnAddress {
                host: match host.endpoint() {
                    Endpoint::Tcp(name) => name.to_owned(),
                    Endpoint::Unix(path) => path.display().to_string(),
                },
                port: host.port,
                address: address.clone(),
            });
        }
    }
    Ok(())
}

fn is_same(host: &HostCandidate, address: &ListenAddress) -> bool {
    match (host.endpoint(), address) {
        (Endpoint::Unix(path), ListenAddress::Unix { directory, port }) => {
            path == ListenAddress::socket_path(directory, *port)
        }
        (Endpoint::Tcp(name), ListenAddress::Tcp(address)) => {
            host.port == address.port() && names(name, address)
        }
        (Endpoint::Tcp(name), ListenAddress::Every { port }) => {
            host.port == *port && is_loopback(name)
        }
        (Endpoint::Unix(_), _) | (Endpoint::Tcp(_), ListenAddress::Unix { .. }) => false,
    }
}

fn names(name: &str, address: &SocketAddr) -> bool {
    let every = address.ip().is_unspecified();
    match name.parse::<IpAddr>() {
        Ok(ip) => ip == address.ip() || every && ip.is_loopback(),
        Err(_) => (every || address.ip().is_loopback()) && is_loopback(name),
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(host: &str, port: u16, address: &str) -> bool {
        let host = HostCandidate {
            host: Some(host.to_owned()),
            address: None,
            port,
        };
        refuse(&[host], &[address.parse().unwrap()]).is_err()
    }

    #[test]
    fn what_is_listened_at_is_no_server() {
        for (host, port, address) in [
            ("127.0.0.1", 5433, "127.0.0.1:5433"),
            ("localhost", 5433, "127.0.0.1:5433"),
            ("::1", 5433, "*:5433"),
            ("192.0.2.1", 5433, "192.0.2.1:5433"),
            ("/run/wal", 5433, "/run/wal:5433"),
        ] {
            assert!(is_own(host, port, address), "{host} {port} {address}");
            assert!(!is_own(host, port + 1, address), "{host} {port} {address}");
        }
        for (host, address) in [
            ("192.0.2.1", "192.0.2.2:5433"),
            ("127.0.0.1", "192.0.2.2:5433"),
            ("127.0.0.2", "127.0.0.1:5433"),
            ("db", "*:5433"),
            ("/run/postgresql", "/run/wal:5433"),
            ("/run/wal", "*:5433"),
        ] {
            assert!(!is_own(host, 5433, address), "{host} {address}");
        }
    }
}
