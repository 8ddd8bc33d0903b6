//! What is asked of identity servers, and what is made of their answers.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use threepid::{
    Error,
    clock::Timestamp,
    id_server::IdServer,
    identity_client::{At, Authority, IdentityClient, Pair, TokenRequest, Unbound},
    outbound::Outbound,
    secret::{AccessToken, ClientSecret, Sid},
    threepid::{Medium, Threepid},
};

use crate::support::upstream::{Answer, Request, Upstream};

const ALICE: &str = "@alice:example.org";
const SIGNED: &str = r#"X-Matrix origin="example.org",key="ed25519:1",sig="abc""#;

/// Alice, her client, and an identity server.
struct Scene {
    upstream: Upstream,
    client: IdentityClient,
    server: IdServer,
    token: AccessToken,
    secret: ClientSecret,
    sid: Sid,
    email: Threepid,
}

impl Scene {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let outbound = Outbound::new(upstream.settings()).expect("the CA file is good");
        Self {
            client: IdentityClient::new(outbound),
            server: upstream.id_server(),
            token: AccessToken::parse("t0ken").expect("it is a token"),
            secret: ClientSecret::parse("s3.cr=et").expect("it is a secret"),
            sid: Sid::parse("12=3").expect("it is a sid"),
            email: Threepid::email("alice@example.org").expect("it is an address"),
            upstream,
        }
    }

    fn at(&self) -> At<'_> {
        At {
            server: &self.server,
            access_token: &self.token,
        }
    }

    fn pair(&self) -> Pair<'_> {
        Pair {
            sid: &self.sid,
            client_secret: &self.secret,
        }
    }

    async fn request_token(&self, threepid: &Threepid) -> Result<Sid, Error> {
        let request = TokenRequest {
            threepid,
            client_secret: &self.secret,
            send_attempt: 2,
            next_link: Some("https://app.example.org/#/x?y=1"),
        };
        self.client.request_token(self.at(), request).await
    }

    async fn submit_token(&self, medium: Medium) -> Result<(), Error> {
        let (at, pair) = (self.at(), self.pair());
        self.client.submit_token(at, medium, pair, "12 34").await
    }

    async fn validated(&self) -> Result<Timestamp, Error> {
        let (at, pair) = (self.at(), self.pair());
        self.client.validated(at, pair, &self.email).await
    }

    async fn bind(&self) -> Result<Threepid, Error> {
        self.client.bind(self.at(), self.pair(), ALICE).await
    }

    async fn unbind(&self, authority: Authority<'_>) -> Result<Unbound, Error> {
        let (server, email) = (&self.server, &self.email);
        self.client.unbind(server, authority, ALICE, email).await
    }

    fn last_request(&self) -> Request {
        let last = self.upstream.requests().pop();
        last.expect("there was a request")
    }
}

fn relayed(status: u16, errcode: &str) -> Error {
    Error::Relayed {
        status: StatusCode::from_u16(status).expect("it is a status"),
        errcode: errcode.to_owned(),
        error: "The server's words".to_owned(),
        retry_after: None,
    }
}

fn is_failure<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::UpstreamFailed(_)))
}

/// An association as Sydent answers it.
fn association() -> Value {
    json!({
        "medium": "email", "address": "Alice@Example.org", "mxid": ALICE, "ts": 1, "not_before": 1, "not_after": 2,
        "signatures": {"localhost": {"ed25519:0": "abc"}},
    })
}

#[tokio::test]
async fn an_email_is_asked_for_in_the_words_of_the_api() {
    let scene = Scene::new().await;
    scene.upstream.answer(
        "/email/requestToken",
        Answer::json(200, json!({"sid": "77"})),
    );

    let sid = scene.request_token(&scene.email).await;

    assert_eq!(sid, Ok(Sid::parse("77").unwrap()));
    let request = scene.last_request();
    assert_eq!(
        request.path,
        "/_matrix/identity/v2/validate/email/requestToken"
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.json(),
        json!({"client_secret": "s3.cr=et", "email": "alice@example.org", "send_attempt": 2,
               "next_link": "https://app.example.org/#/x?y=1"})
    );
}

