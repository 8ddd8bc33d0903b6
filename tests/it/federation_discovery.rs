//! Where a homeserver is found, and where no stranger may lead us.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use threepid::{
    Error,
    clock::{Clock, ManualClock, Timestamp},
    federation::Federation,
    outbound::{Outbound, Resolve, ResolveServices, Service, Settings},
    secret::AccessToken,
    server_name::ServerName,
};
use tokio::net::TcpListener;

use crate::support::{
    certificates::Certified,
    closed_port,
    federation::{FederationServer, USERINFO, WELL_KNOWN},
    upstream::{Answer, Upstream},
};

const START: Timestamp = Timestamp(1_795_341_600_000);
const HOUR: Duration = Duration::from_hours(1);
const ALICE: &str = "@alice:hs.example";
/// Where nobody listens.
const NOBODY: &str = "127.84.48.1";

/// What the name servers of a test know.
#[derive(Clone, Default)]
struct Zone {
    addresses: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
    services: Arc<Mutex<BTreeMap<String, Vec<Service>>>>,
    questions: Arc<AtomicUsize>,
}

impl Zone {
    fn host(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().expect("an address"));
        let mut known = self.addresses.lock().expect("no test panicked in it");
        known.insert(name.to_owned(), addresses.collect());
    }

    fn service(&self, name: &str, targets: &[(&str, u16)]) {
        let records = targets
            .iter()
            .zip(0..)
            .map(|((target, port), priority)| Service {
                priority,
                weight: 0,
                port: *port,
                target: (*target).to_owned(),
            });
        let mut known = self.services.lock().expect("no test panicked in it");
        known.insert(name.to_owned(), records.collect());
    }

    fn outbound(&self, settings: Settings, https_port: u16) -> Outbound {
        Outbound::new(settings)
            .expect("the authority is a certificate")
            .with_resolver(self.resolve())
            .with_service_resolver(self.resolve_services())
            .with_https_port(https_port)
    }

    fn resolve(&self) -> Resolve {
        let zone = self.clone();
        Arc::new(move |name| {
            let found = zone
                .addresses
                .lock()
                .expect("no test panicked in it")
                .get(&name)
                .cloned();
            Box::pin(async { found.ok_or_else(|| io::Error::other("no such name")) })
        })
    }

    fn resolve_services(&self) -> ResolveServices {
        let zone = self.clone();
        Arc::new(move |name| {
            zone.questions.fetch_add(1, Ordering::SeqCst);
            let found = zone
                .services
                .lock()
                .expect("no test panicked in it")
                .get(&name)
                .cloned();
            Box::pin(async { Ok(found.unwrap_or_default()) })
        })
    }
}

/// The homeserver `hs.example`: one server says where it is, on what stands for port 443, and another one is it.
struct World {
    web: Upstream,
    homeserver: FederationServer,
    zone: Zone,
    federation: Federation,
    clock: Arc<ManualClock>,
}

impl World {
    async fn start() -> Self {
        Self::start_as(Certified::Homeserver).await
    }

    async fn start_as(certified: Certified) -> Self {
        let web = Upstream::start_as(Certified::Homeserver).await;
        let upstream = Upstream::start_as(certified).await;
        let homeserver = FederationServer::around(upstream, "hs.example".to_owned());
        homeserver.knows("t0ken-of-alice", ALICE);
        let zone = Zone::default();
        zone.host("hs.example", &["127.0.0.1"]);
        zone.host("delegated.example", &["127.0.0.1"]);
        zone.host("target.example", &["127.0.0.1"]);
        let settings = Settings {
            allow: vec![
                "127.0.0.1/32".parse().expect("it is well-formed"),
                format!("{NOBODY}/32").parse().expect("it is well-formed"),
            ],
            ..homeserver.settings()
        };
        let outbound = zone.outbound(settings, web.port());
        let clock = Arc::new(ManualClock::new(START));
        let federation = Federation::new(outbound, Arc::clone(&clock) as Arc<dyn Clock>);
        Self {
            web,
            homeserver,
            zone,
            federation,
            clock,
        }
    }

    /// Says so where the homeserver is.
    fn delegate(&self, name: &str) {
        let answer = Answer::json(200, json!({ "m.server": name }));
        self.web.answer(WELL_KNOWN, answer);
    }

