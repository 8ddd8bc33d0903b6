//! From a homeserver's name to where it is called (Server-Server API, "Resolving server names").

use url::Host;

use super::{Federation, fault, services};
use crate::{
    error::{Error, Result},
    outbound::{CallError, Destination},
    secret::random_fraction,
    server_name::ServerName,
};

/// The port of federation where nothing says otherwise.
const DEFAULT_PORT: u16 = 8448;
/// The names under which SRV records are looked for, first the one of today, then the deprecated one.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

impl Federation {
    /// Where a homeserver is called. All look-ups together take no longer than one call may.
    pub(super) async fn find(&self, server: &ServerName) -> Result<Destination> {
        let limit = self.outbound.timeout();
        tokio::time::timeout(limit, self.look_up(server))
            .await
            .unwrap_or_else(|_| {
                let limit = limit.as_millis();
                let cause = format!("{server} was not found within {limit} ms");
                Err(Error::FederationTimeout(cause))
            })
    }

    async fn look_up(&self, server: &ServerName) -> Result<Destination> {
        let host = match straight(server) {
            Ok(destination) => return Ok(destination),
            Err(host) => host,
        };
        let Some(delegated) = self.delegated(host).await? else {
            return self.by_services(server, host).await;
        };
        match straight(&delegated) {
            Ok(destination) => Ok(destination),
            Err(host) => self.by_services(&delegated, host).await,
        }
    }

    /// Where a homeserver is that has a name and no port: at what its SRV records name, or else at the default port. Both
    /// certificate and `Host` header are those of the name itself.
    async fn by_services(&self, server: &ServerName, host: &str) -> Result<Destination> {
        let straight = default(server);
        for service in SERVICES {
            let name = format!("{service}.{host}");
            let found = match self.outbound.services(self.chosen_by, name).await {
                Ok(found) => found,
                Err(why @ CallError::Busy(_)) => return Err(fault(why)),
                // No answer is no record: whoever answers at the default port has to prove the name all the same.
                Err(CallError::Failed(_) | CallError::TimedOut(_)) => continue,
            };
            if found.is_empty() {
                continue;
            }
            let targets = services::in_order(found, random_fraction);
            if targets.is_empty() {
                let cause = format!("{service}.{host} names no host and port that may be dialled");
                return Err(Error::FederationFailed(cause));
            }
            return Ok(straight.dialled_at(targets));
        }
        Ok(straight)
    }
}

/// Where a homeserver is whose name says it: an address, or a host with a port. Else the host, of which it must be asked.
fn straight(server: &ServerName) -> std::result::Result<Destination, &str> {
    match (server.host(), server.port()) {
        (Host::Domain(host), None) => Err(host),
        (Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_), _) => Ok(default(server)),
    }
}

/// The name's own host, at its port or the default one.
fn default(server: &ServerName) -> Destination {
    let port = server.port().unwrap_or(DEFAULT_PORT);
    // The header is the name as it was written: without the port where there is none.
    Destination::new(server.host().clone(), port).called(server.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    #[test]
    fn addresses_and_ports_are_taken_as_they_are() {
        for (name, host, port) in [
            ("192.0.2.1", "192.0.2.1", 8448),
            ("192.0.2.1:8008", "192.0.2.1", 8008),
            ("[2001:db8::1]", "[2001:db8::1]", 8448),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", 443),
            ("Example.org:443", "example.org", 443),
            ("example.org:8448", "example.org", 8448),
        ] {
            let expected = Destination::new(Host::parse(host).unwrap(), port).called(name);
            assert_eq!(straight(&server(name)), Ok(expected), "{name}");
        }
    }

    #[test]
    fn of_a_name_alone_it_must_be_asked() {
        assert_eq!(straight(&server("Example.org")), Err("example.org"));
        assert_eq!(straight(&server("localhost")), Err("localhost"));
    }
}
