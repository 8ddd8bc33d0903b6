//! An account's list of addresses, and what a change makes of it.

use serde_json::Value;

use crate::{
    clock::Timestamp,
    threepid::{Medium, Threepid},
};

/// An address as the homeserver keeps it, which may be an old one that is not canonical.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) medium: String,
    pub(super) address: String,
    pub(super) validated_at: Option<Timestamp>,
    pub(super) added_at: Option<Timestamp>,
}

impl Entry {
    fn new(threepid: &Threepid) -> Self {
        Self {
            medium: threepid.medium().as_str().to_owned(),
            address: threepid.address().to_owned(),
            validated_at: None,
            added_at: None,
        }
    }

    /// `None` if it has no medium or no address.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let at = |key: &str| value[key].as_i64().map(Timestamp);
        Some(Self {
            medium: value["medium"].as_str()?.to_owned(),
            address: value["address"].as_str()?.to_owned(),
            validated_at: at("validated_at"),
            added_at: at("added_at"),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.medium == other.medium && self.address == other.address
    }

    /// The address as it is, and as the homeserver would write it now if that is different.
    pub(super) fn spellings(&self) -> Vec<String> {
        let canonical = if self.medium == Medium::Email.as_str() {
            Threepid::email(&self.address)
                .map_or_else(|_| self.address.clone(), |email| email.address().to_owned())
        } else {
            self.address.trim_start_matches('+').to_owned()
        };
        let mut spellings = vec![self.address.clone()];
        if canonical != self.address {
            spellings.push(canonical);
        }
        spellings
    }

    /// Whether it is another spelling of an address, or the same.
    pub(super) fn is(&self, threepid: &Threepid) -> bool {
        self.medium == threepid.medium().as_str()
            && (self.address == threepid.address()
                || match threepid.medium() {
                    Medium::Email => {
                        Threepid::email(&self.address).is_ok_and(|canonical| canonical == *threepid)
                    }
                    Medium::Msisdn => self.address.trim_start_matches('+') == threepid.address(),
                })
    }
}

/// What becomes of a list of addresses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    Add(&'a Threepid),
    Remove(&'a Threepid),
}

impl Change<'_> {
    /// The list as it is to be.
    pub(super) fn apply(self, list: Vec<Entry>) -> Vec<Entry> {
        let mut list = self.strip(list);
        if let Self::Add(threepid) = self
            && !list.iter().any(|entry| entry.is(threepid))
        {
            list.push(Entry::new(threepid));
        }
        list
    }

    /// The list without what is to be removed.
    pub(super) fn strip(self, mut list: Vec<Entry>) -> Vec<Entry> {
        if let Self::Remove(threepid) = self {
            list.retain(|entry| !entry.is(threepid));
        }
        list
    }

    /// The list without what was to be added.
    pub(super) fn undo(self, mut list: Vec<Entry>) -> Vec<Entry> {
        if let Self::Add(threepid) = self {
            list.retain(|entry| !entry.is(threepid));
        }
        list
    }
}

/// Whether a list has an entry in this spelling.
pub(super) fn have(list: &[Entry], entry: &Entry) -> bool {
    list.iter().any(|other| other.is_same(entry))
}

fn have_all(list: &[Entry], wanted: &[Entry]) -> bool {
    wanted.iter().all(|entry| have(list, entry))
}

/// Whether two lists have the same entries, in any order.
pub(super) fn are_equal(one: &[Entry], other: &[Entry]) -> bool {
    one.len() == other.len() && have_all(one, other)
}

/// Whether nothing that was wanted is lost, and what was to be removed is gone.
pub(super) fn is_done(there: &[Entry], wanted: &[Entry], change: Change<'_>) -> bool {
    have_all(there, wanted) && are_equal(&change.strip(there.to_vec()), there)
}

/// All of one list, and what only the other has.
pub(super) fn union(mut one: Vec<Entry>, other: Vec<Entry>) -> Vec<Entry> {
    for entry in other {
        if !have(&one, &entry) {
            one.push(entry);
        }
    }
    one
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(medium: &str, address: &str) -> Entry {
        Entry::read(&json!({ "medium": medium, "address": address })).unwrap()
    }

    fn addresses(list: &[Entry]) -> Vec<&str> {
        list.iter().map(|entry| entry.address.as_str()).collect()
    }

    #[test]
    fn a_change_touches_one_address() {
        let alice = Threepid::email("alice@example.org").unwrap();
        let phone = Threepid::msisdn("GB", "07700900001").unwrap();
        let old = vec![
            entry("email", "Alice@Example.org"),
            entry("msisdn", "447700900001"),
            entry("email", "b@c.org"),
        ];

        let removed = Change::Remove(&alice).apply(old.clone());
        assert_eq!(addresses(&removed), ["447700900001", "b@c.org"]);
        let removed = Change::Remove(&phone).apply(old.clone());
        assert_eq!(addresses(&removed), ["Alice@Example.org", "b@c.org"]);
        assert_eq!(
            addresses(&Change::Add(&alice).apply(old.clone())),
            addresses(&old)
        );
        assert_eq!(
            addresses(&Change::Add(&alice).strip(old.clone())),
            addresses(&old)
        );
        let added = Change::Add(&alice).apply(removed[1..].to_vec());
        assert_eq!(addresses(&added), ["b@c.org", "alice@example.org"]);
        assert_eq!(addresses(&Change::Add(&alice).undo(added)), ["b@c.org"]);
    }

    #[test]
    fn an_old_address_has_two_spellings() {
        for (medium, address, spellings) in [
            ("email", "a@b.org", &["a@b.org"][..]),
            ("email", "A@B.org", &["A@B.org", "a@b.org"]),
            ("email", "nonsense", &["nonsense"]),
            ("msisdn", "447700900001", &["447700900001"]),
            (
                "msisdn",
                "+447700900001",
                &["+447700900001", "447700900001"],
            ),
        ] {
            assert_eq!(entry(medium, address).spellings(), spellings);
        }
    }
}
