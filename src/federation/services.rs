//! SRV records: which host is dialled first (RFC 2782).

use url::Host;

use crate::{id_server::may_be_dialled, outbound::Service};

/// How many hosts of one name are tried.
const MOST: usize = 3;

/// The hosts and ports to dial, in their order: by priority, and among equals by chance, according to their weights.
/// `chance` gives numbers in `0.0..1.0`.
///
/// Without those that are no names of hosts, such as the `.` of whoever offers no such service, or that have a port that is
/// not dialled.
pub(super) fn in_order(
    mut services: Vec<Service>,
    mut chance: impl FnMut() -> f64,
) -> Vec<(String, u16)> {
    services.retain(|service| may_be_dialled(service.port));
    let mut ranked: Vec<_> = services
        .into_iter()
        .filter_map(|service| Some((rank(&service, chance()), host(&service)?, service.port)))
        .collect();
    ranked.sort_by(|(one, ..), (other, ..)| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    let in_order = ranked.into_iter().map(|(_, host, port)| (host, port));
    in_order.take(MOST).collect()
}

/// What records are sorted by. Each takes a time that its weight makes shorter, and the shortest goes first: so each is the
/// first one with a probability that is its share of all weights.
fn rank(service: &Service, chance: f64) -> (u16, f64) {
    let time = -(1.0 - chance).ln() / f64::from(service.weight);
    // Those without a weight come last among their equals.
    let time = if service.weight == 0 { f64::MAX } else { time };
    (service.priority, time)
}

fn host(service: &Service) -> Option<String> {
    match Host::parse(&service.target) {
        Ok(Host::Domain(name)) if name.split('.').all(|label| !label.is_empty()) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> Service {
        Service {
            priority,
            weight,
            port,
            target: target.to_owned(),
        }
    }

    fn order(services: &[Service], chance: f64) -> Vec<String> {
        let found = in_order(services.to_vec(), || chance);
        found.into_iter().map(|(host, _)| host).collect()
    }

    #[test]
    fn the_lowest_priority_goes_first_and_weight_counts_among_equals() {
        let light = record(10, 1, 8448, "light.example");
        let heavy = record(10, 5, 8448, "heavy.example");
        let idle = record(10, 0, 8448, "idle.example");
        let last = record(20, 9, 8448, "last.example");
        for chance in [0.0, 0.1, 0.5, 0.9] {
            let services = [&last, &idle, &heavy].map(Clone::clone);
            let expected = ["heavy.example", "idle.example", "last.example"];
            assert_eq!(order(&services, chance), expected);
        }
        for (chances, first) in [
            ([0.5, 0.5], "heavy.example"),
            ([0.1, 0.9], "light.example"),
            ([0.9, 0.1], "heavy.example"),
        ] {
            let mut chances = chances.into_iter();
            let services = vec![light.clone(), heavy.clone()];
            let found = in_order(services, || chances.next().unwrap());
            assert_eq!(found[0].0, first);
        }
    }

    #[test]
    fn what_is_no_host_or_port_to_dial_is_left_out() {
        for (port, target) in [
            (8448, ""),
            (8448, "."),
            (8448, "127.0.0.1"),
            (8448, "2130706433"),
            (8448, "0x7f.1"),
            (8448, "[::1]"),
            (8448, "a..example"),
            (8448, "a.example/x"),
            (8448, "me@a.example"),
            (22, "a.example"),
            (0, "a.example"),
        ] {
            assert!(order(&[record(0, 0, port, target)], 0.5).is_empty());
        }
        let many: Vec<_> = (0..50)
            .map(|number| record(number, 0, 443, "A.example"))
            .collect();
        assert_eq!(order(&many, 0.5), ["a.example"; MOST]);
    }
}
