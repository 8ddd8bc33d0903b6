//! What is written of the webhook's contract holds for what we send, and for what the example answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use threepid::{
    clock::Timestamp,
    error::Error,
    homeserver::{
        Accounts, Directory, Origin,
        registration::{NewAccount, Registrar},
        webhook::{SigningKey, Webhook},
    },
    password::NewPassword,
    secret::AccessToken,
    threepid::Threepid,
};

use crate::{
    support::openapi::{check, content, follow, response},
    webhook::sign_up,
    webhook_receiver::{Call, NOW, Receiver},
};

const PAGE: &str = include_str!("../../docs/webhook.md");
const PASSWORD: &str = "correct horse";

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/webhook.openapi.json")).expect("JSON")
}

/// What was sent has all its keys described, and the answer its shape.
fn check_call(document: &Value, call: &Call) -> Result<(), String> {
    let operation = &document["paths"][call.verb()]["post"];
    let schema = &content(document, &operation["requestBody"])["schema"];
    check(document, schema, &call.body)?;
    for key in call
        .body
        .as_object()
        .into_iter()
        .flat_map(|body| body.keys())
    {
        if schema["properties"].get(key).is_none() && schema["$ref"].is_null() {
            return Err(format!("{}: {key} is not described", call.verb()));
        }
    }
    let (status, body) = call.answer.as_ref().ok_or("no answer")?;
    check(
        document,
        &response(document, operation, *status)["schema"],
        body,
    )
}

/// Makes each call with success, and with each refusal that the example knows.
async fn call_all(webhook: &Webhook) -> Result<(), Error> {
    let origin = Origin::default();
    let token = sign_up(webhook, "alice").await;
    sign_up(webhook, "bob").await;
    let (alice, bob) = ("@alice:example.org", "@bob:example.org");
    let email = Threepid::email("a@example.org")?;
    for user_id in [alice, bob, "@absent:example.org"] {
        let bound = webhook.bind(user_id, &email, Some(Timestamp(NOW)), Timestamp(NOW));
        let _ = bound.await;
    }
    webhook.owner(&email).await?;
    webhook.list(alice).await?;
    Directory::unbind(webhook, alice, &email).await?;
    webhook.owner(&email).await?;
    let _ = webhook
        .whoami(&AccessToken::parse("unknown")?, &origin)
        .await;
    let requester = webhook.whoami(&token, &origin).await?;
    let password = json!({ "type": "m.login.password", "password": "wonderland" });
    for auth in [None, Some(json!({})), Some(password)] {
        let asked = webhook.reauth(&requester, auth.as_ref(), &origin);
        asked.await?;
    }
    webhook.is_suspended(alice).await?;
    webhook.password_policy().await?;
    for user_id in [alice, "@absent:example.org"] {
        for password in [PASSWORD, "short"] {
            let new = NewPassword::parse(password)?;
            let _ = webhook.reset_password(user_id, &new, true).await;
        }
    }
    for query in ["username=alice", "username=carol"] {
        webhook.available(query, &origin).await?;
    }
    let params = json!({ "username": "alice", "password": PASSWORD });
    for op_id in ["alice", "another"] {
        let account = NewAccount {
            session: "s",
            op_id,
            params: params.as_object().expect("an object"),
            threepids: std::slice::from_ref(&email),
            last: None,
        };
        webhook.finish(account, &origin).await?;
        webhook.made(account).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_call_and_every_answer_is_as_the_document_describes_it() {
    let receiver = Receiver::start().await;
    let document = document();

    call_all(&receiver.webhook()).await.unwrap();

    let seen = receiver.seen();
    for call in &seen {
        let fits = check_call(&document, call);
        assert_eq!(fits, Ok(()), "{} {:?}", call.path, call.answer);
    }
    let called: BTreeSet<_> = seen.iter().map(Call::verb).collect();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<_> = paths.keys().map(String::as_str).collect();
    assert_eq!(called, described);
    let told = seen.iter().filter_map(|call| call.answer.as_ref());
    let statuses: BTreeSet<_> = told.map(|(status, _)| *status).collect();
    for status in [200, 400, 401, 404, 409] {
        assert!(statuses.contains(&status), "{status}");
    }
}

#[test]
fn every_example_in_the_document_has_the_shape_that_it_is_an_example_of() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        let operation = &item["post"];
        let mut parts = vec![&operation["requestBody"]];
        parts.extend(operation["responses"].as_object().unwrap().values());
        for part in parts {
            let content = content(&document, part);
            if content.is_null() {
                assert_eq!(part["$ref"], "#/components/responses/NotThere", "{path}");
                continue;
            }
            let fits = check(&document, &content["schema"], &content["example"]);
            assert_eq!(fits, Ok(()), "{path}");
        }
    }
}

#[test]
fn the_document_says_what_may_be_absent_and_that_every_call_is_signed() {
    let document = document();
    let mut optional = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let operation = &item["post"];
        let signature = follow(&document, &operation["parameters"][0]);
        assert_eq!(signature["name"], "X-Threepid-Signature", "{path}");
        for status in ["200", "401", "429", "5XX"] {
            assert!(!operation["responses"][status].is_null(), "{path} {status}");
        }
        if operation["x-optional"] == true {
            optional.push(path.as_str());
        }
        let name = path.rsplit('/').next().unwrap();
        assert!(PAGE.contains(&format!("{name}`")), "{path} is on the page");
    }
    let may_be_absent = ["available", "is_suspended", "password_policy"];
    assert_eq!(
        optional,
        may_be_absent.map(|name| format!("/account/{name}"))
    );
}

#[test]
fn the_worked_example_of_a_signature_is_right() {
    let told = |what: &str| {
        let mut lines = PAGE.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{what:<8}")));
        line.unwrap_or_else(|| panic!("the page tells no {what}"))
    };

    let key = SigningKey::parse(told("key")).unwrap();
    let (seconds, path, body) = (told("t"), told("path"), told("body"));
    let header = key.sign(seconds.parse().unwrap(), path, body.as_bytes());

    assert_eq!(told("header"), header);
    assert_eq!(told("signed"), format!("{seconds}.{path}.{body}"));
    let document = document();
    let parameter = &document["components"]["parameters"]["Signature"];
    assert_eq!(parameter["example"], header);
}
