//! What a homeserver does with a proof: check, claim once, take once.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use threepid::{
    error::Error,
    secret::{ClientSecret, Sid},
    session::Purpose,
    validation::{Claim, ClaimRequest},
};

use crate::support::app::*;

const LEASE: Duration = Duration::from_secs(30);

struct Proved {
    app: TestApp,
    sid: Sid,
    secret: ClientSecret,
    mail: threepid::courier::capture::Captured,
}

impl Proved {
    async fn new() -> Self {
        let app = TestApp::new();
        let sid = app.post(REGISTER, &alice(1)).await.sid();
        let mail = app.mail().await;
        assert_eq!(
            app.post(SUBMIT, &shown(&sid, &code(&mail))).await.status,
            200
        );
        let secret = ClientSecret::parse("monkeys_are_GREAT").expect("a secret");
        Self {
            app,
            sid: Sid::parse(&sid).expect("a sid"),
            secret,
            mail,
        }
    }

    async fn claim(&self, op_id: &str, digest: u8) -> Result<Claim, Error> {
        let request = ClaimRequest {
            purpose: Purpose::Register,
            user_id: None,
            op_id: op_id.to_owned(),
            digest: [digest; 32],
            lease: LEASE,
        };
        self.app
            .threepid
            .validation()
            .claim(&self.sid, &self.secret, request)
            .await
    }

    async fn proof(&self) -> Result<threepid::session::Proof, Error> {
        self.app
            .threepid
            .validation()
            .proof(&self.sid, &self.secret, Purpose::Register, None)
            .await
    }
}

#[tokio::test]
async fn a_proof_is_taken_once() {
    let proved = Proved::new().await;
    let validation = proved.app.threepid.validation();
    assert!(matches!(proved.claim("op 1", 1).await, Ok(Claim::Yours(_))));
    assert_eq!(proved.claim("op 2", 1).await, Err(Error::ProofHeld));
    assert!(validation.take("op 1").await.unwrap());
    assert!(!validation.take("op 1").await.unwrap() && !validation.release("op 1").await.unwrap());

    assert_eq!(
        proved.claim("op 3", 1).await,
        Ok(Claim::DoneBefore),
        "the same request, repeated"
    );
    assert_eq!(
        proved.claim("op 3", 2).await,
        Err(Error::ProofSpent),
        "another request"
    );
    assert_eq!(proved.proof().await, Err(Error::ProofSpent));
}

#[tokio::test]
async fn a_released_proof_can_be_claimed_again() {
    let proved = Proved::new().await;
    proved.claim("op 1", 1).await.unwrap();
    assert!(
        proved
            .app
            .threepid
            .validation()
            .release("op 1")
            .await
            .unwrap()
    );
    assert!(matches!(proved.claim("op 2", 2).await, Ok(Claim::Yours(_))));
}

#[tokio::test]
async fn a_claim_whose_lease_ran_out_is_continued_by_the_same_operation_only() {
    let proved = Proved::new().await;
    proved.claim("op 1", 1).await.unwrap();
    assert_eq!(
        proved.claim("op 1", 1).await,
        Err(Error::ProofHeld),
        "not while the lease runs"
    );
    proved.app.wait(LEASE);
    assert_eq!(proved.claim("op 2", 1).await, Err(Error::ProofHeld));
    assert_eq!(proved.claim("op 1", 2).await, Err(Error::ProofHeld));
    assert!(matches!(proved.claim("op 1", 1).await, Ok(Claim::Yours(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_parallel_claims_one_wins() {
    let proved = Arc::new(Proved::new().await);
    let claims: Vec<_> = (0..20)
        .map(|number| {
            let proved = Arc::clone(&proved);
            tokio::spawn(async move { proved.claim(&format!("op {number}"), number).await })
        })
        .collect();
    let mut won = 0;
    for claim in claims {
        match claim.await.unwrap() {
            Ok(Claim::Yours(_)) => won += 1,
            other => assert_eq!(other, Err(Error::ProofHeld)),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_taken_session_still_shows_success_to_people_and_clients() {
    let proved = Proved::new().await;
    proved.claim("op 1", 1).await.unwrap();
    proved.app.threepid.validation().take("op 1").await.unwrap();

    let sid = proved.sid.to_string();
    assert_eq!(
        proved
            .app
            .post(SUBMIT, &shown(&sid, &code(&proved.mail)))
            .await
            .status,
        200
    );
    let page = proved.app.get(&link_path(&proved.mail), &[]).await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("<form"));
    proved.app.wait(Duration::from_hours(24));
    assert_eq!(
        proved.app.get(&link_path(&proved.mail), &[]).await.status,
        410
    );
}

#[tokio::test]
async fn a_proof_lives_a_day_and_is_then_swept() {
    let proved = Proved::new().await;
    assert!(proved.proof().await.is_ok());
    proved.app.wait(Duration::from_hours(24));
    assert_eq!(proved.proof().await, Err(Error::SessionExpired));
    assert_eq!(proved.claim("op", 1).await, Err(Error::SessionExpired));
    proved.app.wait(Duration::from_secs(24 * 3600 + 1));
    assert!(proved.app.threepid.sweep().await.unwrap() > 0);
    assert_eq!(proved.proof().await, Err(Error::NoValidSession));
    assert_eq!(
        proved.app.get(&link_path(&proved.mail), &[]).await.status,
        410,
        "a genuine link has run out"
    );
}

#[tokio::test]
async fn a_proof_of_another_purpose_opens_nothing() {
    let proved = Proved::new().await;
    let validation = proved.app.threepid.validation();
    let wanted = |purpose| validation.proof(&proved.sid, &proved.secret, purpose, None);
    assert!(
        wanted(Purpose::Add).await.is_ok(),
        "a register proof also adds"
    );
    assert_eq!(wanted(Purpose::Password).await, Err(Error::NoValidSession));
    let other = ClientSecret::parse("other").unwrap();
    assert_eq!(
        validation
            .proof(&proved.sid, &other, Purpose::Register, None)
            .await,
        Err(Error::NoValidSession)
    );
}

#[tokio::test]
async fn of_two_accounts_that_bind_one_address_one_gets_it() {
    let app = TestApp::new();
    app.own("@a:example.org", "alice@example.org").await;
    let address = threepid::threepid::Threepid::email("Alice@example.org").unwrap();
    let bind = |user: &'static str| {
        app.threepid
            .directory()
            .bind(user, &address, None, threepid::clock::Timestamp(0))
    };
    assert_eq!(
        bind("@b:example.org").await.unwrap(),
        threepid::store::Bound::OwnedByOther
    );
    assert_eq!(
        bind("@a:example.org").await.unwrap(),
        threepid::store::Bound::AlreadyYours
    );
    assert!(
        !app.threepid
            .directory()
            .unbind("@b:example.org", &address)
            .await
            .unwrap(),
        "only the owner's own"
    );
    assert!(
        app.threepid
            .directory()
            .unbind("@a:example.org", &address)
            .await
            .unwrap()
    );
    assert_eq!(
        bind("@b:example.org").await.unwrap(),
        threepid::store::Bound::Bound
    );
    assert_eq!(
        app.post(
            ADD,
            &json!({ "client_secret": "s", "email": "alice@example.org", "send_attempt": 1 })
        )
        .await
        .status,
        200
    );
}
