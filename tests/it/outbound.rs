//! Calls to hosts that strangers name: what is dialled, what is trusted, and how much of an answer is read.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use threepid::{
    Error,
    id_server::IdServer,
    identity_client::{At, IdentityClient, TokenRequest},
    outbound::{Outbound, Resolve, Settings},
    secret::{AccessToken, ClientSecret, Sid},
    threepid::Threepid,
};
use tokio::net::TcpListener;

use crate::support::{
    certificates::Certified,
    upstream::{Answer, Upstream},
};

/// The limit of a call where a time-out is the subject of the test.
const SHORT: Duration = Duration::from_millis(300);
const PATH: &str = "/_matrix/identity/v2/validate/email/requestToken";

fn outbound(settings: Settings) -> Outbound {
    Outbound::new(settings).expect("the CA files are good")
}

/// Asks for a token, with a secret and an access token that must not be seen elsewhere.
async fn ask(outbound: &Outbound, server: &IdServer) -> Result<Sid, Error> {
    let at = At {
        server,
        access_token: &AccessToken::parse("t0ken-of-alice").expect("it is a token"),
    };
    let request = TokenRequest {
        threepid: &Threepid::email("alice@example.org").expect("it is an address"),
        client_secret: &ClientSecret::parse("s3cret-of-alice").expect("it is a secret"),
        send_attempt: 1,
        next_link: None,
    };
    let client = IdentityClient::new(outbound.clone());
    client.request_token(at, request).await
}

async fn started() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.answer("requestToken", Answer::json(200, json!({"sid": "123"})));
    upstream
}

/// A resolver that gives these answers in turn, the last one again and again, and counts.
fn resolver(answers: &[&[&str]]) -> (Resolve, Arc<AtomicUsize>) {
    let parse = |answer: &&[&str]| {
        let addresses = answer.iter().map(|text| text.parse().expect("an address"));
        addresses.collect::<Vec<IpAddr>>()
    };
    let answers: Vec<_> = answers.iter().map(parse).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolve: Resolve = Arc::new(move |_| {
        let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[at].clone();
        Box::pin(async move { Ok(answer) })
    });
    (resolve, asked)
}

