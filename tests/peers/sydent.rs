//! Addresses that a client has proved at an identity server of its choice, which is a real Sydent.

use serde_json::{Value, json};

use crate::support::{
    server::{Server, Site, sid},
    sydent::Sydent,
};

const SECRET: &str = "monkeys_are_GREAT";
/// What a client may want an address for when it names an identity server.
const PURPOSES: [&str; 2] = ["register", "account/3pid"];
/// A number as people type it, and as it is stored.
const TYPED: &str = "07700900001";
const MSISDN: &str = "447700900001";

/// Sydent, an account there, and our server that trusts it.
struct World {
    sydent: Sydent,
    account: String,
    server: Server,
    site: Site,
}

impl World {
    async fn start() -> Self {
        Self::with(false, true).await
    }

    /// With `terms`, Sydent demands that accounts agree to some; without `ca`, we do not know who signed its certificate.
    async fn with(terms: bool, ca: bool) -> Self {
        let site = Site::new();
        let sydent = Sydent::start(&site.path("sydent"), terms).await;
        let mut site = site
            .set("email.validate", "client-choice")
            .set("sms.transport", "capture")
            .set("sms.validate", "client-choice")
            .set("identity_servers.trusted", sydent.identity_server())
            .set("outbound.allow", "127.0.0.0/8,::1/128");
        if ca {
            site = site.set("outbound.ca_files", sydent.ca_file().display().to_string());
        }
        Self {
            account: sydent.register("alice").await,
            server: site.start().await,
            sydent,
            site,
        }
    }

    /// Kills our server as if the machine had lost its power, and starts it again.
    async fn restart(self) -> Self {
        self.server.kill().await;
        Self {
            server: self.site.start().await,
            ..self
        }
    }

    /// An email's `requestToken`, with Alice's account.
    fn email(&self, email: &str) -> Value {
        json!({
            "client_secret": SECRET, "email": email, "send_attempt": 1,
            "id_server": self.sydent.identity_server(), "id_access_token": self.account,
        })
    }

    /// The same for a phone.
    fn phone(&self) -> Value {
        json!({
            "client_secret": SECRET, "country": "GB", "phone_number": TYPED, "send_attempt": 1,
            "id_server": self.sydent.identity_server(), "id_access_token": self.account,
        })
    }

    /// Asks our server for a token.
    async fn ask(&self, purpose: &str, medium: &str, body: &Value) -> (u16, Value) {
        let path = format!("/_matrix/client/v3/{purpose}/{medium}/requestToken");
        self.server.post(&path, body).await
    }

