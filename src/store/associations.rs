//! Associations of addresses with users: the trait, and the values that go through it.

use std::{collections::HashMap, fmt};

use async_trait::async_trait;

use super::{Invite, StoreResult};
use crate::{
    clock::Timestamp,
    secret::SessionId,
    threepid::{Medium, Threepid},
};

/// An address that a user is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// The address.
    pub threepid: Threepid,
    /// The user.
    pub user_id: String,
    /// When they were associated.
    pub at: Timestamp,
}

/// The session that proves an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proving {
    /// Its name.
    pub sid: SessionId,
    /// When it proved the address.
    pub validated_at: Timestamp,
}

/// What became of an association that was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dissociated {
    /// It has ended.
    Yes,
    /// The address is not this user's: nothing is changed.
    NotTheirs,
    /// The session is over, or its proof is older than the association's: nothing is changed.
    NotProved,
}

/// What hashes are made with: a lookup tells it to whoever asks (MSC2134).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pepper {
    /// Letters and digits.
    pub value: String,
    /// Since when hashes are made with it.
    pub since: Timestamp,
}

/// What a lookup met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookedUp {
    /// What was asked, and whose it is; what nobody has is not in it.
    Found(HashMap<String, String>),
    /// The pepper is not the current one, which is this.
    OtherPepper(String),
}

/// How far a rotation of the pepper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// There is more to do.
    GoesOn,
    /// Nothing is left to do: all hashes are made with the current pepper, and with no other.
    Done,
}

/// A homeserver that must be told of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueOnbind {
    /// The row.
    pub id: i64,
    /// The association as it is now.
    pub association: Association,
    /// The address's invitations that can still be used; of many, the oldest.
    pub(crate) invites: Vec<Invite>,
    /// How often it was tried.
    pub tries: u32,
}

/// Who is found by which address (Identity Service API, "Establishing associations" and "Association lookup").
#[async_trait]
pub trait Associations: fmt::Debug + Send + Sync {
    /// Associates an address with a user, and with no other from then on; and puts down that the user's homeserver is to be
    /// told (of an address, the newest association alone). One durable transaction. It is found by a lookup at once, also
    /// while the pepper is being rotated. If there is no pepper yet, it is `first_pepper` from now on.
    ///
    /// `false`, and nothing is changed, if the session that proves it, `by`, is over or if another user's association
    /// has a newer proof. `None` is for those who know by themselves whose the address is.
    async fn associate(
        &self,
        association: Association,
        by: Option<Proving>,
        first_pepper: &str,
    ) -> StoreResult<bool>;

    /// Ends an association, and what its homeserver was to be told. One durable transaction.
    ///
    /// A session ends it only if its proof, `by`, is as new as the association's, or newer; all older proofs of the address
    /// end too, and the one that was shown may be used on. `None` is for those who know by themselves whose the address is:
    /// then the proofs that the user has of it end, and so do others' that are older than the association's, so that
    /// whoever is to be found by it must prove it anew.
    async fn dissociate(
        &self,
        threepid: &Threepid,
        user_id: &str,
        by: Option<Proving>,
        now: Timestamp,
    ) -> StoreResult<Dissociated>;

    /// The association of an address.
    async fn association(&self, threepid: &Threepid) -> StoreResult<Option<Association>>;

    /// The current pepper; if there is none yet, it is `first` from now on.
    async fn pepper(&self, first: &str, now: Timestamp) -> StoreResult<Pepper>;

    /// Whose the addresses of these hashes are: URL-safe unpadded base64 of SHA-256 of `address medium pepper`. What is no
    /// such hash is found nowhere. Pepper and hashes are looked at in one moment.
    async fn look_up(&self, pepper: &str, hashes: Vec<String>) -> StoreResult<LookedUp>;

    /// Whose the addresses are that are asked in clear. The keys of what is found are `address medium`.
    async fn look_up_plain(
        &self,
        pepper: &str,
        addresses: Vec<(Medium, String)>,
    ) -> StoreResult<LookedUp>;

    /// Begins a rotation to the pepper `next`; `false` if one is under way, or if there is no pepper yet.
    async fn begin_rotation(&self, next: &str, now: Timestamp) -> StoreResult<bool>;

    /// One small step of a rotation, if one is under way: hashes some associations anew; once all are, makes the new pepper
    /// the current one, all at once; then forgets the old hashes, a few at a time. Lookups go on meanwhile, with the old
    /// pepper until the new one is current.
    async fn rotation_step(&self, now: Timestamp) -> StoreResult<Rotation>;

    /// Homeservers that must be told, at most `limit`; they are not due again before `until`. First those that were never
    /// tried, then those that were, at most `retries`; of either the oldest first.
    async fn lease_onbinds(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
        retries: u32,
    ) -> StoreResult<Vec<DueOnbind>>;

    /// When the next one is due, `with_retries` or of those alone that were never tried; `None` if there is none.
    async fn next_onbind(&self, with_retries: bool) -> StoreResult<Option<Timestamp>>;

    /// Makes one due at another time, and counts one try.
    async fn defer_onbind(&self, id: i64, due_at: Timestamp) -> StoreResult<()>;

    /// The homeserver knows, or never will: forgets the row. The invitations that it was `told` of are used from now on; if
    /// the address has more than those, it is due again for them at once. Nothing but that happens if the row is gone.
    async fn finish_onbind(&self, id: i64, told: Vec<[u8; 16]>, now: Timestamp) -> StoreResult<()>;

    /// Makes all due now that a process has leased which died. Only for the holder of the store's lock.
    async fn free_onbinds(&self, now: Timestamp) -> StoreResult<usize>;
}