fn cause(result: Result<Sid, Error>) -> String {
    match result {
        Err(Error::UpstreamFailed(cause)) => cause,
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test]
async fn the_token_goes_into_its_header_and_nowhere_else() {
    let upstream = started().await;

    let sid = ask(&outbound(upstream.settings()), &upstream.id_server()).await;

    assert_eq!(sid.map(|sid| sid.to_string()), Ok("123".to_owned()));
    let [request] = &upstream.requests()[..] else {
        panic!("one request")
    };
    assert_eq!((&*request.method, &*request.path), ("POST", PATH));
    assert_eq!(
        request.header("authorization"),
        Some("Bearer t0ken-of-alice")
    );
    assert_eq!(request.header("host"), Some(&*upstream.name()));
    assert_eq!(request.query, "");
    assert!(!String::from_utf8_lossy(&request.body).contains("t0ken"));
}

#[tokio::test]
async fn connections_are_used_again() {
    let upstream = started().await;
    let outbound = outbound(upstream.settings());

    for _ in 0..3 {
        ask(&outbound, &upstream.id_server()).await.unwrap();
    }

    assert_eq!((upstream.requests().len(), upstream.connections()), (3, 1));
}

#[tokio::test]
async fn a_name_that_leads_to_a_forbidden_address_is_not_dialled() {
    let upstream = started().await;
    let server: IdServer = format!("id.example.org:{}", upstream.port())
        .parse()
        .unwrap();
    let strict = Settings {
        allow: Vec::new(),
        ..upstream.settings()
    };
    for (addresses, forbidden) in [
        (&["127.0.0.1"][..], "127.0.0.1"),
        (&["10.0.0.5"], "10.0.0.5"),
        (&["169.254.169.254"], "169.254.169.254"),
        (&["::1"], "::1"),
        (&["::ffff:127.0.0.1"], "127.0.0.1"),
        (&["64:ff9b::127.0.0.1"], "64:ff9b::7f00:1"),
        (&["203.0.114.1", "127.0.0.1"], "127.0.0.1"),
        (&["127.0.0.1", "203.0.114.1"], "127.0.0.1"),
    ] {
        let (resolve, _) = resolver(&[addresses]);
        let outbound = outbound(strict.clone()).with_resolver(resolve);

        let cause = cause(ask(&outbound, &server).await);

        let expected = format!(
            "id.example.org resolves to {forbidden}, which is not a public address; \
             to allow it, add its network to outbound.allow"
        );
        assert_eq!(cause, expected);
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_dialled() {
    let upstream = started().await;
    let closing = Answer::json(200, json!({"sid": "123"})).header("Connection", "close");
    upstream.answer("requestToken", closing);
    let trap = TcpListener::bind(("127.0.0.2", upstream.port()))
        .await
        .unwrap();
    let allowed = Settings {
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        ..upstream.settings()
    };
    let (resolve, asked) = resolver(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let outbound = outbound(allowed).with_resolver(resolve);

    let first = ask(&outbound, &upstream.id_server()).await;
    let asked_once = asked.load(Ordering::SeqCst);
    let second = cause(ask(&outbound, &upstream.id_server()).await);

    assert!(first.is_ok(), "{first:?}");
    assert_eq!((asked_once, upstream.connections()), (1, 1));
    assert!(
        second.starts_with("localhost resolves to 127.0.0.2"),
        "{second}"
    );
    let caught = tokio::time::timeout(Duration::from_millis(50), trap.accept()).await;
    assert!(caught.is_err(), "the second address was dialled");
}

#[tokio::test]
async fn a_server_named_by_its_address_is_checked_too() {
    let upstream = started().await;
    let port = upstream.port();
    let strict = outbound(Settings {
        allow: Vec::new(),
        ..upstream.settings()
    });
    for (host, shown) in [
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("[::127.0.0.1]", "::7f00:1"),
        ("[64:ff9b::127.0.0.1]", "64:ff9b::7f00:1"),
        ("[fe80::1]", "fe80::1"),
        ("169.254.169.254", "169.254.169.254"),
    ] {
        let server = format!("{host}:{port}").parse().unwrap();
        let cause = cause(ask(&strict, &server).await);
        let told = format!("is {shown}, which is not a public address");
        assert!(cause.contains(&told), "{cause}");
    }
    let odd = ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "①27.0.0.1"];
    for host in odd {
        assert!(
            format!("{host}:{port}").parse::<IdServer>().is_err(),
            "{host}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn what_the_operator_allows_is_dialled() {
    let upstream = started().await;
    let allowed = outbound(upstream.settings());

    let by_address = format!("127.0.0.1:{}", upstream.port()).parse().unwrap();

    assert!(ask(&allowed, &by_address).await.is_ok());
    assert!(ask(&allowed, &upstream.id_server()).await.is_ok());
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_ends_the_call() {
    let upstream = started().await;
    let impostor = Upstream::start_as(Certified::Elsewhere).await;
    let untrusting = Settings {
        ca_files: Vec::new(),
        ..upstream.settings()
    };

    let unknown = cause(ask(&outbound(untrusting), &upstream.id_server()).await);
    let other_name = cause(ask(&outbound(impostor.settings()), &impostor.id_server()).await);

    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    assert!(other_name.contains("not valid for name"), "{other_name}");
    assert!(upstream.requests().is_empty() && impostor.requests().is_empty());
}

#[tokio::test]
async fn any_certificate_is_taken_where_the_operator_says_so() {
    let impostor = Upstream::start_as(Certified::Elsewhere).await;
    impostor.answer("requestToken", Answer::json(200, json!({"sid": "123"})));
    let careless = Settings {
        ca_files: Vec::new(),
        danger_accept_invalid_certs: true,
        ..impostor.settings()
    };

    assert!(
        ask(&outbound(careless), &impostor.id_server())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (upstream, target) = (started().await, started().await);
    for status in [301, 302, 303, 307, 308] {
        let location = format!("https://{}{PATH}", target.name());
        let redirect = Answer::new(status, "text/html", "").header("Location", &location);
        upstream.answer("requestToken", redirect);

        let cause = cause(ask(&outbound(upstream.settings()), &upstream.id_server()).await);

        assert!(cause.contains(&format!("with {status} ")), "{cause}");
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn no_more_is_read_than_an_answer_may_have() {
    let upstream = started().await;
    let outbound = outbound(upstream.settings());
    let told = Answer::json(200, json!({"sid": "1"})).header("Content-Length", "104857600");
    let largest = format!(r#"{{"sid":"1","x":"{}"}}"#, "x".repeat(65536 - 18));
    assert_eq!(largest.len(), 65536);
    for answer in [
        told,
        Answer::new(200, "application/json", "x".repeat(16 * 1024)).endless(),
        Answer::new(200, "application/json", format!("{largest} ")),
    ] {
        upstream.answer("requestToken", answer);
        let cause = cause(ask(&outbound, &upstream.id_server()).await);
        assert!(
            cause.ends_with(" answered more than 65536 bytes"),
            "{cause}"
        );
    }
    upstream.answer(
        "requestToken",
        Answer::new(200, "application/json", largest),
    );
    assert!(ask(&outbound, &upstream.id_server()).await.is_ok());
}

#[tokio::test]
async fn a_slow_server_does_not_hold_a_call() {
    let upstream = started().await;
    let outbound = outbound(Settings {
        timeout: SHORT,
        ..upstream.settings()
    });
    let minute = Duration::from_mins(1);
    let good = Answer::json(200, json!({"sid": "123"}));
    for slow in [good.clone().after(minute), good.dripping(minute)] {
        upstream.answer("requestToken", slow);

        let result = ask(&outbound, &upstream.id_server()).await;

        let why = format!("{} did not answer", upstream.name());
        assert!(
            matches!(&result, Err(Error::UpstreamTimeout(cause)) if cause.starts_with(&why)),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn the_time_for_the_name_counts() {
    let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
    let settings = Settings {
        timeout: SHORT,
        ..Settings::default()
    };
    let outbound = outbound(settings).with_resolver(never);

    let result = ask(&outbound, &"id.example.org".parse().unwrap()).await;

    assert!(
        matches!(result, Err(Error::UpstreamTimeout(_))),
        "{result:?}"
    );
}

#[tokio::test]
async fn calls_that_hang_leave_room_for_no_more_than_the_bound() {
    let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
    let outbound = outbound(Settings::default()).with_resolver(never);
    let server: IdServer = "id.example.org".parse().unwrap();
    let mut hanging: Vec<_> = (0..512)
        .map(|_| Box::pin(ask(&outbound, &server)))
        .collect();
    for call in &mut hanging {
        assert!(futures_util::poll!(call).is_pending());
    }

    let beyond = ask(&outbound, &server).await;
    hanging.pop();
    let mut after_one_ended = Box::pin(ask(&outbound, &server));

    assert!(matches!(beyond, Err(Error::Unavailable(_))), "{beyond:?}");
    assert!(futures_util::poll!(&mut after_one_ended).is_pending());
}

#[tokio::test]
async fn failures_and_debug_give_no_secret_away() {
    let upstream = started().await;
    let outbound = outbound(upstream.settings());
    let unknown: Resolve = Arc::new(|_| Box::pin(async { Err(io::Error::other("no such name")) }));
    let lost = outbound.clone().with_resolver(unknown);
    let mut told = vec![format!("{outbound:?}")];

    told.push(cause(ask(&lost, &upstream.id_server()).await));
    for answer in [
        Answer::closing(),
        Answer::new(200, "text/html", "<p>s3cret-of-alice</p>"),
        Answer::error(500, "M_UNKNOWN"),
    ] {
        upstream.answer("requestToken", answer);
        told.push(cause(ask(&outbound, &upstream.id_server()).await));
    }

    assert_eq!(told[1], "localhost can not be resolved: no such name");
    for text in &told {
        let secret = ["t0ken", "s3cret", "alice", "/_matrix"];
        assert!(!secret.iter().any(|part| text.contains(part)), "{text}");
    }
}