    /// The same, which is granted.
    async fn granted(&self, purpose: &str, medium: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(purpose, medium, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The token in the newest message of Sydent, of which there are so many.
    async fn token(&self, number: usize) -> String {
        let sent = self.sydent.messages().await;
        assert_eq!(sent.len(), number, "{sent:?}");
        sent.last().expect("a message").token().to_owned()
    }

    /// Shows a token to Sydent itself, as the link in its mail would.
    async fn show_to_sydent(&self, medium: &str, sid: &str, token: &str) {
        let path = format!("validate/{medium}/submitToken");
        let shown = shown(sid, token);
        let answer = self.sydent.post(&path, &self.account, &shown).await;
        assert_eq!(answer, (200, json!({ "success": true })));
    }

    /// What Sydent says of a session.
    async fn validated(&self, sid: &str) -> (u16, Value) {
        self.sydent.validated(&self.account, sid, SECRET).await
    }

    /// Nothing was sent by ourselves.
    async fn sent_nothing(&self) {
        assert_eq!(self.server.mailbox().await, Vec::<Value>::new());
    }
}

/// The body of a `submitToken`.
fn shown(sid: &str, token: &str) -> Value {
    json!({ "sid": sid, "client_secret": SECRET, "token": token })
}

/// The path of an answer's `submit_url`, which is one of `server`'s.
fn submit_path(server: &Server, answer: &Value) -> String {
    let url = answer["submit_url"].as_str().expect("a submit_url");
    let path = url.strip_prefix(&server.base);
    path.expect("a URL of our own").to_owned()
}

#[tokio::test]
async fn an_email_is_proved_at_the_identity_server_and_we_mail_nothing() {
    let world = World::start().await;
    for (number, purpose) in PURPOSES.into_iter().enumerate() {
        let email = format!("alice{number}@example.org");
        let answer = world.granted(purpose, "email", &world.email(&email)).await;
        let sid = sid(&answer);

        assert_eq!(answer, json!({ "sid": sid }), "the code is not for us");
        let (status, before) = world.validated(&sid).await;
        let token = world.token(number + 1).await;
        world.show_to_sydent("email", &sid, &token).await;
        let (_, after) = world.validated(&sid).await;

        assert_eq!(
            (status, &before["errcode"]),
            (400, &"M_SESSION_NOT_VALIDATED".into())
        );
        assert_eq!(
            (&after["medium"], &after["address"]),
            (&"email".into(), &email.into())
        );
    }
    world.sent_nothing().await;
}

#[tokio::test]
async fn a_phone_is_proved_at_the_identity_server_through_our_submit_url() {
    let world = World::start().await;
    for (number, purpose) in PURPOSES.into_iter().enumerate() {
        let mut body = world.phone();
        body["client_secret"] = format!("secret{number}").into();
        let answer = world.granted(purpose, "msisdn", &body).await;
        let sid = sid(&answer);

        let told = json!({
            "sid": sid, "submit_url": answer["submit_url"], "success": true,
            "msisdn": MSISDN, "intl_fmt": "+44 7700 900001",
        });
        assert_eq!(answer, told);
        let mut shown = shown(&sid, &world.token(number + 1).await);
        shown["client_secret"] = body["client_secret"].clone();
        let path = submit_path(&world.server, &answer);
        let proved = world.server.post(&path, &shown).await;

        assert_eq!(proved, (200, json!({ "success": true })));
        let secret = format!("secret{number}");
        let (_, after) = world.sydent.validated(&world.account, &sid, &secret).await;
        assert_eq!(
            (&after["medium"], &after["address"]),
            (&"msisdn".into(), &MSISDN.into())
        );
    }
    world.sent_nothing().await;
}

#[tokio::test]
async fn a_phone_is_proved_through_our_submit_url_after_a_crash() {
    let world = World::start().await;
    let answer = world.granted("register", "msisdn", &world.phone()).await;
    let (sid, path) = (sid(&answer), submit_path(&world.server, &answer));

    let world = world.restart().await;
    let shown = shown(&sid, &world.token(1).await);
    let proved = world.server.post(&path, &shown).await;

    assert_eq!(proved, (200, json!({ "success": true })));
    assert_eq!(world.validated(&sid).await.0, 200);
}

#[tokio::test]
async fn a_wrong_code_is_told_and_the_right_one_still_works() {
    let world = World::start().await;
    let answer = world.granted("register", "msisdn", &world.phone()).await;
    let (sid, path) = (sid(&answer), submit_path(&world.server, &answer));
    let right = world.token(1).await;
    let wrong = if right == "000000" {
        "111111"
    } else {
        "000000"
    };

    // Sydent says 404 and M_NO_VALID_SESSION for this.
    let (status, refused) = world.server.post(&path, &shown(&sid, wrong)).await;
    let before = world.validated(&sid).await.0;
    let proved = world.server.post(&path, &shown(&sid, &right)).await;

    assert_eq!(
        (status, &refused["errcode"]),
        (400, &"M_TOKEN_INCORRECT".into())
    );
    assert_eq!(before, 400, "it was not proved yet");
    assert_eq!(proved, (200, json!({ "success": true })));
}

#[tokio::test]
async fn a_repeated_send_attempt_gives_the_same_session_and_sends_nothing_more() {
    // Sydent by itself sends again: it forgets which attempts it has seen.
    let world = World::start().await;
    for (sent, medium, mut body) in [
        (1, "email", world.email("alice@example.org")),
        (3, "msisdn", world.phone()),
    ] {
        let first = world.granted("register", medium, &body).await;
        let again = world.granted("register", medium, &body).await;
        assert_eq!(first, again);
        let token = world.token(sent).await;

        body["send_attempt"] = 2.into();
        let next = world.granted("register", medium, &body).await;
        assert_eq!(first, next);
        assert_eq!(world.token(sent + 1).await, token);
    }
}

#[tokio::test]
async fn terms_that_nobody_agreed_to_are_told_until_somebody_does() {
    let world = World::with(true, true).await;
    let bodies = [
        ("email", world.email("alice@example.org")),
        ("msisdn", world.phone()),
    ];

    for (medium, body) in &bodies {
        let (status, refused) = world.ask("register", medium, body).await;
        assert_eq!(
            (status, &refused["errcode"]),
            (403, &"M_TERMS_NOT_SIGNED".into())
        );
    }
    assert!(world.sydent.messages().await.is_empty());
    world.sydent.agree(&world.account).await;

    for (medium, body) in &bodies {
        world.granted("register", medium, body).await;
    }
    assert_eq!(world.sydent.messages().await.len(), bodies.len());
}

#[tokio::test]
async fn an_access_token_that_the_identity_server_does_not_know_is_refused_as_there() {
    let world = World::start().await;
    for (medium, mut body) in [
        ("email", world.email("alice@example.org")),
        ("msisdn", world.phone()),
    ] {
        body["id_access_token"] = "wrong".into();

        let (status, refused) = world.ask("register", medium, &body).await;

        assert_eq!(
            (status, &refused["errcode"]),
            (401, &"M_UNAUTHORIZED".into())
        );
    }
    assert!(world.sydent.messages().await.is_empty());
    world.sent_nothing().await;
}

#[tokio::test]
async fn too_many_requests_for_the_identity_server_are_too_many_for_us() {
    // Sydent takes five mails of an account at once.
    let world = World::start().await;
    let mut statuses = Vec::new();
    for number in 0..6 {
        let body = world.email(&format!("alice{number}@example.org"));
        statuses.push(world.ask("register", "email", &body).await.0);
    }

    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    assert_eq!(world.sydent.messages().await.len(), 5);
}

#[tokio::test]
async fn what_was_proved_through_us_can_be_bound_at_the_identity_server() {
    let world = World::start().await;
    let mxid = world.sydent.user_id("alice");
    let email = "alice@example.org";
    for (sent, medium, address, body) in [
        (1, "email", email, world.email(email)),
        (2, "msisdn", MSISDN, world.phone()),
    ] {
        let sid = sid(&world.granted("account/3pid", medium, &body).await);
        let bind = json!({ "sid": sid, "client_secret": SECRET, "mxid": mxid });
        let (early, _) = world.sydent.post("3pid/bind", &world.account, &bind).await;
        world
            .show_to_sydent(medium, &sid, &world.token(sent).await)
            .await;

        let (status, bound) = world.sydent.post("3pid/bind", &world.account, &bind).await;

        assert_eq!((early, status), (400, 200), "{bound}");
        assert_eq!(
            (&bound["medium"], &bound["address"], &bound["mxid"]),
            (&medium.into(), &address.into(), &mxid.as_str().into())
        );
    }
}

#[tokio::test]
async fn an_identity_server_with_a_certificate_of_an_unknown_authority_is_not_asked() {
    let world = World::with(false, false).await;
    for (medium, body) in [
        ("email", world.email("alice@example.org")),
        ("msisdn", world.phone()),
    ] {
        let (status, refused) = world.ask("register", medium, &body).await;

        assert_eq!((status, &refused["errcode"]), (502, &"M_UNKNOWN".into()));
    }
    assert!(world.sydent.messages().await.is_empty());
    world.sent_nothing().await;
}
