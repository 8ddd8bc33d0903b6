//! Lookups of many addresses.

use std::path::Path;

use crate::{
    Failure, Plan,
    figure::Figure,
    fill::{self, Chance, PEPPER},
    load, serve, server,
};

/// Which addresses are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All are somebody's.
    Hits,
    /// None is.
    Misses,
    /// One in ten is: an address book.
    Mixed,
}

const KINDS: [Kind; 3] = [Kind::Hits, Kind::Misses, Kind::Mixed];

/// What a kind of lookups met at so many connections.
pub(crate) type Measured = (Kind, usize, Figure);

/// Measures all kinds.
pub(crate) async fn all(plan: &Plan, folder: &Path) -> Result<Vec<Measured>, Failure> {
    let (server, token) = serve::start(folder)?;
    let mut chance = Chance(7);
    let mut measured = Vec::new();
    // Threads, statements and buffers come with the first requests.
    let warm = (0..50).map(|_| request(plan, Kind::Mixed, &token, PEPPER, &mut chance));
    load::run(server.address, warm.collect(), 4).await?;
    for kind in KINDS {
        for (concurrency, count) in plan.loads {
            eprintln!("{kind:?}, {concurrency}");
            let one = |_| request(plan, kind, &token, PEPPER, &mut chance);
            let requests: Vec<_> = (0..count).map(one).collect();
            server::sync();
            let before = server.settle().await?;
            let outcome = load::run(server.address, requests, concurrency).await?;
            let cpu = server.settle().await?.saturating_sub(before);
            measured.push((kind, concurrency, Figure::new(&outcome, cpu)));
        }
    }
    Ok(measured)
}

/// One lookup.
pub(crate) fn request(
    plan: &Plan,
    kind: Kind,
    token: &str,
    pepper: &str,
    chance: &mut Chance,
) -> Vec<u8> {
    let number = |place: u32| {
        let is_hit = match kind {
            Kind::Hits => true,
            Kind::Misses => false,
            Kind::Mixed => place.is_multiple_of(10),
        };
        let among = chance.below(plan.stored);
        if is_hit { among } else { plan.stored + among }
    };
    let body = fill::lookup((0..plan.addresses).map(number), pepper);
    load::post_as(&bearer(token), "/_matrix/identity/v2/lookup", &body)
}

/// The header of a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}
