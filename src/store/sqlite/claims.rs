//! The use of a proof, in SQLite: claimed once, then taken, given back, or ended.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::{
    row::{self, SESSION},
    sessions::find,
    writer::Verdict,
};
use crate::{
    clock::Timestamp,
    session::{MessageKind, Session},
    store::{Claimed, FinishedReset, NewClaim, Notice},
};

/// A claim that nobody has, or that the same operation may continue.
const FREE: &str = "(claimed_by IS NULL
                     OR (claimed_by = :op AND claim_digest = :digest AND claimed_until <= :now))
                    AND NOT EXISTS (SELECT 1 FROM session WHERE claimed_by = :op AND sid <> :sid)";

pub(super) fn claim(connection: &Connection, claim: &NewClaim) -> rusqlite::Result<Claimed> {
    let claimed = claim_if(connection, claim, "validated_at IS NOT NULL")?;
    Ok(match claimed {
        Some(session) => Claimed::Yes(session),
        None => why_not(find(connection, claim.sid)?, claim, true),
    })
}

pub(super) fn claim_by_page(
    connection: &Connection,
    claim: &NewClaim,
) -> rusqlite::Result<Claimed> {
    let claimed = claim_if(
        connection,
        claim,
        "validated_at IS NULL AND purpose = 'password' AND genuine = 1 AND server IS NULL
         AND (link_expires_at > :now OR claimed_by = :op)",
    )?;
    Ok(match claimed {
        Some(session) => Claimed::Yes(session),
        None => why_not(find(connection, claim.sid)?, claim, false),
    })
}

fn claim_if(
    connection: &Connection,
    claim: &NewClaim,
    state: &str,
) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(&format!(
            "UPDATE session SET claimed_by = :op, claim_digest = :digest, claimed_until = :until
             WHERE sid = :sid AND taken_at IS NULL AND expires_at > :now AND {state} AND {FREE}
             RETURNING {SESSION}"
        ))?
        .query_row(
            named_params! {
                ":op": claim.op_id, ":digest": claim.digest, ":until": (claim.now + claim.lease).0,
                ":sid": claim.sid.as_bytes(), ":now": claim.now.0,
            },
            row::session,
        )
        .optional()
}

fn why_not(session: Option<Session>, claim: &NewClaim, wants_validated: bool) -> Claimed {
    match session {
        Some(session) if session.taken_at.is_some() => Claimed::Taken {
            same_request: session.claim_digest.as_deref() == Some(claim.digest.as_slice()),
        },
        Some(session)
            if session.validated_at.is_some() == wants_validated
                && session.expires_at > claim.now
                && session.claim_digest.is_some() =>
        {
            Claimed::Held
        }
        other => Claimed::No(other),
    }
}

/// Whether the claim of an operation was there, and its lease has ended now.
pub(super) fn pause(
    connection: &Connection,
    op_id: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let paused = connection
        .prepare_cached(
            "UPDATE session SET claimed_until = ?2 WHERE claimed_by = ?1 AND taken_at IS NULL",
        )?
        .execute(params![op_id, now.0])?;
    Ok(paused > 0)
}

pub(super) fn pause_all(connection: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE session SET claimed_until = ?1
         WHERE claimed_by IS NOT NULL AND taken_at IS NULL AND claimed_until > ?1",
        [now.0],
    )
}

/// What is ended becomes a decoy: whoever asks again meets the same session as if nobody had an account.
pub(super) fn end(connection: &Connection, op_id: &str) -> rusqlite::Result<bool> {
    let ended = connection
        .prepare_cached(
            "UPDATE session SET genuine = 0, validated_at = NULL, claimed_by = NULL, claim_digest = NULL,
                                claimed_until = NULL
             WHERE claimed_by = ?1 AND taken_at IS NULL",
        )?
        .execute([op_id])?;
    Ok(ended > 0)
}

pub(super) fn end_resets(connection: &Connection, user_id: &str) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "UPDATE session SET genuine = 0, validated_at = NULL
             WHERE purpose = 'password' AND taken_at IS NULL AND genuine = 1 AND user_id = ?1",
        )?
        .execute([user_id])
}

/// The whole transaction after a reset.
pub(super) fn finish_reset(
    connection: &Connection,
    finished: &FinishedReset,
) -> rusqlite::Result<Verdict<bool>> {
    let Some(session) = take(connection, &finished.op_id, finished.now)? else {
        return Ok(Verdict::Undo(false));
    };
    end_resets(connection, &finished.user_id)?;
    for notice in &finished.notices {
        queue(connection, &session, notice, finished.now)?;
    }
    Ok(Verdict::Keep(true))
}