#[tokio::test]
async fn a_phone_number_is_asked_for_with_its_country() {
    let scene = Scene::new().await;
    let answer = json!({"success": true, "sid": "77", "msisdn": "447400123456", "intl_fmt": "+44 7400 123456"});
    scene
        .upstream
        .answer("/msisdn/requestToken", Answer::json(200, answer));
    let phone = Threepid::msisdn("GB", "07400 123456").unwrap();

    let sid = scene.request_token(&phone).await;

    assert_eq!(sid, Ok(Sid::parse("77").unwrap()));
    let body = scene.last_request().json();
    assert_eq!(body["country"], "GB");
    assert_eq!(body["phone_number"], "+447400123456");
}

#[tokio::test]
async fn matrix_errors_are_relayed() {
    let scene = Scene::new().await;
    for (status, errcode, expected) in [
        (403, "M_TERMS_NOT_SIGNED", "M_TERMS_NOT_SIGNED"),
        (400, "M_INVALID_EMAIL", "M_INVALID_EMAIL"),
        (429, "M_UNKNOWN", "M_UNKNOWN"),
        (401, "M_UNAUTHORIZED", "M_UNAUTHORIZED"),
        (401, "M_UNKNOWN_TOKEN", "M_UNAUTHORIZED"),
        (401, "M_MISSING_TOKEN", "M_UNAUTHORIZED"),
    ] {
        for path in ["requestToken", "bind", "unbind", "submitToken"] {
            scene.upstream.answer(path, Answer::error(status, errcode));
        }
        let expected = relayed(status, expected);

        let pair = Authority::Session(scene.pair(), None);
        assert_eq!(
            scene.request_token(&scene.email).await,
            Err(expected.clone())
        );
        assert_eq!(
            scene.submit_token(Medium::Email).await,
            Err(expected.clone())
        );
        assert_eq!(scene.bind().await, Err(expected.clone()));
        assert_eq!(scene.unbind(pair).await, Err(expected));
    }
}

#[tokio::test]
async fn nonsense_is_a_failure_of_the_server() {
    let scene = Scene::new().await;
    for answer in [
        Answer::new(200, "text/html", "<html>"),
        Answer::new(200, "application/json", vec![0xff, 0xfe]),
        Answer::new(200, "application/json", "[".repeat(50_000)),
        Answer::json(200, json!([])),
        Answer::json(200, json!("77")),
        Answer::json(200, json!({})),
        Answer::json(200, json!({"sid": 77})),
        Answer::json(200, json!({"sid": ""})),
        Answer::json(200, json!({"sid": "a b"})),
        Answer::json(201, json!({"sid": "77"})),
        Answer::json(400, json!({"error": "no code"})),
        Answer::new(404, "text/html", "<html>"),
        Answer::error(400, "M X"),
        Answer::error(500, "M_EMAIL_SEND_ERROR"),
        Answer::closing(),
        Answer::json(200, json!({"sid": "77", "errcode": "M_UNKNOWN"})),
    ] {
        for path in ["requestToken", "submitToken", "getValidated3pid", "bind"] {
            scene.upstream.answer(path, answer.clone());
        }

        let sid = scene.request_token(&scene.email).await;
        assert!(is_failure(&sid), "{answer:?} {sid:?}");
        assert!(scene.submit_token(Medium::Email).await.is_err());
        assert!(scene.validated().await.is_err());
        assert!(scene.bind().await.is_err());
    }
}

