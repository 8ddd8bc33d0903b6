//! Where a call goes, and by what name.

use std::fmt;

use url::Host;

use crate::id_server::{IdServer, may_be_dialled};

/// The port of HTTPS.
const HTTPS: u16 = 443;

/// A server that is called over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Whom the certificate must name.
    pub(super) host: Host<String>,
    pub(super) port: u16,
    /// What the `Host` header says where it is not what the URL says.
    pub(super) host_header: Option<String>,
    /// The hosts and ports that are dialled in the place of `host` and `port`, the first one that can be reached.
    pub(super) instead: Vec<(String, u16)>,
}

impl Destination {
    /// The server at this host and port.
    pub(crate) fn new(host: Host<String>, port: u16) -> Self {
        Self {
            host,
            port,
            host_header: None,
            instead: Vec::new(),
        }
    }

    /// With that `Host` header.
    pub(crate) fn called(self, host_header: &str) -> Self {
        Self {
            host_header: Some(host_header.to_owned()),
            ..self
        }
    }

    /// Dialled at the first of these hosts and ports that can be reached. The certificate must name the same as before.
    pub(crate) fn dialled_at(self, instead: Vec<(String, u16)>) -> Self {
        Self { instead, ..self }
    }

    /// A port that no stranger may lead us to, if one would be dialled.
    pub(super) fn forbidden_port(&self) -> Option<u16> {
        let instead = self.instead.iter().map(|(_, port)| *port);
        let own = self.instead.is_empty().then_some(self.port);
        instead.chain(own).find(|port| !may_be_dialled(*port))
    }
}

impl From<&IdServer> for Destination {
    fn from(server: &IdServer) -> Self {
        Self::new(server.host().clone(), server.port())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.host)?;
        if self.port != HTTPS {
            write!(out, ":{}", self.port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_of_no_service_of_the_system_are_dialled() {
        let host: Host<String> = Host::Domain("example.org".to_owned());
        for (port, forbidden) in [
            (443, None),
            (8448, None),
            (1024, None),
            (65535, None),
            (0, Some(0)),
            (22, Some(22)),
            (25, Some(25)),
            (80, Some(80)),
            (1023, Some(1023)),
        ] {
            let straight = Destination::new(host.clone(), port);
            let elsewhere = Destination::new(host.clone(), 8448)
                .dialled_at(vec![("a.org".to_owned(), 8448), ("b.org".to_owned(), port)]);
            assert_eq!(straight.forbidden_port(), forbidden);
            assert_eq!(elsewhere.forbidden_port(), forbidden);
        }
    }
}
