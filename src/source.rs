//! Where a request came from: what limits are counted on, and what a mail may tell of it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// The client's address as far as it matters: an IPv4 address, or the /64 that an IPv6 customer has to himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An IPv4 address, or the first half of an IPv6 address with the rest zero.
    Address(IpAddr),
    /// Not known; all such requests are counted together.
    Unknown,
    /// A homeserver that asks for all its users and does not tell their addresses: counted on no source, since one of them
    /// would lock out the others.
    Homeserver,
}

impl Source {
    /// The source of a request from `address`. IPv4 addresses written as IPv6 count as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(first_bits(address, 64)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// The network that a mail may name: an IPv4 /24 or IPv6 /48, so that nobody is told another person's address.
    #[must_use]
    pub fn network(self) -> Option<String> {
        match self {
            Self::Address(IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                Some(format!("{a}.{b}.{c}.0/24"))
            }
            Self::Address(IpAddr::V6(address)) => Some(format!("{}/48", first_bits(address, 48))),
            Self::Unknown | Self::Homeserver => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(out),
            Self::Unknown => out.write_str("unknown"),
            Self::Homeserver => out.write_str("homeserver"),
        }
    }
}

fn first_bits(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_customer_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }

    #[test]
    fn a_mail_names_no_more_than_a_network() {
        assert_eq!(
            Source::of("192.0.2.77".parse().unwrap()).network().unwrap(),
            "192.0.2.0/24"
        );
        assert_eq!(
            Source::of("2001:db8:aa:bb::1".parse().unwrap())
                .network()
                .unwrap(),
            "2001:db8:aa::/48"
        );
        assert_eq!(Source::Unknown.network(), None);
        assert_eq!(Source::Homeserver.network(), None);
    }
}