#[tokio::test]
async fn a_token_is_submitted_and_judged_by_success_alone() {
    let scene = Scene::new().await;
    let says = |status, body| Answer::json(status, body);
    let sydent = |status, errcode: &str| {
        let body = json!({"success": false, "errcode": errcode, "error": "The server's words"});
        says(status, body)
    };
    for (answer, expected) in [
        (says(200, json!({"success": true})), Ok(())),
        (
            says(200, json!({"success": false})),
            Err(Error::TokenIncorrect),
        ),
        (
            Answer::error(400, "M_TOKEN_INCORRECT"),
            Err(relayed(400, "M_TOKEN_INCORRECT")),
        ),
        (
            Answer::error(404, "M_NO_VALID_SESSION"),
            Err(relayed(404, "M_NO_VALID_SESSION")),
        ),
        (
            Answer::error(400, "M_INVALID_PARAM"),
            Err(relayed(400, "M_INVALID_PARAM")),
        ),
        (
            Answer::error(200, "M_SESSION_EXPIRED"),
            Err(relayed(400, "M_SESSION_EXPIRED")),
        ),
        // Sydent, with its two errors the wrong way round.
        (
            sydent(200, "M_NO_VALID_SESSION"),
            Err(Error::TokenIncorrect),
        ),
        (
            sydent(404, "M_NO_VALID_SESSION"),
            Err(Error::TokenIncorrect),
        ),
        (sydent(200, "M_INVALID_PARAM"), Err(Error::NoValidSession)),
        (sydent(400, "M_INVALID_PARAM"), Err(Error::NoValidSession)),
        (
            sydent(200, "M_SESSION_EXPIRED"),
            Err(relayed(400, "M_SESSION_EXPIRED")),
        ),
    ] {
        scene.upstream.answer("/msisdn/submitToken", answer);
        assert_eq!(scene.submit_token(Medium::Msisdn).await, expected);
    }
    let body = json!({"sid": "12=3", "client_secret": "s3.cr=et", "token": "12 34"});
    assert_eq!(scene.last_request().json(), body);
}

#[tokio::test]
async fn a_proof_is_fetched_with_an_encoded_query() {
    let scene = Scene::new().await;
    let answer = json!({"medium": "email", "address": "Alice@Example.org", "validated_at": 1_795_338_743_088_i64});
    scene
        .upstream
        .answer("/getValidated3pid", Answer::json(200, answer));

    let validated = scene.validated().await;

    assert_eq!(validated, Ok(Timestamp(1_795_338_743_088)));
    let request = scene.last_request();
    assert_eq!(request.method, "GET");
    assert_eq!(request.path, "/_matrix/identity/v2/3pid/getValidated3pid");
    assert_eq!(request.query, "sid=12%3D3&client_secret=s3.cr%3Det");
    assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
}

#[tokio::test]
async fn a_session_without_proof_is_told_apart_from_a_failure() {
    let scene = Scene::new().await;
    for (errcode, expected) in [
        ("M_SESSION_NOT_VALIDATED", Error::SessionNotValidated),
        ("M_SESSION_EXPIRED", Error::SessionExpired),
        ("M_NO_VALID_SESSION", Error::NoValidSession),
    ] {
        for status in [200, 400, 403, 404] {
            scene
                .upstream
                .answer("/getValidated3pid", Answer::error(status, errcode));
            assert_eq!(scene.validated().await, Err(expected.clone()), "{status}");
        }
        scene
            .upstream
            .answer("/getValidated3pid", Answer::error(500, errcode));
        assert!(is_failure(&scene.validated().await), "{errcode}");
    }
}

#[tokio::test]
async fn a_proof_of_another_address_is_none() {
    let scene = Scene::new().await;
    for body in [
        json!({"medium": "email", "address": "mallory@example.org", "validated_at": 1}),
        json!({"medium": "msisdn", "address": "alice@example.org", "validated_at": 1}),
        json!({"medium": "msisdn", "address": "447400123456", "validated_at": 1}),
        json!({"medium": "email", "address": "alice@example.org", "validated_at": "1"}),
        json!({"medium": "email", "address": "alice@example.org", "validated_at": 1.5}),
        json!({"medium": "email", "address": "alice@example.org", "validated_at": -1}),
        json!({"medium": "email", "address": "alice@example.org"}),
        json!({"medium": "email", "validated_at": 1}),
        json!({"address": "alice@example.org", "validated_at": 1}),
    ] {
        scene
            .upstream
            .answer("/getValidated3pid", Answer::json(200, body.clone()));

        let result = scene.validated().await;

        let Err(Error::UpstreamFailed(cause)) = result else {
            panic!("{body} was taken: {result:?}")
        };
        assert!(!cause.contains("example.org"), "{cause}");
    }
}

