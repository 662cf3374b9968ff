//! Addresses that are taken before there is a server.

use std::io;

use crate::config::ListenAddress;
use crate::error::ServeError;
use crate::listener::{Bound, Listener};

/// Addresses that are taken for a server that is made ready later: so it is known before it
/// matters that nobody else listens there. Of two that are made ready for the same TCP address, the
/// later one is refused it only then.
#[derive(Debug)]
pub struct Sockets(Vec<(ListenAddress, Bound)>);

impl Sockets {
    /// Takes the addresses. Nobody can connect by TCP until there is a server, and clients of a
    /// Unix socket wait for it.
    ///
    /// # Errors
    /// When somebody listens at one of them, or this machine does not have it.
    pub fn bind(addresses: &[ListenAddress]) -> Result<Self, ServeError> {
        let mut all = Vec::new();
        for address in addresses {
            let bound = Bound::at(address).map_err(|source| not_listening(address, source))?;
            all.extend(bound.into_iter().map(|bound| (address.clone(), bound)));
        }
        Ok(Self(all))
    }

    pub(crate) fn listen(self) -> Result<Vec<Listener>, ServeError> {
        let all = self.0.into_iter();
        all.map(|(address, bound)| {
            let listener = bound.listen();
            listener.map_err(|source| not_listening(&address, source))
        })
        .collect()
    }
}

fn not_listening(address: &ListenAddress, source: io::Error) -> ServeError {
    ServeError::Listen {
        address: address.clone(),
        source,
    }
}
