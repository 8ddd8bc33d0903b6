//! What an operator sees of invitations, and what the database shows.

use std::{fs, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use serde_json::Value;
use threepid::{Builder, clock::Clock, limits, store::Outbox};

use crate::{identity_invite_mail::*, identity_invites::*, support::app::*};

#[tokio::test]
async fn an_operator_sees_the_mail_masked_retries_it_and_drops_it() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    invited(&app, &alice_by_bob()).await;
    let entry = newest(&app).await;
    assert_eq!(
        (entry.kind.as_str(), entry.to.as_str(), entry.state),
        ("invite", "a…@e….org", "queued")
    );
    app.threepid.deliver_due().await.unwrap();
    assert!(app.store.retry(entry.id, app.clock.now()).await.unwrap());
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(relay.taken.messages().len(), 2);

    assert!(
        app.store
            .drop_message(entry.id, app.clock.now())
            .await
            .unwrap()
    );

    assert_eq!((newest(&app).await.state, sealed(&app)), ("dropped", 0));
}

#[tokio::test]
async fn an_operator_sees_invitations_masked_newest_first() {
    let app = TestApp::identity(|_| {});
    invited(&app, &alice_by_bob()).await;
    app.wait(Duration::from_secs(1));
    invited(&app, &of("carol@example.org")).await;

    let entries = entries(&app).await;

    assert_eq!(
        entries.iter().map(|entry| &*entry.to).collect::<Vec<_>>(),
        ["c…@e….org", "a…@e….org"]
    );
    let entry = &entries[1];
    assert_eq!(
        (entry.room_id.as_str(), entry.sender.as_str(), entry.state),
        ("!room:example.net", BOB, "open")
    );
    assert_eq!(entry.id.len(), 32);
}

#[tokio::test]
async fn the_database_shows_neither_token_nor_key_nor_names() {
    let app = TestApp::identity(|_| {});
    let body = invited(&app, &alice_by_bob()).await;
    let files = |app: &TestApp| {
        let files = fs::read_dir(app.dir()).unwrap();
        let read = |file: std::io::Result<fs::DirEntry>| fs::read(file.unwrap().path()).unwrap();
        files.map(read).collect::<Vec<_>>().concat()
    };
    let before = files(&app);

    let mail = app.mail().await;

    let after = files(&app);
    let key = private_key(&mail);
    let seed = STANDARD_NO_PAD.decode(&key).unwrap();
    let token = body["token"].as_str().unwrap();
    let raw = URL_SAFE_NO_PAD.decode(token).unwrap();
    for stored in [&before, &after] {
        let has = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
        assert!(has(b"!room:example.net"), "the invitation is there");
        for part in [token.as_bytes(), &raw, key.as_bytes(), &seed, b"Emporium"] {
            assert!(!has(part));
        }
    }
}

/// An identity server whose invitations live longer than the clock of this machine may be wrong.
fn long_lived(builder: Builder) -> Builder {
    let builder = builder.limits(limits::Settings::OFF);
    with_identity(builder, |settings| {
        settings.invite_lifetime = Duration::from_hours(24 * 36_500);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_and_withdraws() {
    let app = TestApp::with(long_lived);
    let database = format!("sqlite:{}", app.dir().join("threepid.db").display());
    let dir = crate::cli::empty();
    let run = |arguments: &[&str]| {
        let mut command = crate::cli::threepid(&dir, arguments);
        command.env("THREEPID__STORAGE__URL", &database);
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    assert_eq!(
        run(&["invites", "list"]),
        (Some(0), "No invitations.\n".to_owned())
    );
    let body = invited(&app, &alice_by_bob()).await;
    let (_, listed) = run(&["invites", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(listed[0]["to"], "a…@e….org");

    let (status, text) = run(&["invites", "withdraw", id]);

    assert_eq!(status, Some(0), "{text}");
    assert!(!is_valid(&app, &body["public_keys"][1]).await);
    let (_, table) = run(&["invites", "list"]);
    assert!(
        table.contains("withdrawn") && table.contains(BOB),
        "{table}"
    );
    let (_, messages) = run(&["outbox", "list"]);
    assert!(
        messages.contains("invite") && messages.contains("dropped"),
        "{messages}"
    );
    for unknown in [id, "00", "zz", &"é".repeat(16)] {
        let (status, text) = run(&["invites", "withdraw", unknown]);
        assert_eq!(status, Some(1));
        assert!(text.contains("threepid invites list"), "{text}");
    }
}
