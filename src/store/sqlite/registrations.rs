//! Registrations in SQLite: one row for each address, from before the account is made until it has the address.

use std::collections::HashSet;

use async_trait::async_trait;
use rusqlite::{Connection, Row, named_params, params};

use super::{
    SqliteStore, accounts, claims, row,
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    store::{
        Claimed, DueRegistration, NewRegistration, NewUia, RegistrationBegun, RegistrationProof,
        Registrations, StoreResult,
    },
    threepid::Threepid,
};

#[async_trait]
impl Registrations for SqliteStore {
    async fn begin_registration(
        &self,
        registration: NewRegistration,
    ) -> StoreResult<RegistrationBegun> {
        self.writer
            .run(Size::Many, move |connection| {
                Ok(match begin(connection, &registration)? {
                    begun @ (RegistrationBegun::Yes | RegistrationBegun::Again) => {
                        Verdict::Keep(begun)
                    }
                    refused => Verdict::Undo(refused),
                })
            })
            .await
    }

    async fn registered(
        &self,
        id: [u8; 32],
        user_id: &str,
        session: NewUia,
        now: Timestamp,
        due_at: Timestamp,
    ) -> StoreResult<bool> {
        let user_id = user_id.to_owned();
        self.writer
            .run(Size::Many, move |connection| {
                accounts::remember(connection, &session)?;
                let op_ids = know(connection, id, &user_id, due_at)?;
                for op_id in &op_ids {
                    // A proof whose session was swept meanwhile is gone anyway.
                    claims::take(connection, op_id, now)?;
                }
                Ok(Verdict::Keep(!op_ids.is_empty()))
            })
            .await
    }