#[tokio::test]
async fn an_association_is_checked_before_it_is_believed() {
    let scene = Scene::new().await;
    scene
        .upstream
        .answer("/bind", Answer::json(200, association()));
    assert_eq!(scene.bind().await, Ok(scene.email.clone()));
    let body = json!({"sid": "12=3", "client_secret": "s3.cr=et", "mxid": ALICE});
    assert_eq!(scene.last_request().json(), body);

    for (key, value) in [
        ("mxid", json!("@mallory:example.org")),
        ("mxid", json!(null)),
        ("signatures", json!([])),
        ("signatures", json!(null)),
        ("medium", json!("pigeon")),
        ("address", json!(5)),
    ] {
        let mut wrong = association();
        wrong[key] = value;
        scene.upstream.answer("/bind", Answer::json(200, wrong));
        assert!(is_failure(&scene.bind().await), "{key}");
    }
}

#[tokio::test]
async fn each_authority_unbinds_with_what_it_has() {
    let scene = Scene::new().await;
    scene
        .upstream
        .answer("/unbind", Answer::new(200, "text/html", "{}"));
    let threepid = json!({"medium": "email", "address": "alice@example.org"});
    let alone = json!({"mxid": ALICE, "threepid": threepid});
    let proved =
        json!({"mxid": ALICE, "threepid": threepid, "sid": "12=3", "client_secret": "s3.cr=et"});
    let token = &scene.token;
    for (authority, header, body) in [
        (Authority::Bearer(token), Some("Bearer t0ken"), &alone),
        (Authority::Signed(SIGNED), Some(SIGNED), &alone),
        (
            Authority::Session(scene.pair(), Some(token)),
            Some("Bearer t0ken"),
            &proved,
        ),
        (Authority::Session(scene.pair(), None), None, &proved),
    ] {
        assert_eq!(scene.unbind(authority).await, Ok(Unbound::Success));

        let request = scene.last_request();
        assert_eq!(request.header("authorization"), header);
        assert_eq!(&request.json(), body);
        assert!(!format!("{authority:?}").contains("sig"));
    }
}

#[tokio::test]
async fn a_server_that_can_not_unbind_is_told_apart_from_one_that_will_not() {
    let scene = Scene::new().await;
    let html = |status| Answer::new(status, "text/html", "<html>");
    let failed = Err(None);
    for (answer, expected) in [
        (Answer::json(200, json!(null)), Ok(Unbound::Success)),
        (Answer::json(200, json!({"x": 1})), Ok(Unbound::Success)),
        (html(400), Ok(Unbound::NoSupport)),
        (html(404), Ok(Unbound::NoSupport)),
        (html(501), Ok(Unbound::NoSupport)),
        (
            Answer::json(404, json!({"error": "x"})),
            Ok(Unbound::NoSupport),
        ),
        (
            Answer::error(404, "M_NOT_FOUND"),
            Err(Some(relayed(404, "M_NOT_FOUND"))),
        ),
        (
            Answer::error(403, "M_FORBIDDEN"),
            Err(Some(relayed(403, "M_FORBIDDEN"))),
        ),
        (Answer::error(501, "M_X"), Err(Some(relayed(400, "M_X")))),
        (Answer::error(200, "M_X"), Err(Some(relayed(400, "M_X")))),
        (Answer::error(400, "M X"), failed.clone()),
        (Answer::error(500, "M_X"), failed.clone()),
        (Answer::json(200, json!([])), failed.clone()),
        (html(200), failed.clone()),
        (html(401), failed.clone()),
        (html(405), failed.clone()),
        (html(302), failed),
    ] {
        scene.upstream.answer("/unbind", answer.clone());

        let result = scene.unbind(Authority::Bearer(&scene.token)).await;

        match expected {
            Ok(unbound) => assert_eq!(result, Ok(unbound)),
            Err(Some(error)) => assert_eq!(result, Err(error)),
            Err(None) => assert!(is_failure(&result), "{answer:?} {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_wish_to_be_asked_later_is_passed_on() {
    let scene = Scene::new().await;
    let body =
        json!({"errcode": "M_LIMIT_EXCEEDED", "error": "Slow\r\ndown", "retry_after_ms": 2000});
    scene
        .upstream
        .answer("/requestToken", Answer::json(429, body));

    let result = scene.request_token(&scene.email).await;

    let expected = Error::Relayed {
        status: StatusCode::TOO_MANY_REQUESTS,
        errcode: "M_LIMIT_EXCEEDED".to_owned(),
        error: "Slow  down".to_owned(),
        retry_after: Some(Duration::from_secs(2)),
    };
    assert_eq!(result, Err(expected));
}
