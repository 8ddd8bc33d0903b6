//! This machine: the addresses and the name that lead to it alone.

use std::net::IpAddr;

use url::{Host, Url};

/// Whether an address is this machine's own. IPv4 addresses written as IPv6 count as IPv4.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a host is this machine: `localhost`, or a loopback address.
pub(crate) fn is_loopback_host<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref().eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => is_loopback((*address).into()),
        Host::Ipv6(address) => is_loopback((*address).into()),
    }
}

/// Whether a URL leads to this machine alone.
pub(crate) fn is_loopback_url(url: &Url) -> bool {
    url.host().is_some_and(|host| is_loopback_host(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_alone() {
        for (url, expected) in [
            ("http://localhost:8090", true),
            ("http://a.localhost", false),
            ("http://127.9.9.9", true),
            ("http://[::1]:1", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://0.0.0.0", false),
            ("http://localhost.example.org", false),
            ("http://192.168.0.1", false),
            ("data:,localhost", false),
        ] {
            assert_eq!(
                is_loopback_url(&Url::parse(url).unwrap()),
                expected,
                "{url}"
            );
        }
    }
}