    async fn abandon_registration(&self, id: [u8; 32]) -> StoreResult<bool> {
        self.writer
            .run(Size::Many, move |connection| {
                let op_ids: Vec<String> = connection
                    .prepare_cached(
                        "DELETE FROM registration WHERE id = ?1 AND user_id IS NULL RETURNING op_id",
                    )?
                    .query_map([id], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                for op_id in &op_ids {
                    claims::release(connection, op_id)?;
                }
                Ok(Verdict::Keep(!op_ids.is_empty()))
            })
            .await
    }

    async fn pause_registration(
        &self,
        id: [u8; 32],
        now: Timestamp,
        due_at: Timestamp,
    ) -> StoreResult<()> {
        self.writer
            .run(Size::Many, move |connection| {
                let op_ids: Vec<String> = connection
                    .prepare_cached(
                        "UPDATE registration SET due_at = ?2 WHERE id = ?1 AND user_id IS NULL RETURNING op_id",
                    )?
                    .query_map(params![id, due_at.0], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                for op_id in &op_ids {
                    claims::pause(connection, op_id, now)?;
                }
                Ok(Verdict::Keep(()))
            })
            .await
    }

    async fn lease_registrations(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<DueRegistration>> {
        self.writer
            .run(Size::Many, move |connection| {
                lease(connection, now, until, limit).map(Verdict::Keep)
            })
            .await
    }

    async fn next_registration(&self) -> StoreResult<Option<Timestamp>> {
        self.readers.ask(|connection| {
            let next: Option<i64> = connection
                .prepare_cached("SELECT min(due_at) FROM registration")?
                .query_row([], |row| row.get(0))?;
            Ok(next.map(Timestamp))
        })
    }

    async fn defer_registration(&self, id: [u8; 32], due_at: Timestamp) -> StoreResult<()> {
        self.write_one(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE registration SET due_at = ?2, tries = tries + 1 WHERE id = ?1",
                )?
                .execute(params![id, due_at.0])?;
            Ok(())
        })
        .await
    }

    async fn forget_registration(&self, id: [u8; 32], threepid: &Threepid) -> StoreResult<()> {
        let threepid = threepid.clone();
        self.write_one(move |connection| {
            connection
                .prepare_cached(
                    "DELETE FROM registration WHERE id = ?1 AND medium = ?2 AND address = ?3",
                )?
                .execute(params![id, threepid.medium().as_str(), threepid.address()])?;
            Ok(())
        })
        .await
    }

    async fn free_registrations(&self, now: Timestamp, ask_at: Timestamp) -> StoreResult<usize> {
        self.write_one(move |connection| {
            let freed: HashSet<[u8; 32]> = connection
                .prepare_cached(
                    "UPDATE registration SET due_at = iif(user_id IS NULL, ?2, ?1)
                     WHERE due_at > iif(user_id IS NULL, ?2, ?1) RETURNING id",
                )?
                .query_map([now.0, ask_at.0], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(freed.len())
        })
        .await
    }
}

/// The whole transaction of a beginning; anything but `Yes` is to be undone.
fn begin(
    connection: &Connection,
    registration: &NewRegistration,
) -> rusqlite::Result<RegistrationBegun> {
    for proof in &registration.proofs {
        match claims::claim(connection, &proof.claim)? {
            Claimed::Yes(_) => {}
            Claimed::Held => return Ok(RegistrationBegun::Held),
            Claimed::Taken { same_request } => {
                return Ok(RegistrationBegun::Taken { same_request });
            }
            Claimed::No(session) => return Ok(RegistrationBegun::No(session)),
        }
    }
    let before = first_begun(connection, registration)?;
    let begun_at = before.unwrap_or(registration.now);
    if !drop_others(connection, registration)? {
        return Ok(RegistrationBegun::Held);
    }
    for proof in &registration.proofs {
        if !insert(connection, registration, proof, begun_at)? {
            return why_not(connection, registration, &proof.threepid);
        }
    }
    accounts::remember(connection, &registration.session)?;
    Ok(match before {
        Some(_) => RegistrationBegun::Again,
        None => RegistrationBegun::Yes,
    })
}

/// When this registration was begun first, if it was before.
fn first_begun(
    connection: &Connection,
    registration: &NewRegistration,
) -> rusqlite::Result<Option<Timestamp>> {
    let begun: Option<i64> = connection
        .prepare_cached("SELECT min(begun_at) FROM registration WHERE id = ?1")?
        .query_row([registration.id], |row| row.get(0))?;
    Ok(begun.map(Timestamp))
}

/// Gives back the proofs that this registration was begun with before, and uses no more; `false` if one of them is held
/// by a call that goes on.
fn drop_others(connection: &Connection, registration: &NewRegistration) -> rusqlite::Result<bool> {
    let op_ids: Vec<String> = connection
        .prepare_cached("SELECT op_id FROM registration WHERE id = ?1 AND user_id IS NULL")?
        .query_map([registration.id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let proofs = &registration.proofs;
    let others = op_ids
        .iter()
        .filter(|op_id| proofs.iter().all(|proof| proof.claim.op_id != **op_id));
    for op_id in others {
        let dropped = connection
            .prepare_cached(
                "DELETE FROM registration WHERE id = ?1 AND op_id = ?2 AND user_id IS NULL
                   AND NOT EXISTS (SELECT 1 FROM session
                                   WHERE claimed_by = ?2 AND taken_at IS NULL AND claimed_until > ?3)",
            )?
            .execute(params![registration.id, op_id, registration.now.0])?;
        if dropped == 0 {
            return Ok(false);
        }
        claims::release(connection, op_id)?;
    }
    Ok(true)
}

/// Puts one address down; `false` if it is another registration's, or this one has made its account.
fn insert(
    connection: &Connection,
    registration: &NewRegistration,
    proof: &RegistrationProof,
    begun_at: Timestamp,
) -> rusqlite::Result<bool> {
    let inserted = connection
        .prepare_cached(
            "INSERT INTO registration (medium, address, id, op_id, validated_at, key_id, sealed, due_at, begun_at)
             SELECT :medium, :address, :id, :op, :validated_at, :key_id, :sealed, :due_at, :begun_at
             WHERE NOT EXISTS (SELECT 1 FROM registration WHERE id = :id AND user_id IS NOT NULL)
             ON CONFLICT (medium, address) DO UPDATE SET
                 op_id = excluded.op_id, validated_at = excluded.validated_at, key_id = excluded.key_id,
                 sealed = excluded.sealed, due_at = excluded.due_at, tries = 0
             WHERE registration.id = excluded.id AND registration.user_id IS NULL",
        )?
        .execute(named_params! {
            ":medium": proof.threepid.medium().as_str(), ":address": proof.threepid.address(),
            ":id": registration.id, ":op": proof.claim.op_id, ":validated_at": proof.validated_at.0,
            ":key_id": registration.key_id, ":sealed": registration.sealed,
            ":due_at": registration.due_at.0, ":begun_at": begun_at.0,
        })?;
    Ok(inserted > 0)
}

fn why_not(
    connection: &Connection,
    registration: &NewRegistration,
    threepid: &Threepid,
) -> rusqlite::Result<RegistrationBegun> {
    let under_way: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM registration
                            WHERE medium = ?1 AND address = ?2 AND id <> ?3 AND user_id IS NULL)",
        )?
        .query_row(
            params![
                threepid.medium().as_str(),
                threepid.address(),
                registration.id
            ],
            |row| row.get(0),
        )?;
    Ok(if under_way {
        RegistrationBegun::Held
    } else {
        RegistrationBegun::InUse
    })
}

/// Puts the account down, if it is not known; the operations that claimed its proofs.
fn know(
    connection: &Connection,
    id: [u8; 32],
    user_id: &str,
    due_at: Timestamp,
) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "UPDATE registration SET user_id = ?2, sealed = NULL, due_at = ?3
             WHERE id = ?1 AND user_id IS NULL RETURNING op_id",
        )?
        .query_map(params![id, user_id, due_at.0], |row| row.get(0))?
        .collect()
}

