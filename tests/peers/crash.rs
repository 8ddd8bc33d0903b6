//! The process dies under load, as if the machine had lost its power, and starts again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    mails::{Arrivals, Arrived, code, link},
    server::{REGISTER, SUBMIT, Server, Site, asking, sid},
    smtp::{Script, SmtpServer},
};

/// How many clients ask at once.
const CLIENTS: usize = 12;
/// How many messages the default four workers hold at most, sixteen each: those may be sent again after a crash.
const UNDER_WAY: usize = 4 * 16;
/// How many requests of each round are repeated after the crash.
const REPEATED: usize = 40;

/// How often the server is killed in one test.
fn rounds() -> usize {
    match std::env::var_os("THREEPID_EXTENDED") {
        Some(_) => 60,
        None => 5,
    }
}

/// What one round of load was told.
#[derive(Default)]
struct Told {
    /// Addresses whose request was answered, and the `sid` that they were told.
    granted: BTreeMap<String, String>,
    /// Addresses whose request was not answered any more.
    unanswered: Vec<String>,
}

/// Asks for tokens with many clients, until the server is killed after `span`.
async fn load(server: Server, round: usize, span: Duration) -> Told {
    let server = Arc::new(server);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let server = Arc::clone(&server);
        clients.spawn(async move {
            let mut told = Told::default();
            for number in 0.. {
                let email = format!("u{number}.{client}.{round}@example.org");
                let Some((status, answer)) = server.try_post(REGISTER, &asking(&email)).await
                else {
                    told.unanswered.push(email);
                    break;
                };
                assert_eq!(status, 200, "{answer}");
                told.granted.insert(email, sid(&answer));
            }
            told
        });
    }
    sleep(span).await;
    server.signal("KILL").await;
    let mut all = Told::default();
    for mut told in clients.join_all().await {
        all.granted.append(&mut told.granted);
        all.unanswered.append(&mut told.unanswered);
    }
    all
}

/// Repeats requests as a client does that knows nothing of the crash.
async fn repeat(server: &Server, told: &mut Told) {
    let step = (told.granted.len() / REPEATED).max(1);
    for (email, first) in told.granted.iter().step_by(step) {
        assert_eq!(&server.ask(email).await, first, "{email}: another session");
    }
    for email in std::mem::take(&mut told.unanswered) {
        let sid = server.ask(&email).await;
        told.granted.insert(email, sid);
    }
}

/// The mails to each address.
fn sorted(mails: Vec<Arrived>) -> HashMap<String, Vec<Arrived>> {
    let mut by_address = HashMap::<_, Vec<_>>::new();
    for mail in mails {
        by_address.entry(mail.to.clone()).or_default().push(mail);
    }
    by_address
}

/// Proves each address by what its mail holds, turn about by link and by code; how many mails came twice.
async fn account(server: &Server, told: &Told, mails: &HashMap<String, Vec<Arrived>>) -> usize {
    let mut twice = 0;
    for (number, (email, sid)) in told.granted.iter().enumerate() {
        let copies = mails
            .get(email)
            .unwrap_or_else(|| panic!("{email}: no mail"));
        let text = &copies[0].text;
        let same = copies
            .iter()
            .all(|copy| copy.id == copies[0].id && &copy.text == text);
        assert!(same, "{email}: not copies of one message");
        twice += copies.len() - 1;
        if number % 2 == 0 {
            assert_eq!(server.press(link(text)).await, 200, "{email}");
            continue;
        }
        let shown =
            json!({ "sid": sid, "client_secret": "monkeys_are_GREAT", "token": code(text) });
        let (status, answer) = server.post(SUBMIT, &shown).await;
        assert_eq!(
            (status, answer),
            (200, json!({ "success": true })),
            "{email}"
        );
    }
    twice
}

async fn survive(name: &str, site: &Site, arrivals: &(impl Arrivals + ?Sized)) {
    let seed: u64 = rand::random();
    println!("{name}: seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for round in 0..rounds() {
        let span = Duration::from_millis(chance.random_range(100..900));
        let mut told = load(site.start().await, round, span).await;

        let server = site.start().await;
        server.settle().await;
        let before = arrivals.arrived().len();
        let unanswered = told.unanswered.len();
        repeat(&server, &mut told).await;
        server.settle().await;

        let mails = arrivals.arrived();
        assert!(
            mails.len() <= before + unanswered,
            "a repeated request sent again"
        );
        let twice = account(&server, &told, &sorted(mails)).await;
        println!(
            "{name}: killed after {span:?}: {} granted, {unanswered} unanswered, {twice} mails twice",
            told.granted.len()
        );
        assert!(twice <= UNDER_WAY, "{twice} mails were sent twice");
        server.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_granted_survives_kills_and_arrives_in_a_folder() {
    let site = Site::sending("file:mails");

    survive("file", &site, site.path("mails").as_path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_granted_survives_kills_and_arrives_at_a_relay() {
    let relay = SmtpServer::start(Script::default()).await;
    let site = Site::sending(&format!("smtp://{}?tls=none", relay.address()));

    survive("smtp", &site, &relay).await;
}
