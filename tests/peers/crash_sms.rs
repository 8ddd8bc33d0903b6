//! The process dies while it sends text messages, and starts again.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    gateway::{Answer, SmsGateway},
    server::{Server, Site, sid},
};

const REGISTER: &str = "/_matrix/client/v3/register/msisdn/requestToken";
const SUBMIT: &str = "/_threepid/msisdn/submitToken";
/// How many clients ask at once.
const CLIENTS: usize = 8;
/// How many messages the default four workers hold at most, sixteen each: those may be sent again after a crash.
const UNDER_WAY: usize = 4 * 16;
/// How long each of the servers lives under load.
const LIVES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(800),
];

/// A site without ceilings, whose text messages go to `gateway`.
fn site(gateway: &SmsGateway) -> Site {
    let site = Site::new().set("server.public_url", "https://matrix.example.org");
    let site = site.set("server.trusted_proxies", "127.0.0.1");
    let url = gateway.url();
    let config = format!(
        "[sms]\ntransport = ['main']\n[sms.gateways.main]\nurl = '{url}/send'\n\
         json = {{ to = '{{to}}', text = '{{text}}', id = '{{id}}' }}\n"
    );
    fs::write(site.path("threepid.toml"), config).expect("the folder can be written");
    site
}

fn asking(number: &str) -> Value {
    json!({ "client_secret": "monkeys_are_GREAT", "country": "GB", "phone_number": format!("+{number}"), "send_attempt": 1 })
}

/// Asks for tokens with many clients, until the server is killed after `span`: the numbers whose request was answered,
/// and the `sid` that they were told.
async fn load(server: Server, round: usize, span: Duration) -> BTreeMap<String, String> {
    let server = Arc::new(server);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let server = Arc::clone(&server);
        clients.spawn(async move {
            let mut granted = BTreeMap::new();
            for asked in 0.. {
                let number = format!("447{round}{client:02}{asked:06}");
                let Some((status, answer)) = server.try_post(REGISTER, &asking(&number)).await
                else {
                    break;
                };
                assert_eq!(status, 200, "{answer}");
                granted.insert(number, sid(&answer));
            }
            granted
        });
    }
    sleep(span).await;
    server.signal("KILL").await;
    clients.join_all().await.into_iter().flatten().collect()
}

/// What the gateway took, by number.
fn sent(gateway: &SmsGateway) -> HashMap<String, Vec<Value>> {
    let mut by_number = HashMap::<_, Vec<_>>::new();
    for message in gateway.asked() {
        let message = message.json();
        let to = message["to"].as_str().expect("a number").to_owned();
        by_number.entry(to).or_default().push(message);
    }
    by_number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_granted_survives_kills_and_arrives_at_a_gateway() {
    let gateway = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let site = site(&gateway);
    for (round, span) in LIVES.into_iter().enumerate() {
        let granted = load(site.start().await, round, span).await;

        let server = site.start().await;
        server.settle().await;

        let (sent, mut twice) = (sent(&gateway), 0);
        for (number, sid) in &granted {
            let copies = sent.get(number);
            let copies = copies.unwrap_or_else(|| panic!("{number}: no message"));
            assert!(copies.iter().all(|copy| copy == &copies[0]), "{number}");
            twice += copies.len() - 1;
            let code = copies[0]["text"].as_str().and_then(|text| text.get(..6));
            let shown = json!({ "sid": sid, "client_secret": "monkeys_are_GREAT", "token": code });
            let submitted = server.post(SUBMIT, &shown).await;
            assert_eq!(submitted, (200, json!({ "success": true })), "{number}");
        }
        println!(
            "killed after {span:?}: {} granted, {twice} messages twice",
            granted.len()
        );
        assert!(!granted.is_empty() && twice <= UNDER_WAY, "{twice} twice");
        server.kill().await;
    }
}
