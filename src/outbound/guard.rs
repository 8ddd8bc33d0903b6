//! Which addresses a stranger may lead us to: those of the public internet, and those that the operator allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 that is not the public internet (IANA, "IPv4 Special-Purpose Address Registry").
const SPECIAL_V4: [Ipv4Net; 17] = [
    v4([0, 0, 0, 0], 8),          // this network
    v4([10, 0, 0, 0], 8),         // private
    v4([100, 64, 0, 0], 10),      // behind a carrier's translation
    v4([127, 0, 0, 0], 8),        // loopback
    v4([168, 63, 129, 16], 32),   // a cloud's own, towards each of its machines (Azure)
    v4([169, 254, 0, 0], 16),     // link-local, and there the metadata of clouds
    v4([172, 16, 0, 0], 12),      // private
    v4([192, 0, 0, 0], 24),       // protocol assignments
    v4([192, 0, 2, 0], 24),       // documentation
    v4([192, 88, 99, 0], 24),     // relays of 6to4
    v4([192, 168, 0, 0], 16),     // private
    v4([198, 18, 0, 0], 15),      // benchmarks
    v4([198, 51, 100, 0], 24),    // documentation
    v4([203, 0, 113, 0], 24),     // documentation
    v4([224, 0, 0, 0], 4),        // multicast
    v4([240, 0, 0, 0], 4),        // reserved
    v4([255, 255, 255, 255], 32), // broadcast
];

/// Where all of IPv6's public internet lies. Outside of it are `::`, `::1`, addresses that hold an IPv4 one (mapped,
/// compatible, translated), unique local, link-local, site-local, multicast, discard-only and segment routing.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0], 3);

/// What of it is not the public internet (IANA, "IPv6 Special-Purpose Address Registry").
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0], 23),     // protocol assignments: Teredo, ORCHID, benchmarks
    v6([0x2001, 0xdb8, 0], 32), // documentation
    v6([0x2002, 0, 0], 16),     // 6to4: its relay leads to the IPv4 address that it holds
    v6([0x3fff, 0, 0], 20),     // documentation
];

/// The prefix of NAT64 that everybody uses (RFC 6052): the last 32 bits are the IPv4 address that is reached.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

const fn v4(start: [u8; 4], length: u8) -> Ipv4Net {
    let [a, b, c, d] = start;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(start: [u16; 3], length: u8) -> Ipv6Net {
    let [a, b, c] = start;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

/// An address that must not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, which is not a public address; to allow it, add its network to outbound.allow")]
pub(super) struct Forbidden(pub(super) IpAddr);

/// Whether `address` may be dialled: it is one of the public internet, or in a network of `allow`.
///
/// A network of `allow` covers its addresses in their IPv6 forms too: mapped, and behind NAT64.
pub(super) fn check(address: IpAddr, allow: &[IpNet]) -> Result<(), Forbidden> {
    let address = address.to_canonical();
    let is_allowed = allow.iter().any(|network| network.contains(&address));
    if is_allowed || is_public(address, allow) {
        Ok(())
    } else {
        Err(Forbidden(address))
    }
}

fn is_public(address: IpAddr, allow: &[IpNet]) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            check(IpAddr::V4(last_32_bits(address)), allow).is_ok()
        }
        IpAddr::V6(address) => {
            GLOBAL_UNICAST.contains(&address)
                && !SPECIAL_V6.iter().any(|network| network.contains(&address))
                && embedded_by_isatap(address)
                    .is_none_or(|inner| check(IpAddr::V4(inner), allow).is_ok())
        }
    }
}

/// The IPv4 address that a router of ISATAP would send to (RFC 5214, section 6.1).
fn embedded_by_isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    // The universal bit may be set: it says whether the IPv4 address is unique in the world.
    let is_isatap = matches!(
        address.segments(),
        [_, _, _, _, 0x0000 | 0x0200, 0x5efe, _, _]
    );
    is_isatap.then(|| last_32_bits(address))
}

fn last_32_bits(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(address: &str, allow: &[&str]) -> bool {
        let allow: Vec<IpNet> = allow.iter().map(|net| net.parse().unwrap()).collect();
        check(address.parse().unwrap(), &allow).is_ok()
    }

    #[test]
    fn the_public_internet_may_be_dialled() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "203.0.112.255",
            "223.255.255.255",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001:80e::200e",
            "3ffe::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2a00:1450::5efe:101:101",
        ] {
            assert!(is_free(address, &[]), "{address}");
        }
    }

    #[test]
    fn other_ipv4_may_not_be_dialled() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
        ] {
            assert!(!is_free(address, &[]), "{address}");
            assert!(!is_free(&format!("::ffff:{address}"), &[]), "{address}");
            assert!(!is_free(&format!("64:ff9b::{address}"), &[]), "{address}");
        }
    }

    #[test]
    fn other_ipv6_may_not_be_dialled() {
        for address in [
            "::",
            "::1",
            "::2",
            "::1.1.1.1",
            "::127.0.0.1",
            "::ffff:0:1.1.1.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::",
            "64:ff9b:1::1",
            "64:ff9b:1::1.1.1.1",
            "64:ff9b:0:1::1.1.1.1",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            "100::1",
            "100:0:0:1::1",
            "1fff::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "2002::1",
            "2002:7f00:1::",
            "2002:101:101::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff:ffff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "ff0e::1",
            "fe80::5efe:127.0.0.1",
            "2a00:1450::5efe:127.0.0.1",
            "2a00:1450::200:5efe:10.0.0.5",
        ] {
            assert!(!is_free(address, &[]), "{address}");
        }
    }

    #[test]
    fn what_the_operator_allows_may_be_dialled_in_all_its_forms() {
        for (address, allow, expected) in [
            ("10.0.0.5", "10.0.0.0/24", true),
            ("::ffff:10.0.0.5", "10.0.0.0/24", true),
            ("64:ff9b::10.0.0.5", "10.0.0.0/24", true),
            ("2a00:1450::5efe:10.0.0.5", "10.0.0.0/24", true),
            ("10.0.1.5", "10.0.0.0/24", false),
            ("64:ff9b::10.0.1.5", "10.0.0.0/24", false),
            ("127.0.0.1", "127.0.0.1/32", true),
            ("127.0.0.2", "127.0.0.1/32", false),
            ("::1", "127.0.0.0/8", false),
            ("::1", "::1/128", true),
            ("fd12::1", "fd12::/16", true),
            ("2002:a00:5::1", "10.0.0.0/8", false),
            ("2002:a00:5::1", "2002::/16", true),
            ("169.254.169.254", "10.0.0.0/8", false),
            ("169.254.169.254", "169.254.169.254/32", true),
            ("127.0.0.1", "::/0", false),
            ("::ffff:127.0.0.1", "::/0", false),
            ("::1", "0.0.0.0/0", false),
        ] {
            assert_eq!(is_free(address, &[allow]), expected, "{address} {allow}");
        }
    }

    #[test]
    fn the_refusal_says_what_to_do() {
        let refused = check("::ffff:10.0.0.5".parse().unwrap(), &[]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "10.0.0.5, which is not a public address; to allow it, add its network to outbound.allow"
        );
    }
}