/// Leases what is due. The plus keeps SQLite from walking the index of ids, past all that is not due.
fn lease(
    connection: &Connection,
    now: Timestamp,
    until: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<DueRegistration>> {
    let ids: Vec<[u8; 32]> = connection
        .prepare_cached(
            "SELECT id FROM registration WHERE due_at <= ?1
             GROUP BY +id ORDER BY min(due_at), min(begun_at) LIMIT ?2",
        )?
        .query_map(params![now.0, limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut leased = Vec::with_capacity(ids.len());
    for id in ids {
        leased.extend(lease_one(connection, id, until)?);
    }
    Ok(leased)
}

/// Leases a registration, and makes one of its rows.
fn lease_one(
    connection: &Connection,
    id: [u8; 32],
    until: Timestamp,
) -> rusqlite::Result<Option<DueRegistration>> {
    let mut update = connection.prepare_cached(
        "UPDATE registration SET due_at = ?2 WHERE id = ?1
         RETURNING id, user_id, medium, address, validated_at, key_id, sealed, tries, begun_at",
    )?;
    let rows = update.query_map(params![id, until.0], due)?;
    let mut whole: Option<DueRegistration> = None;
    for row in rows {
        let row = row?;
        match &mut whole {
            Some(whole) => whole.threepids.extend(row.threepids),
            None => whole = Some(row),
        }
    }
    Ok(whole)
}

/// A registration as one of its rows knows it: with one address.
fn due(row: &Row<'_>) -> rusqlite::Result<DueRegistration> {
    let threepid = Threepid::stored(row::medium(row, 2)?, row.get(3)?);
    Ok(DueRegistration {
        id: row.get(0)?,
        user_id: row.get(1)?,
        threepids: vec![(threepid, Timestamp(row.get(4)?))],
        key_id: row.get(5)?,
        sealed: row.get(6)?,
        tries: row.get(7)?,
        begun_at: Timestamp(row.get(8)?),
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        rate::Rate,
        secret::SessionId,
        session::{Lifetimes, MessageKind, Purpose},
        store::{
            Details, NewClaim, NewRequest, NewSession, Sessions, Uia,
            sqlite::{Role, SqliteStore},
        },
    };

    const NOW: Timestamp = Timestamp(1_000_000);
    const LEASE: Duration = Duration::from_mins(2);
    const AT_ONCE: u8 = 20;

    struct Stored {
        store: Arc<SqliteStore>,
        dir: tempfile::TempDir,
    }

    impl Stored {
        fn new() -> Self {
            Self::open(tempfile::tempdir().unwrap())
        }

        fn open(dir: tempfile::TempDir) -> Self {
            let store = SqliteStore::open(&dir.path().join("t.db"), Role::Server).unwrap();
            Self { store, dir }
        }

        /// A validated session of an address; `scope` tells it from others.
        async fn proof(&self, scope: u8, address: &str) -> Proof {
            let threepid = Threepid::email(address).unwrap();
            let sid = SessionId::generate(NOW);
            let session = NewSession {
                sid,
                key_id: [0; 4],
                scope: [scope; 16],
                secret_hash: [0; 32],
                purpose: Purpose::Register,
                threepid: threepid.clone(),
                user_id: None,
                genuine: true,
                send_attempt: 1,
                next_link: None,
                lifetimes: Lifetimes::default(),
                now: NOW,
            };
            let request = NewRequest {
                session,
                message: MessageKind::Token(Purpose::Register),
                details: Details::default(),
                buckets: Vec::new(),
                session_rate: Rate::OFF,
                useful_for: Duration::from_hours(1),
            };
            self.store.request(request).await.unwrap();
            assert!(self.store.mark_validated(sid, NOW, expiry()).await.unwrap());
            Proof { sid, threepid }
        }

        async fn begin(&self, new: NewRegistration) -> RegistrationBegun {
            self.store.begin_registration(new).await.unwrap()
        }

        async fn registered(&self, id: u8, due_at: Timestamp) -> bool {
            let done = self
                .store
                .registered([id; 32], "@a:b", tombstone(), NOW, due_at);
            done.await.unwrap()
        }

        async fn is_taken(&self, proof: &Proof) -> bool {
            let session = self.store.find(proof.sid).await.unwrap().unwrap();
            session.taken_at.is_some()
        }

        async fn lease(&self, now: Timestamp, limit: u32) -> Vec<DueRegistration> {
            let leased = self.store.lease_registrations(now, now + LEASE, limit);
            leased.await.unwrap()
        }

        async fn next(&self) -> Option<Timestamp> {
            self.store.next_registration().await.unwrap()
        }
    }

    #[derive(Clone)]
    struct Proof {
        sid: SessionId,
        threepid: Threepid,
    }

    fn expiry() -> Timestamp {
        NOW + Duration::from_hours(24)
    }

    fn later(minutes: u64) -> Timestamp {
        NOW + Duration::from_mins(minutes)
    }

    fn tombstone() -> NewUia {
        NewUia {
            id: [9; 32],
            sealed: Some(b"tombstone".to_vec()),
            expires_at: later(60),
        }
    }

    fn claim_of(proof: &Proof, id: u8, digest: u8, now: Timestamp) -> NewClaim {
        NewClaim {
            sid: proof.sid,
            op_id: format!("{id} {}", proof.sid),
            digest: [digest; 32],
            lease: LEASE,
            now,
        }
    }

    /// A registration that is due five minutes after `now`.
    fn new_at(now: Timestamp, id: u8, digest: u8, proofs: &[&Proof]) -> NewRegistration {
        let proofs = proofs.iter().map(|proof| RegistrationProof {
            claim: claim_of(proof, id, digest, now),
            threepid: proof.threepid.clone(),
            validated_at: NOW,
        });
        NewRegistration {
            id: [id; 32],
            proofs: proofs.collect(),
            key_id: [7; 4],
            sealed: vec![id],
            session: NewUia {
                id: [id; 32],
                sealed: Some(vec![digest]),
                expires_at: later(60),
            },
            now,
            due_at: now + Duration::from_mins(5),
        }
    }

    fn new(id: u8, proofs: &[&Proof]) -> NewRegistration {
        new_at(NOW, id, 1, proofs)
    }

    fn ids(due: &[DueRegistration]) -> Vec<u8> {
        due.iter().map(|registration| registration.id[0]).collect()
    }

    fn addresses(registration: &DueRegistration) -> Vec<String> {
        let threepids = registration.threepids.iter();
        let mut addresses: Vec<_> = threepids
            .map(|(threepid, _)| threepid.address().to_owned())
            .collect();
        addresses.sort();
        addresses
    }

    /// Begins all at once: how many were told `Yes`, and how many `Held`.
    async fn all_at_once(stored: &Stored, all: Vec<NewRegistration>) -> (usize, usize) {
        let begins: Vec<_> = all
            .into_iter()
            .map(|new| {
                let store = Arc::clone(&stored.store);
                tokio::spawn(async move { store.begin_registration(new).await.unwrap() })
            })
            .collect();
        let (mut yes, mut held) = (0, 0);
        for begin in begins {
            let begun = begin.await.unwrap();
            yes += usize::from(begun == RegistrationBegun::Yes);
            held += usize::from(begun == RegistrationBegun::Held);
        }
        (yes, held)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_parallel_registrations_with_one_proof_one_begins() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;

        let all = (0..AT_ONCE).map(|id| new(id, &[&proof])).collect();

        assert_eq!(all_at_once(&stored, all).await, (1, 19));
        assert_eq!(stored.lease(later(5), 99).await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_parallel_repetitions_of_one_registration_one_begins() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;

        let all = (0..AT_ONCE).map(|_| new(1, &[&proof])).collect();

        assert_eq!(all_at_once(&stored, all).await, (1, 19));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_parallel_registrations_with_one_address_one_begins() {
        let stored = Stored::new();
        let mut all = Vec::new();
        for id in 0..AT_ONCE {
            all.push(new(id, &[&stored.proof(id, "a@b.org").await]));
        }

        assert_eq!(all_at_once(&stored, all).await, (1, 19));
    }

    #[tokio::test]
    async fn a_session_is_put_down_with_its_claims_or_not_at_all() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;

        stored.begin(new(1, &[&proof])).await;
        stored.begin(new_at(NOW, 1, 2, &[&proof])).await;
        stored.begin(new(2, &[&proof])).await;

        let kept = stored.store.find_uia([1; 32], NOW).await.unwrap().unwrap();
        assert_eq!(kept.sealed, Some(vec![1]));
        let other = stored.store.find_uia([2; 32], NOW).await.unwrap();
        assert!(other.is_none());
    }

    #[tokio::test]
    async fn two_proofs_are_claimed_both_or_neither() {
        let stored = Stored::new();
        let (free, held) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "c@b.org").await,
        );
        assert_eq!(stored.begin(new(1, &[&held])).await, RegistrationBegun::Yes);

        let both = stored.begin(new(2, &[&free, &held])).await;

        assert_eq!(both, RegistrationBegun::Held);
        assert_eq!(stored.begin(new(3, &[&free])).await, RegistrationBegun::Yes);
        assert_eq!(stored.lease(later(5), 99).await.len(), 2);
    }

    #[tokio::test]
    async fn an_address_under_way_is_held_and_its_proof_stays_free() {
        let stored = Stored::new();
        let (first, second) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "a@b.org").await,
        );
        let begun = stored.begin(new(1, &[&first])).await;
        assert_eq!(begun, RegistrationBegun::Yes);

        assert_eq!(
            stored.begin(new(2, &[&second])).await,
            RegistrationBegun::Held
        );

        let claim = stored.store.claim(claim_of(&second, 3, 3, NOW)).await;
        assert!(matches!(claim.unwrap(), Claimed::Yes(_)));
    }

    #[tokio::test]
    async fn an_address_of_an_account_that_was_made_is_in_use_until_it_is_forgotten() {
        let stored = Stored::new();
        let (first, second) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "a@b.org").await,
        );
        stored.begin(new(1, &[&first])).await;
        assert!(stored.registered(1, NOW).await);

        let in_use = stored.begin(new(2, &[&second])).await;
        let forgotten = stored
            .store
            .forget_registration([1; 32], &first.threepid)
            .await;

        assert_eq!(in_use, RegistrationBegun::InUse);
        assert!(forgotten.is_ok());
        assert_eq!(
            stored.begin(new(2, &[&second])).await,
            RegistrationBegun::Yes
        );
    }

    #[tokio::test]
    async fn a_proof_that_is_over_begins_nothing() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        let unknown = Proof {
            sid: SessionId::generate(NOW),
            ..proof.clone()
        };

        let over = stored.begin(new_at(expiry(), 1, 1, &[&proof])).await;
        let none = stored.begin(new(1, &[&unknown])).await;

        assert!(matches!(over, RegistrationBegun::No(Some(session)) if session.sid == proof.sid));
        assert_eq!(none, RegistrationBegun::No(None));
        assert_eq!(stored.next().await, None);
    }

    #[tokio::test]
    async fn a_paused_registration_is_begun_again_by_the_same_request_alone() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        let begin = async |id, digest| stored.begin(new_at(later(1), id, digest, &[&proof])).await;
        stored.begin(new(1, &[&proof])).await;
        assert_eq!(begin(1, 1).await, RegistrationBegun::Held);

        let paused = stored.store.pause_registration([1; 32], later(1), later(3));
        paused.await.unwrap();

        assert_eq!(stored.next().await, Some(later(3)));
        assert_eq!(begin(2, 1).await, RegistrationBegun::Held);
        assert_eq!(begin(1, 2).await, RegistrationBegun::Held);
        assert_eq!(begin(1, 1).await, RegistrationBegun::Again);
        assert_eq!(begin(1, 1).await, RegistrationBegun::Held);
        assert_eq!(stored.lease(later(6), 9).await[0].begun_at, NOW);
    }

    #[tokio::test]
    async fn a_registration_whose_leases_ran_out_is_begun_again_by_itself_alone() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        stored.begin(new(1, &[&proof])).await;

        let other = stored.begin(new_at(later(2), 2, 1, &[&proof])).await;
        let same = stored.begin(new_at(later(2), 1, 1, &[&proof])).await;

        assert_eq!(other, RegistrationBegun::Held);
        assert_eq!(same, RegistrationBegun::Again);
    }

    #[tokio::test]
    async fn a_registration_that_begins_with_other_proofs_gives_the_former_back() {
        let stored = Stored::new();
        let (kept, dropped) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "c@b.org").await,
        );
        stored.begin(new(1, &[&kept, &dropped])).await;
        let paused = stored.store.pause_registration([1; 32], NOW, later(1));
        paused.await.unwrap();

        let again = stored.begin(new(1, &[&kept])).await;

        assert_eq!(again, RegistrationBegun::Again);
        let other = stored.begin(new(2, &[&dropped])).await;
        assert_eq!(other, RegistrationBegun::Yes);
        let due = stored.lease(later(5), 9).await;
        let mut of_each: Vec<_> = due.iter().map(addresses).collect();
        of_each.sort();
        assert_eq!(of_each, [["a@b.org"], ["c@b.org"]]);
    }

    #[tokio::test]
    async fn a_newer_proof_of_the_same_address_takes_the_place_of_the_older() {
        let stored = Stored::new();
        let (older, newer) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "a@b.org").await,
        );
        stored.begin(new(1, &[&older])).await;

        let again = stored.begin(new_at(later(2), 1, 1, &[&newer])).await;

        assert_eq!(again, RegistrationBegun::Again);
        assert!(stored.registered(1, NOW).await);
        assert!(stored.is_taken(&newer).await && !stored.is_taken(&older).await);
    }

    #[tokio::test]
    async fn a_registration_under_way_does_not_begin_with_other_proofs() {
        let stored = Stored::new();
        let (one, other) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "c@b.org").await,
        );
        stored.begin(new(1, &[&one])).await;

        let again = stored.begin(new(1, &[&other])).await;

        assert_eq!(again, RegistrationBegun::Held);
        assert_eq!(addresses(&stored.lease(later(5), 9).await[0]), ["a@b.org"]);
        assert_eq!(
            stored.begin(new(2, &[&other])).await,
            RegistrationBegun::Yes
        );
    }

    #[tokio::test]
    async fn a_registration_that_has_made_its_account_begins_no_more() {
        let stored = Stored::new();
        let (one, same, other) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "a@b.org").await,
            stored.proof(3, "c@b.org").await,
        );
        stored.begin(new(1, &[&one])).await;
        stored.registered(1, NOW).await;

        assert_eq!(
            stored.begin(new(1, &[&same])).await,
            RegistrationBegun::InUse
        );
        assert_eq!(
            stored.begin(new(1, &[&other])).await,
            RegistrationBegun::InUse
        );
        let due = stored.lease(NOW, 9).await;
        assert_eq!(due[0].user_id.as_deref(), Some("@a:b"));
        assert_eq!(addresses(&due[0]), ["a@b.org"]);
    }

    #[tokio::test]
    async fn an_abandoned_registration_gives_its_proofs_back() {
        let stored = Stored::new();
        let (one, two) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "c@b.org").await,
        );
        stored.begin(new(1, &[&one, &two])).await;
        let abandon = || stored.store.abandon_registration([1; 32]);

        assert!(abandon().await.unwrap());
        assert!(!abandon().await.unwrap(), "only once");

        assert_eq!(stored.next().await, None);
        let other = stored.begin(new(2, &[&one, &two])).await;
        assert_eq!(other, RegistrationBegun::Yes);
    }

    #[tokio::test]
    async fn a_registration_that_has_made_its_account_is_neither_abandoned_nor_paused() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        stored.begin(new(1, &[&proof])).await;
        stored.registered(1, later(1)).await;

        let paused = stored.store.pause_registration([1; 32], NOW, later(9));
        paused.await.unwrap();

        assert!(!stored.store.abandon_registration([1; 32]).await.unwrap());
        assert_eq!(stored.next().await, Some(later(1)));
        assert!(stored.is_taken(&proof).await);
    }

    #[tokio::test]
    async fn an_account_is_put_down_once_and_its_session_always() {
        let stored = Stored::new();
        let store = &stored.store;
        let (one, two, others) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "c@b.org").await,
            stored.proof(3, "d@b.org").await,
        );
        stored.begin(new(1, &[&one, &two])).await;
        stored.begin(new(2, &[&others])).await;

        assert!(stored.registered(1, later(1)).await);
        store.forget_uia([9; 32]).await.unwrap();
        assert!(!stored.registered(1, later(9)).await, "only once");

        assert_eq!(stored.next().await, Some(later(1)));
        let session = store.find_uia([9; 32], NOW).await.unwrap().unwrap();
        assert_eq!(session.sealed.as_deref(), Some(b"tombstone".as_slice()));
        assert!(stored.is_taken(&one).await && stored.is_taken(&two).await);
        assert!(!stored.is_taken(&others).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_account_is_known_or_its_registration_abandoned_never_both() {
        for _ in 0..AT_ONCE {
            let stored = Stored::new();
            let proof = stored.proof(1, "a@b.org").await;
            stored.begin(new(1, &[&proof])).await;
            let store = Arc::clone(&stored.store);
            let abandon = tokio::spawn(async move { store.abandon_registration([1; 32]).await });

            let registered = stored.registered(1, NOW).await;

            let abandoned = abandon.await.unwrap().unwrap();
            assert!(registered != abandoned, "exactly one of both wins");
            assert_eq!(stored.is_taken(&proof).await, registered);
        }
    }

    #[tokio::test]
    async fn an_account_is_put_down_even_if_its_proof_was_swept() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        stored.begin(new(1, &[&proof])).await;
        let long_after = expiry() + Duration::from_hours(24);
        stored.store.sweep(long_after, long_after).await.unwrap();
        assert!(stored.store.find(proof.sid).await.unwrap().is_none());

        assert!(stored.registered(1, long_after).await);

        let due = stored.lease(long_after, 9).await;
        assert_eq!(due[0].user_id.as_deref(), Some("@a:b"));
        assert_eq!(addresses(&due[0]), ["a@b.org"]);
    }

    #[tokio::test]
    async fn a_repeated_request_is_told_from_another_once_its_proof_is_used() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        stored.begin(new(1, &[&proof])).await;
        stored.registered(1, NOW).await;

        let same = stored.begin(new_at(NOW, 1, 1, &[&proof])).await;
        let other = stored.begin(new_at(NOW, 1, 2, &[&proof])).await;

        assert_eq!(same, RegistrationBegun::Taken { same_request: true });
        assert_eq!(
            other,
            RegistrationBegun::Taken {
                same_request: false
            }
        );
    }

    #[tokio::test]
    async fn what_is_due_is_leased_whole_the_oldest_first_and_not_again_before_the_lease_ends() {
        let stored = Stored::new();
        for (id, address) in [(2, "c@b.org"), (1, "a@b.org")] {
            let (one, two) = (
                stored.proof(id, address).await,
                stored.proof(id + 10, &format!("second-{address}")).await,
            );
            let begun_at = later(u64::from(id));
            stored.begin(new_at(begun_at, id, 1, &[&one, &two])).await;
        }

        assert!(stored.lease(later(5), 9).await.is_empty());
        let first = stored.lease(later(9), 1).await;

        assert_eq!(ids(&first), [1]);
        assert_eq!(addresses(&first[0]), ["a@b.org", "second-a@b.org"]);
        assert_eq!(first[0].sealed.as_deref(), Some([1].as_slice()));
        assert_eq!((first[0].key_id, first[0].tries), ([7; 4], 0));
        assert_eq!(ids(&stored.lease(later(9), 9).await), [2]);
        assert!(stored.lease(later(10), 9).await.is_empty());
        assert_eq!(ids(&stored.lease(later(11), 9).await), [1, 2]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_parallel_workers_one_leases_a_registration() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        stored.begin(new(1, &[&proof])).await;
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let store = Arc::clone(&stored.store);
                tokio::spawn(async move { store.lease_registrations(later(5), later(6), 9).await })
            })
            .collect();
        let mut leased = 0;
        for worker in workers {
            leased += worker.await.unwrap().unwrap().len();
        }
        assert_eq!(leased, 1);
    }

    #[tokio::test]
    async fn a_registration_that_was_put_off_is_due_later_and_has_one_try_more() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        stored.begin(new(1, &[&proof])).await;

        let deferred = stored.store.defer_registration([1; 32], later(30));
        deferred.await.unwrap();

        assert_eq!(stored.next().await, Some(later(30)));
        assert!(stored.lease(later(29), 9).await.is_empty());
        assert_eq!(stored.lease(later(30), 9).await[0].tries, 1);
    }

    #[tokio::test]
    async fn a_start_makes_all_due_and_asks_a_little_later() {
        let stored = Stored::new();
        let (one, two, made) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "c@b.org").await,
            stored.proof(3, "d@b.org").await,
        );
        stored.begin(new(1, &[&one, &two])).await;
        stored.begin(new(2, &[&made])).await;
        stored.registered(2, later(4)).await;

        let freed = stored.store.free_registrations(later(1), later(2)).await;

        assert_eq!(freed.unwrap(), 2);
        assert_eq!(ids(&stored.lease(later(1), 9).await), [2]);
        assert_eq!(stored.next().await, Some(later(2)));
    }

    #[tokio::test]
    async fn addresses_are_forgotten_one_by_one_and_only_by_their_registration() {
        let stored = Stored::new();
        let (one, two) = (
            stored.proof(1, "a@b.org").await,
            stored.proof(2, "c@b.org").await,
        );
        stored.begin(new(1, &[&one, &two])).await;
        stored.registered(1, NOW).await;
        let forget = async |id: u8, proof: &Proof| {
            stored
                .store
                .forget_registration([id; 32], &proof.threepid)
                .await
        };

        forget(2, &two).await.unwrap();
        forget(1, &one).await.unwrap();

        assert_eq!(addresses(&stored.lease(NOW, 9).await[0]), ["c@b.org"]);
        forget(1, &two).await.unwrap();
        assert_eq!(stored.next().await, None);
    }

    #[tokio::test]
    async fn a_registration_outlives_its_process() {
        let stored = Stored::new();
        let proof = stored.proof(1, "a@b.org").await;
        stored.begin(new(1, &[&proof])).await;
        let Stored { store, dir } = stored;
        store.close().await;

        let stored = Stored::open(dir);

        assert_eq!(stored.next().await, Some(later(5)));
        let due = stored.lease(later(5), 9).await;
        assert_eq!(due[0].threepids, [(proof.threepid.clone(), NOW)]);
        assert_eq!((due[0].user_id.as_deref(), due[0].begun_at), (None, NOW));
        assert!(stored.registered(1, NOW).await);
        assert!(stored.is_taken(&proof).await);
    }
}
