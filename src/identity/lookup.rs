//! Who is found by which address (Identity Service API, "Association lookup"; MSC2134).

use std::collections::HashMap;

use super::IdentityRules;
use crate::{
    error::{Error, Result},
    lookup_hash::generate_pepper,
    source::Source,
    store::{LookedUp, Pepper},
    threepid::Medium,
};

/// How addresses are written in a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    /// URL-safe unpadded base64 of SHA-256 of `address medium pepper`.
    Sha256,
    /// In clear, as `address medium`.
    Plain,
}

impl Algorithm {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Plain => "none",
        }
    }
}

/// A lookup as it was asked for.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) algorithm: String,
    pub(crate) pepper: String,
    pub(crate) addresses: Vec<String>,
}

impl IdentityRules {
    /// The current pepper; the first one is made when it is first needed.
    pub(crate) async fn pepper(&self) -> Result<Pepper> {
        let (store, now) = (&self.validation.store, self.validation.clock.now());
        Ok(store.pepper(&generate_pepper(), now).await?)
    }

    /// The algorithms that lookups may use, by the specification's names.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = &'static str> {
        self.known().iter().map(|algorithm| algorithm.as_str())
    }

    fn known(&self) -> &'static [Algorithm] {
        if self.settings.plain_lookups {
            &[Algorithm::Sha256, Algorithm::Plain]
        } else {
            &[Algorithm::Sha256]
        }
    }

    /// Whose the addresses are, by what was asked; what nobody has is not in it. All addresses are counted before any is looked
    /// for; of what is refused, one.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for another algorithm, [`Error::TooMany`], [`Error::InvalidPepper`], [`Error::Limited`].
    pub(crate) async fn look_up(
        &self,
        user_id: &str,
        source: Source,
        lookup: Lookup,
    ) -> Result<HashMap<String, String>> {
        let (limiter, now) = (&self.validation.limiter, self.validation.clock.now());
        let asker = self.asker(user_id, source);
        let algorithm = self.check_lookup(&lookup);
        let named = lookup.addresses.len().max(1);
        let count = u32::try_from(named).unwrap_or(u32::MAX);
        let count = if algorithm.is_ok() { count } else { 1 };
        limiter.count_lookup(&asker, count, now)?;
        let found = self.find(algorithm?, lookup).await;
        if found.is_err() {
            // Who has not heard of the new pepper yet learns nothing but that.
            limiter.give_lookup_back(&asker, count - 1);
        }
        found
    }

    fn check_lookup(&self, lookup: &Lookup) -> Result<Algorithm> {
        let mut known = self.known().iter();
        let algorithm = known.find(|known| known.as_str() == lookup.algorithm);
        let algorithm = *algorithm
            .ok_or_else(|| Error::invalid("algorithm must be one of those of hash_details."))?;
        let most = self.settings.lookup_addresses;
        if lookup.addresses.len() > most {
            let why = format!("At most {most} addresses can be looked up at once.");
            return Err(Error::TooMany(why.into()));
        }
        Ok(algorithm)
    }

    async fn find(&self, algorithm: Algorithm, lookup: Lookup) -> Result<HashMap<String, String>> {
        let current = self.pepper().await?.value;
        if lookup.pepper != current {
            return Err(other_pepper(algorithm, current));
        }
        let (store, pepper) = (&self.validation.store, &lookup.pepper);
        let found = match algorithm {
            Algorithm::Sha256 => store.look_up(pepper, lookup.addresses).await?,
            Algorithm::Plain => {
                let addresses = lookup.addresses.iter().filter_map(|asked| in_clear(asked));
                store.look_up_plain(pepper, addresses.collect()).await?
            }
        };
        match found {
            LookedUp::Found(mappings) => Ok(mappings),
            LookedUp::OtherPepper(current) => Err(other_pepper(algorithm, current)),
        }
    }
}

fn other_pepper(algorithm: Algorithm, lookup_pepper: String) -> Error {
    Error::InvalidPepper {
        algorithm: algorithm.as_str().to_owned(),
        lookup_pepper,
    }
}

/// Reads `address medium`. The address stays as it is: lookups compare it with the canonical form (Matrix appendices, "3PID
/// Types"), and what is not written so is nobody's.
fn in_clear(asked: &str) -> Option<(Medium, String)> {
    let (address, medium) = asked.rsplit_once(' ')?;
    Some((Medium::parse(medium)?, address.to_owned()))
}