    /// Says it by an SRV record of today's name.
    fn serve_at(&self, target: &str) {
        let port = self.homeserver.port();
        self.zone
            .service("_matrix-fed._tcp.hs.example", &[(target, port)]);
    }

    async fn ask(&self) -> Result<String, Error> {
        self.ask_as("hs.example").await
    }

    async fn ask_as(&self, name: &str) -> Result<String, Error> {
        let name: ServerName = name.parse().expect("it is well-formed");
        let token = AccessToken::parse("t0ken-of-alice").expect("it is well-formed");
        self.federation.userinfo(&name, &token).await
    }

    async fn cause(&self) -> String {
        match self.ask().await {
            Err(Error::FederationFailed(cause)) => cause,
            other => panic!("not a failure: {other:?}"),
        }
    }

    /// The `Host` header of the last request that reached the homeserver.
    fn host_header(&self) -> String {
        let requests = self.homeserver.requests(USERINFO);
        let host = requests.last().and_then(|request| request.header("host"));
        host.unwrap_or_default().to_owned()
    }

    /// How often somebody looked where the homeserver is.
    fn looks(&self) -> usize {
        self.web.requests().len()
    }
}

#[tokio::test]
async fn a_homeserver_is_found_where_its_web_server_says() {
    let world = World::start().await;
    world.delegate(&format!("delegated.example:{}", world.homeserver.port()));

    let user = world.ask().await;

    assert_eq!(user, Ok(ALICE.to_owned()));
    let [look] = &world.web.requests()[..] else {
        panic!("one look")
    };
    assert_eq!(look.header("host"), Some("hs.example"));
    let expected = format!("delegated.example:{}", world.homeserver.port());
    assert_eq!(world.host_header(), expected);
    assert_eq!(world.zone.questions.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_with_a_port_is_not_looked_up() {
    let world = World::start().await;
    let name = format!("hs.example:{}", world.homeserver.port());
    let user = format!("@alice:{name}");
    world.homeserver.knows("t0ken-of-alice", &user);

    assert_eq!(world.ask_as(&name).await, Ok(user));

    assert_eq!(world.host_header(), name);
    assert_eq!(
        world.looks() + world.zone.questions.load(Ordering::SeqCst),
        0
    );
}

#[tokio::test]
async fn a_homeserver_is_found_by_its_srv_record() {
    let world = World::start().await;
    world.serve_at("target.example");

    let user = world.ask().await;

    // Neither the certificate nor the header knows of the host that was dialled.
    assert_eq!(user, Ok(ALICE.to_owned()));
    assert_eq!(world.host_header(), "hs.example");
}

#[tokio::test]
async fn a_host_of_an_srv_record_is_checked_at_each_new_connection() {
    let world = World::start().await;
    world.serve_at("target.example");

    let first = world.ask().await;
    let second = world.ask().await;
    let connections = world.homeserver.upstream().connections();
    let closing = Answer::json(200, json!({ "sub": ALICE })).header("Connection", "close");
    let place = format!("{USERINFO}?access_token=t0ken-of-alice");
    world.homeserver.answer(&place, closing);
    let third = world.ask().await;
    world.zone.host("target.example", &["10.0.0.5"]);
    let cause = world.cause().await;

    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(connections, 1, "the second used the first one's again");
    assert!(
        cause.contains("target.example resolves to 10.0.0.5, which is not"),
        "{cause}"
    );
}

#[tokio::test]
async fn the_deprecated_srv_record_is_looked_for_after_that_of_today() {
    let world = World::start().await;
    let (old, new) = ("_matrix._tcp.hs.example", "_matrix-fed._tcp.hs.example");
    let right = ("target.example", world.homeserver.port());
    world.zone.service(old, &[right]);

    let by_old = world.ask().await;
    world.zone.service(new, &[right]);
    world.zone.service(old, &[("nowhere.example", 8448)]);
    let by_new = world.ask().await;

    assert!(by_old.is_ok(), "{by_old:?}");
    assert!(by_new.is_ok(), "{by_new:?}");
}

#[tokio::test]
async fn a_delegated_name_has_srv_records_of_its_own() {
    let world = World::start().await;
    world.delegate("delegated.example");
    world.serve_at("nowhere.example");
    let right = ("target.example", world.homeserver.port());
    let service = "_matrix-fed._tcp.delegated.example";
    world.zone.service(service, &[right]);

    let user = world.ask().await;

    assert_eq!(user, Ok(ALICE.to_owned()));
    assert_eq!(world.host_header(), "delegated.example");
}

#[tokio::test]
async fn a_delegated_name_delegates_no_further() {
    let world = World::start().await;
    let port = world.homeserver.port();
    world.delegate("hs.example");
    world.serve_at("target.example");
    assert!(world.ask().await.is_ok());
    assert_eq!(world.looks(), 1);

    world.clock.advance(HOUR * 24);
    world.delegate("delegated.example");
    let service = "_matrix-fed._tcp.delegated.example";
    world.zone.service(service, &[("target.example", port)]);
    assert!(world.ask().await.is_ok());
    assert_eq!(world.looks(), 2);
}

#[tokio::test]
async fn a_host_that_can_not_be_reached_is_followed_by_the_next() {
    let world = World::start().await;
    world.zone.host("dead.example", &["127.0.0.1"]);
    let (_nobody, dead) = closed_port();
    let targets = [
        ("nowhere.example", 8448),
        ("dead.example", dead.port()),
        ("target.example", world.homeserver.port()),
    ];
    world.zone.service("_matrix-fed._tcp.hs.example", &targets);

    assert_eq!(world.ask().await, Ok(ALICE.to_owned()));
}

#[tokio::test]
async fn without_anything_said_it_is_at_the_default_port() {
    let world = World::start().await;
    for name in ["hs.example", "delegated.example"] {
        world.zone.host(name, &[NOBODY]);
    }

    let straight = world.cause().await;
    world.clock.advance(HOUR);
    world.zone.host("hs.example", &["127.0.0.1"]);
    world.delegate("delegated.example");
    let delegated = world.cause().await;

    assert!(
        straight.starts_with("hs.example:8448 can not be reached"),
        "{straight}"
    );
    assert!(
        delegated.starts_with("delegated.example:8448 can not be reached"),
        "{delegated}"
    );
}

#[tokio::test]
async fn a_delegation_is_kept_as_long_as_it_says() {
    let world = World::start().await;
    let name = format!("delegated.example:{}", world.homeserver.port());
    let good = Answer::json(200, json!({ "m.server": name }));
    let hour = good.clone().header("Cache-Control", "max-age=3600");
    for (answer, kept) in [
        (good.clone(), HOUR * 24),
        (hour, HOUR),
        (good.header("Cache-Control", "max-age=9999999"), HOUR * 48),
    ] {
        world.web.answer(WELL_KNOWN, answer);
        let before = world.looks();

        assert!(world.ask().await.is_ok());
        world
            .clock
            .advance(kept.saturating_sub(Duration::from_secs(1)));
        assert!(world.ask().await.is_ok());
        assert_eq!(world.looks(), before + 1);
        world.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_failed_look_is_remembered_shortly() {
    let world = World::start().await;
    world.serve_at("target.example");

    assert!(world.ask().await.is_ok());
    world.delegate(&format!("delegated.example:{}", world.homeserver.port()));
    assert!(world.ask().await.is_ok());
    assert_eq!((world.looks(), &*world.host_header()), (1, "hs.example"));
    world.clock.advance(HOUR);
    assert!(world.ask().await.is_ok());

    assert_eq!(world.looks(), 2);
    assert!(world.host_header().starts_with("delegated.example:"));
}

#[tokio::test]
async fn three_redirects_are_followed_and_no_fourth() {
    let world = World::start().await;
    let port = world.homeserver.port();
    let good = Answer::json(
        200,
        json!({ "m.server": format!("delegated.example:{port}") }),
    );
    let to = |location: &str| Answer::new(302, "text/html", "").header("Location", location);
    world.serve_at("target.example");
    world.web.answer(WELL_KNOWN, to("/a"));
    world
        .web
        .answer("GET /a", to("https://delegated.example/b?c=d"));
    world.web.answer("GET /b", to("https://hs.example:443/c"));
    world.web.answer("GET /c", good.clone());

    assert!(world.ask().await.is_ok());
    assert!(world.host_header().starts_with("delegated.example:"));
    assert_eq!(world.web.requests()[2].query, "c=d");

    world.web.answer("GET /c", to("/d"));
    world.web.answer("GET /d", good);
    world.clock.advance(HOUR * 24);
    assert!(world.ask().await.is_ok());
    assert_eq!(world.host_header(), "hs.example");
    assert_eq!(world.looks(), 8);
}

#[tokio::test]
async fn a_redirect_leads_nowhere_that_a_stranger_may_not() {
    let world = World::start().await;
    world.serve_at("target.example");
    world.zone.host("private.example", &["127.0.0.2"]);
    world
        .zone
        .host("mixed.example", &["127.0.0.1", "169.254.169.254"]);
    let trap = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let trap_port = trap.local_addr().unwrap().port();
    let before = world.homeserver.upstream().connections();
    let port = world.homeserver.port();
    for location in [
        format!("https://127.0.0.2:{trap_port}/"),
        format!("https://private.example:{trap_port}/"),
        format!("https://mixed.example:{port}/"),
        format!("https://0x7f.2:{trap_port}/"),
        format!("https://2130706434:{trap_port}/"),
        format!("https://[::ffff:127.0.0.2]:{trap_port}/"),
        format!("http://hs.example:{port}/"),
        format!("http://127.0.0.2:{trap_port}/"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://hs.example:22/".to_owned(),
        "https://127.0.0.1:25/".to_owned(),
        format!("https://me@delegated.example:{port}/"),
        "/.well-known/matrix/server".to_owned(),
    ] {
        let redirect = Answer::new(307, "text/html", "").header("Location", &location);
        world.web.answer(WELL_KNOWN, redirect);
        world.clock.advance(HOUR);

        let user = world.ask().await;

        // The homeserver is found all the same, by its SRV record.
        assert_eq!(user, Ok(ALICE.to_owned()), "{location}");
        assert_eq!(world.host_header(), "hs.example");
    }
    let caught = tokio::time::timeout(Duration::from_millis(50), trap.accept()).await;
    assert!(caught.is_err(), "a forbidden address was dialled");
    // A loop is four looks; each of the others is one.
    assert_eq!(world.looks(), 12 + 4);
    // All the calls by the SRV record went over one, and no redirect was followed there.
    let connections = world.homeserver.upstream().connections() - before;
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn a_bad_answer_is_no_delegation() {
    let world = World::start().await;
    world.serve_at("target.example");
    let good = json!({ "m.server": "delegated.example:1024" });
    let padded = format!("{good}{}", " ".repeat(65536));
    for answer in [
        Answer::error(404, "M_NOT_FOUND"),
        Answer::json(500, good.clone()),
        Answer::json(301, good.clone()),
        Answer::new(200, "text/html", "<html>"),
        Answer::json(200, json!({ "m.server": 5 })),
        Answer::json(200, json!({ "m.server": "https://delegated.example" })),
        Answer::json(200, json!({ "m.server": "127.1:8448" })),
        Answer::new(200, "application/json", padded),
        Answer::new(200, "application/json", vec![b' '; 4096]).endless(),
        Answer::json(200, good).header("Content-Length", "104857600"),
        Answer::closing(),
    ] {
        world.web.answer(WELL_KNOWN, answer.clone());
        world.clock.advance(HOUR);

        assert_eq!(world.ask().await, Ok(ALICE.to_owned()), "{answer:?}");
        assert_eq!(world.host_header(), "hs.example");
    }
}

#[tokio::test]
async fn a_delegated_name_leads_nowhere_that_a_stranger_may_not() {
    let world = World::start().await;
    world.serve_at("target.example");
    world.zone.host("private.example", &["10.0.0.5"]);
    world.zone.host("mixed.example", &["127.0.0.1", "10.0.0.5"]);
    for (name, why) in [
        ("10.0.0.5", "10.0.0.5, which is not a public address"),
        ("10.0.0.5:8448", "10.0.0.5, which is not a public address"),
        ("169.254.169.254:443", "169.254.169.254, which is not"),
        ("[::1]:8448", "::1, which is not a public address"),
        ("[::ffff:10.0.0.5]", "10.0.0.5, which is not"),
        ("[64:ff9b::10.0.0.5]", "64:ff9b::a00:5, which is not"),
        ("private.example:8448", "resolves to 10.0.0.5"),
        ("private.example", "resolves to 10.0.0.5"),
        ("mixed.example", "resolves to 10.0.0.5"),
        ("127.0.0.1:22", "is at port 22, which is not dialled"),
        (
            "delegated.example:80",
            "is at port 80, which is not dialled",
        ),
    ] {
        world.delegate(name);
        world.clock.advance(HOUR * 24);

        let cause = world.cause().await;

        assert!(cause.contains(why), "{name}: {cause}");
    }
    assert_eq!(world.homeserver.upstream().connections(), 0);
}

#[tokio::test]
async fn an_srv_record_leads_nowhere_that_a_stranger_may_not() {
    let world = World::start().await;
    world.zone.host("private.example", &["10.0.0.5"]);
    world.zone.host("mixed.example", &["127.0.0.1", "::1"]);
    let port = world.homeserver.port();
    for (target, port, why) in [
        (
            "private.example",
            8448,
            "private.example resolves to 10.0.0.5, which is not",
        ),
        (
            "mixed.example",
            port,
            "mixed.example resolves to ::1, which is not",
        ),
        (
            "nowhere.example",
            port,
            "nowhere.example can not be resolved",
        ),
        (
            "127.0.0.1",
            port,
            "names no host and port that may be dialled",
        ),
        ("", 0, "names no host and port that may be dialled"),
        (
            "target.example",
            22,
            "names no host and port that may be dialled",
        ),
    ] {
        let service = "_matrix-fed._tcp.hs.example";
        world.zone.service(service, &[(target, port)]);

        let cause = world.cause().await;

        assert!(cause.contains(why), "{target}: {cause}");
    }
    assert_eq!(world.homeserver.upstream().connections(), 0);
}

#[tokio::test]
async fn a_name_leads_nowhere_that_a_stranger_may_not() {
    let world = World::start().await;
    world.zone.host("private.example", &["10.0.0.5"]);
    let forbidden = "which is not a public address";
    let port = "which is not dialled";
    for (name, why) in [
        ("10.0.0.5", forbidden),
        ("169.254.169.254", forbidden),
        ("127.0.0.2:8448", forbidden),
        ("[::1]", forbidden),
        ("[fe80::1]:8448", forbidden),
        ("[::ffff:127.0.0.2]", forbidden),
        ("private.example", forbidden),
        ("private.example:8448", forbidden),
        ("hs.example:22", port),
        ("127.0.0.1:22", port),
    ] {
        let server: ServerName = name.parse().unwrap();

        let key = world.federation.public_key(&server, "ed25519:1").await;

        assert!(
            matches!(&key, Err(Error::FederationFailed(cause)) if cause.contains(why)),
            "{name} {key:?}"
        );
    }
    assert_eq!(world.looks() + world.homeserver.upstream().connections(), 0);
}

#[tokio::test]
async fn whoever_is_dialled_has_to_prove_the_name() {
    let elsewhere = World::start_as(Certified::Elsewhere).await;
    let localhost = World::start_as(Certified::Localhost).await;
    localhost.zone.host("localhost", &["127.0.0.1"]);
    elsewhere.serve_at("target.example");
    // Its certificate is for the host that the record names, not for the homeserver.
    localhost.serve_at("localhost");

    for world in [elsewhere, localhost] {
        let cause = world.cause().await;

        assert!(cause.contains("not valid for name"), "{cause}");
        assert_eq!(world.homeserver.count(USERINFO), 0);
    }
}

#[tokio::test]
async fn a_web_server_that_hangs_leaves_time_for_the_rest() {
    let world = World::start().await;
    world.serve_at("target.example");
    let settings = Settings {
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        timeout: Duration::from_secs(4),
        ..world.homeserver.settings()
    };
    let outbound = world.zone.outbound(settings, world.web.port());
    let world = World {
        federation: Federation::new(outbound, Arc::clone(&world.clock) as Arc<dyn Clock>),
        ..world
    };
    let slow = Answer::json(200, json!({})).after(HOUR);
    world.web.answer(WELL_KNOWN, slow);

    assert_eq!(world.ask().await, Ok(ALICE.to_owned()));
}

#[tokio::test]
async fn name_servers_that_hang_end_in_a_time_out() {
    let never: ResolveServices = Arc::new(|_| Box::pin(std::future::pending()));
    let nobody: Resolve =
        Arc::new(|_| Box::pin(async { Ok(vec![NOBODY.parse().expect("an address")]) }));
    let settings = Settings {
        timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let outbound = Outbound::new(settings)
        .unwrap()
        .with_resolver(nobody)
        .with_service_resolver(never);
    let federation = Federation::new(outbound, Arc::new(ManualClock::new(START)));

    let key = federation
        .public_key(&"hs.example".parse().unwrap(), "ed25519:1")
        .await;

    assert!(matches!(key, Err(Error::FederationTimeout(_))), "{key:?}");
}
