//! People who sign up at a real Synapse, when something fails in the middle.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    gate::Held,
    homeserver::Homeserver,
    newcomer::{Newcomer, PASSWORD, stage},
    plan::Plan,
    synapse::{Options, user_id},
};

/// Alice, who has proved her address, and what she shows.
struct Signing {
    homeserver: Homeserver,
    session: String,
    creds: Value,
}

impl Signing {
    async fn begin(plan: Plan) -> Self {
        let homeserver = plan.start().await;
        let alice = Newcomer::at(&homeserver, "alice");
        Self {
            session: alice.session().await,
            creds: alice.prove().await,
            homeserver,
        }
    }

    async fn gated() -> Self {
        Self::begin(plan().gated()).await
    }

    fn alice(&self) -> Newcomer<'_> {
        Newcomer::at(&self.homeserver, "alice")
    }

    async fn show(&self) -> (u16, Value) {
        self.alice().show(&self.session, &self.creds).await
    }

    /// Shows it until the account is there, and begins anew where the homeserver knows the session no more.
    async fn show_until_it_is_done(&mut self) -> Value {
        for _ in 0..3 {
            let (status, answer) = self.show().await;
            if status == 200 {
                return answer;
            }
            assert_eq!(status, 401, "{answer}");
            let session = answer["session"].as_str().expect("a session");
            session.clone_into(&mut self.session);
        }
        panic!("she asks again and again");
    }

    fn hold(&self, held: Held) {
        let gate = self.homeserver.gate.as_ref();
        gate.expect("it is gated").hold(held);
    }

    /// Asks, and kills the program when the request has come so far.
    async fn kill_at(mut self, held: Held) -> Self {
        self.hold(held);
        let lost = self.alice().show_somehow(&self.session, &self.creds);
        let gate = self.homeserver.gate.as_ref();
        gate.expect("it is gated").reached().await;
        self.homeserver = self.homeserver.restart().await;
        self.hold(Held::Nowhere);
        lost.await.expect("nginx answers it");
        self
    }

    async fn accounts(&self) -> Vec<String> {
        self.homeserver.synapse.accounts().await
    }

    /// She has one account, and it has her address.
    async fn is_signed_up(&self) {
        let owner = self.homeserver.owner_of("email", "alice@example.org").await;
        assert_eq!(owner, user_id("alice"));
        assert_eq!(self.accounts().await, ["alice"]);
    }
}

fn plan() -> Plan {
    Plan::open(Options::default())
}

/// Whether an answer says that somebody behind us failed, in the words of Matrix.
fn tells_of_a_failure(answer: &(u16, Value)) -> bool {
    [502, 504].contains(&answer.0) && answer.1["errcode"] == "M_UNKNOWN"
}

/// Whether an answer is that to a finished registration of hers.
fn is_hers(answer: &(u16, Value)) -> bool {
    answer.0 == 200 && answer.1["user_id"] == user_id("alice")
}

#[tokio::test]
async fn a_server_that_is_killed_after_the_account_was_made_binds_the_address_by_itself() {
    for held in [Held::AfterAccount, Held::Before, Held::After] {
        let signing = Signing::gated().await.kill_at(held).await;

        // Nobody asks for anything.
        signing.is_signed_up().await;

        let again = signing.show().await;
        assert!(is_hers(&again), "{held:?}: {again:?}");
        signing.is_signed_up().await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_before_the_account_is_made_makes_it_when_it_is_asked_again() {
    let mut signing = Signing::gated().await.kill_at(Held::BeforeAccount).await;

    let account = signing.show_until_it_is_done().await;

    assert_eq!(account["user_id"], user_id("alice"));
    signing.is_signed_up().await;
}

#[tokio::test]
async fn a_server_that_is_killed_while_someone_waits_for_the_mail_knows_their_wish_afterwards() {
    let mut signing = Signing::begin(plan()).await;

    signing.homeserver = signing.homeserver.restart().await;
    let shown = json!({ "auth": stage(&signing.session, &signing.creds) });
    let done = signing.alice().post(&shown).await;

    assert!(is_hers(&done), "{done:?}");
    signing.is_signed_up().await;
    let login = signing.homeserver.front.try_login("alice", PASSWORD).await;
    assert_eq!(login.0, 200, "{}", login.1);
}

#[tokio::test]
async fn a_synapse_that_is_gone_is_told_and_the_same_request_works_when_it_is_back() {
    let mut signing = Signing::begin(plan()).await;

    signing.homeserver.synapse.stop().await;
    let failed = signing.show().await;
    signing.homeserver.synapse.restart().await;
    let nobody = signing.accounts().await;
    let done = signing.show().await;

    assert!(tells_of_a_failure(&failed), "{failed:?}");
    assert_eq!(nobody, Vec::<String>::new());
    assert!(is_hers(&done), "{done:?}");
    signing.is_signed_up().await;
}

#[tokio::test]
async fn a_synapse_that_falls_silent_is_told_and_the_same_request_works_when_it_answers() {
    let mut signing = Signing::begin(plan()).await;

    signing.homeserver.synapse.pause().await;
    let failed = signing.show().await;
    signing.homeserver.synapse.resume().await;
    let account = signing.show_until_it_is_done().await;

    assert!(tells_of_a_failure(&failed), "{failed:?}");
    assert_eq!(account["user_id"], user_id("alice"));
    signing.is_signed_up().await;
}

#[tokio::test]
async fn a_synapse_that_is_killed_while_it_makes_the_account_makes_one_at_most() {
    let mut signing = Signing::gated().await;

    signing.hold(Held::BeforeAccount);
    let lost = signing
        .alice()
        .show_somehow(&signing.session, &signing.creds);
    let gate = signing.homeserver.gate.as_ref();
    gate.expect("it is gated").reached().await;
    signing.homeserver.synapse.stop().await;
    signing.hold(Held::Nowhere);
    lost.await.expect("nginx answers it");
    signing.homeserver.synapse.restart().await;
    let nobody = signing.accounts().await;
    let account = signing.show_until_it_is_done().await;

    assert_eq!(nobody, Vec::<String>::new());
    assert_eq!(account["user_id"], user_id("alice"));
    signing.is_signed_up().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_one_account_with_its_address() {
    let signing = Signing::gated().await;

    signing.hold(Held::AfterAccount);
    let first = signing.show().await;
    let accounts = signing.accounts().await;
    signing.hold(Held::Nowhere);
    let again = signing.show().await;

    assert!(is_hers(&first) || tells_of_a_failure(&first), "{first:?}");
    assert_eq!(accounts, ["alice"]);
    assert!(is_hers(&again), "{again:?}");
    signing.is_signed_up().await;
}

#[tokio::test]
async fn a_synapse_that_has_forgotten_the_session_gives_a_new_one() {
    let mut signing = Signing::begin(plan()).await;

    signing.homeserver.synapse.stop().await;
    forget_sessions(&signing.homeserver.site.path("synapse"));
    signing.homeserver.synapse.restart().await;
    let account = signing.show_until_it_is_done().await;

    assert_eq!(account["user_id"], user_id("alice"));
    signing.is_signed_up().await;
}

/// What Synapse does by itself with sessions that nobody has ended in time.
fn forget_sessions(folder: &Path) {
    let database = rusqlite::Connection::open(folder.join("homeserver.db"));
    let database = database.expect("Synapse has a database");
    let gone = database.execute_batch(
        "DELETE FROM ui_auth_sessions_ips; DELETE FROM ui_auth_sessions_credentials; DELETE FROM ui_auth_sessions;",
    );
    gone.expect("Synapse's own tables");
}