fn queue(
    connection: &Connection,
    session: &Session,
    notice: &Notice,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let details = serde_json::to_string(&notice.details)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at, medium, address)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?7, ?8)",
        )?
        .execute(params![
            session.sid.as_bytes(),
            session.send_attempt,
            MessageKind::PasswordChanged.as_str(),
            details,
            now.0,
            notice.useless_at.0,
            notice.to.medium().as_str(),
            notice.to.address(),
        ])?;
    Ok(())
}

/// Uses up the proof of a claim: its session as it is then, if there was one.
pub(super) fn take(
    connection: &Connection,
    op_id: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(&format!(
            "UPDATE session SET taken_at = ?2 WHERE claimed_by = ?1 AND taken_at IS NULL RETURNING {SESSION}"
        ))?
        .query_row(params![op_id, now.0], row::session)
        .optional()
}

pub(super) fn release(connection: &Connection, op_id: &str) -> rusqlite::Result<bool> {
    let released = connection
        .prepare_cached(
            "UPDATE session SET claimed_by = NULL, claim_digest = NULL, claimed_until = NULL
             WHERE claimed_by = ?1 AND taken_at IS NULL",
        )?
        .execute([op_id])?;
    Ok(released > 0)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        rate::Rate,
        secret::SessionId,
        session::{Lifetimes, Purpose},
        store::{
            Details, NewRequest, NewSession, Outbox, Sessions,
            sqlite::{Role, SqliteStore},
        },
        threepid::{Medium, Threepid},
    };

    const NOW: Timestamp = Timestamp(1_000_000);
    const LEASE: Duration = Duration::from_mins(2);
    const AT_ONCE: u8 = 20;

    struct Stored {
        store: Arc<SqliteStore>,
        _dir: tempfile::TempDir,
    }

    impl Stored {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(&dir.path().join("t.db"), Role::Server).unwrap();
            Self { store, _dir: dir }
        }

        /// A pending session of `owner`'s; `scope` tells it from others.
        async fn asked(&self, scope: u8, owner: &str) -> SessionId {
            let sid = SessionId::generate(NOW);
            let session = NewSession {
                sid,
                key_id: [0; 4],
                scope: [scope; 16],
                secret_hash: [0; 32],
                purpose: Purpose::Password,
                threepid: Threepid::email("a@b.org").unwrap(),
                user_id: Some(owner.to_owned()),
                genuine: true,
                send_attempt: 1,
                next_link: None,
                lifetimes: Lifetimes::default(),
                now: NOW,
            };
            let request = NewRequest {
                session,
                message: MessageKind::Token(Purpose::Password),
                details: Details::default(),
                buckets: Vec::new(),
                session_rate: Rate::OFF,
                useful_for: Duration::from_hours(1),
            };
            self.store.request(request).await.unwrap();
            sid
        }

        async fn validated(&self, scope: u8, owner: &str) -> SessionId {
            let sid = self.asked(scope, owner).await;
            let until = NOW + Duration::from_hours(24);
            assert!(self.store.mark_validated(sid, NOW, until).await.unwrap());
            sid
        }

        async fn is_live(&self, sid: SessionId) -> bool {
            let session = self.store.find(sid).await.unwrap().unwrap();
            session.genuine
        }
    }

    fn claim_of(sid: SessionId, op_id: &str, digest: u8, now: Timestamp) -> NewClaim {
        NewClaim {
            sid,
            op_id: op_id.to_owned(),
            digest: [digest; 32],
            lease: LEASE,
            now,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_page_claims_is_never_validated_and_what_is_validated_the_page_never_claims() {
        for _ in 0..AT_ONCE {
            let stored = Stored::new();
            let sid = stored.asked(1, "@a:b").await;
            let until = NOW + Duration::from_hours(24);
            let (page, app) = (Arc::clone(&stored.store), Arc::clone(&stored.store));
            let page =
                tokio::spawn(
                    async move { page.claim_by_page(claim_of(sid, "page", 1, NOW)).await },
                );
            let app = tokio::spawn(async move { app.mark_validated(sid, NOW, until).await });

            let page = matches!(page.await.unwrap().unwrap(), Claimed::Yes(_));
            let app = app.await.unwrap().unwrap();

            assert!(page != app, "exactly one of both wins");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_parallel_pages_one_claims() {
        let stored = Stored::new();
        let sid = stored.asked(1, "@a:b").await;
        let pages: Vec<_> = (0..AT_ONCE)
            .map(|page| {
                let store = Arc::clone(&stored.store);
                let claim = claim_of(sid, &format!("page {page}"), 1, NOW);
                tokio::spawn(async move { store.claim_by_page(claim).await.unwrap() })
            })
            .collect();
        let mut claimed = 0;
        for page in pages {
            claimed += usize::from(matches!(page.await.unwrap(), Claimed::Yes(_)));
        }
        assert_eq!(claimed, 1);
    }

    #[tokio::test]
    async fn a_paused_claim_is_continued_by_the_same_request_alone() {
        let stored = Stored::new();
        let store = &stored.store;
        let sid = stored.validated(1, "@a:b").await;
        let claim = async |op, digest| store.claim(claim_of(sid, op, digest, NOW)).await.unwrap();

        assert!(matches!(claim("one", 1).await, Claimed::Yes(_)));
        assert_eq!(claim("one", 1).await, Claimed::Held);
        assert!(store.pause("one", NOW).await.unwrap());
        assert_eq!(claim("one", 2).await, Claimed::Held);
        assert_eq!(claim("two", 1).await, Claimed::Held);
        assert!(matches!(claim("one", 1).await, Claimed::Yes(_)));
        assert!(store.release("one").await.unwrap());
        assert!(matches!(claim("two", 2).await, Claimed::Yes(_)));
    }

    #[tokio::test]
    async fn a_start_lets_the_claims_of_a_dead_process_be_continued() {
        let stored = Stored::new();
        let store = &stored.store;
        let sid = stored.validated(1, "@a:b").await;
        let claim = || store.claim(claim_of(sid, "one", 1, NOW));
        assert!(matches!(claim().await.unwrap(), Claimed::Yes(_)));
        assert_eq!(claim().await.unwrap(), Claimed::Held);

        assert_eq!(store.pause_all(NOW).await.unwrap(), 1);

        assert!(matches!(claim().await.unwrap(), Claimed::Yes(_)));
    }

    #[tokio::test]
    async fn a_finished_reset_ends_the_others_of_its_account_and_queues_its_notices() {
        let stored = Stored::new();
        let store = &stored.store;
        let done = stored.validated(1, "@a:b").await;
        let (pending, proved) = (
            stored.asked(2, "@a:b").await,
            stored.validated(3, "@a:b").await,
        );
        let others = stored.asked(4, "@c:b").await;
        store.claim(claim_of(done, "op", 1, NOW)).await.unwrap();
        let notice = |address: &str| Notice {
            to: Threepid::email(address).unwrap(),
            details: Details::default(),
            useless_at: NOW + Duration::from_hours(24),
        };
        let finished = FinishedReset {
            op_id: "op".to_owned(),
            user_id: "@a:b".to_owned(),
            notices: vec![notice("a@b.org"), notice("second@b.org")],
            now: NOW,
        };

        assert!(store.finish_reset(finished.clone()).await.unwrap());
        assert!(!store.finish_reset(finished).await.unwrap(), "only once");

        assert!(stored.is_live(done).await, "it is a tombstone");
        assert!(!stored.is_live(pending).await && !stored.is_live(proved).await);
        assert!(stored.is_live(others).await);
        let until = NOW + LEASE;
        let leased = store
            .lease(Medium::Email, "w", 9, NOW, until)
            .await
            .unwrap();
        let notices = leased
            .ready
            .iter()
            .filter(|queued| queued.kind == MessageKind::PasswordChanged);
        let to: Vec<_> = notices
            .map(|queued| queued.to.address().to_owned())
            .collect();
        assert_eq!(to, ["a@b.org", "second@b.org"]);
    }

    #[tokio::test]
    async fn an_ended_reset_proves_nothing_any_more() {
        let stored = Stored::new();
        let store = &stored.store;
        let sid = stored.validated(1, "@a:b").await;
        store.claim(claim_of(sid, "op", 1, NOW)).await.unwrap();

        assert!(store.end("op").await.unwrap());

        assert!(!stored.is_live(sid).await);
        let again = store.claim(claim_of(sid, "op", 1, NOW)).await.unwrap();
        assert!(matches!(again, Claimed::No(_)));
    }
}
