//! Short messages through gateways, that may be in any mood.

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use serde_json::{Value, json};
use threepid::{
    clock::Timestamp,
    courier::{
        Courier, DeliveryError, Message,
        sms::{GatewaySettings, Method, PRESETS, SmsCourier, SmsSettings, TIMEOUT},
    },
    threepid::Threepid,
};

use crate::support::{
    certificates, closed_port,
    gateway::{Answer, SmsGateway},
};

/// The time limit where a gateway does not answer.
const SHORT: Duration = Duration::from_secs(1);
const TEXT: &str = "123456 is your code.\nDo not tell anyone.";
const PASSWORD: &str = "hunter2";

fn message(text: &str) -> Message {
    Message {
        id: "message-1".to_owned(),
        at: Timestamp(1_795_341_600_000),
        subject: String::new(),
        text: text.to_owned(),
        html: String::new(),
        language: "en".to_owned(),
    }
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

/// A gateway of a preset, with all that any of them needs.
fn preset(server: &SmsGateway, preset: &str) -> GatewaySettings {
    let text = |text: &str| Some(text.to_owned());
    let (username, account, channel) = match preset {
        "twilio" => (text("AC123"), None, None),
        "vonage" => (text("key"), None, None),
        "messagebird" => (None, None, None),
        "bird" => (None, text("w-1"), text("c-1")),
        "ovhcloud" => (text("me"), text("sms-xx11111-1"), None),
        other => panic!("{other} is no preset"),
    };
    GatewaySettings {
        url: Some(server.url()),
        username,
        account,
        channel,
        password: Some(SecretString::from(PASSWORD)),
        ..GatewaySettings::preset("main", preset)
    }
}

/// A gateway of no vendor, that is sent JSON.
fn plain(server: &SmsGateway, name: &str) -> GatewaySettings {
    GatewaySettings {
        name: name.to_owned(),
        url: Some(format!("{}/send", server.url())),
        json: Some(json!({ "to": "{to}", "text": "{text}" })),
        ..GatewaySettings::default()
    }
}

fn settings(gateways: Vec<GatewaySettings>) -> SmsSettings {
    SmsSettings {
        gateways,
        sender: Some("Example".to_owned()),
        senders: BTreeMap::new(),
    }
}

fn courier(gateways: Vec<GatewaySettings>) -> SmsCourier {
    SmsCourier::new(&settings(gateways)).expect("the settings fit")
}

async fn deliver(courier: &SmsCourier) -> Result<String, DeliveryError> {
    deliver_text(courier, TEXT).await
}

async fn deliver_text(courier: &SmsCourier, text: &str) -> Result<String, DeliveryError> {
    let to = Threepid::msisdn("GB", "07700900001").expect("it is a number");
    courier.deliver(&to, &message(text)).await
}

#[expect(clippy::unnecessary_wraps, reason = "as the other two endings")]
fn accepted(outcome: &str) -> Result<String, DeliveryError> {
    Ok(outcome.to_owned())
}

fn transient(outcome: &str) -> Result<String, DeliveryError> {
    Err(DeliveryError::transient(outcome))
}

fn unsure(outcome: &str) -> Result<String, DeliveryError> {
    Err(DeliveryError::unsure(outcome))
}

fn permanent(outcome: &str) -> Result<String, DeliveryError> {
    Err(DeliveryError::permanent(outcome))
}

fn twilio_error(status: u16, code: u32) -> Answer {
    Answer::json(
        status,
        &json!({ "code": code, "message": "+447700900001 is wrong", "status": status }),
    )
}

fn vonage_answer(status: &str) -> Answer {
    let message = json!({ "to": "447700900001", "status": status, "error-text": "hunter2" });
    Answer::json(200, &json!({ "message-count": "1", "messages": [message] }))
}

/// How one message ends at a gateway of a preset that gives this answer.
async fn outcome(name: &str, answer: Answer) -> Result<String, DeliveryError> {
    let hangs = matches!(answer, Answer::Hang | Answer::HangInBody(_));
    let server = SmsGateway::start([answer]).await;
    let given = GatewaySettings {
        timeout: hangs.then_some(SHORT),
        ..preset(&server, name)
    };
    let ended = deliver(&courier(vec![given])).await;
    assert_eq!(server.asked().len(), 1, "{name} was asked once");
    ended
}

#[tokio::test]
async fn sms_twilio_is_asked_as_its_documentation_says() {
    let answer = Answer::json(
        201,
        &json!({ "sid": "SM1", "status": "queued", "error_code": null }),
    );
    let server = SmsGateway::start([answer]).await;

    let outcome = deliver(&courier(vec![preset(&server, "twilio")])).await;

    assert_eq!(outcome, accepted("main: 201"));
    let asked = server.asked_once();
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.path, "/2010-04-01/Accounts/AC123/Messages.json");
    assert_eq!(asked.header("authorization"), "Basic QUMxMjM6aHVudGVyMg==");
    assert_eq!(
        asked.form(),
        strings(&[("To", "+447700900001"), ("From", "Example"), ("Body", TEXT)])
    );
}

#[tokio::test]
async fn sms_twilio_takes_an_api_key_and_a_messaging_service() {
    let server = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let given = GatewaySettings {
        username: Some("SK9".to_owned()),
        account: Some("AC123".to_owned()),
        ..preset(&server, "twilio")
    };
    let courier = SmsCourier::new(&SmsSettings {
        sender: Some("MG0123".to_owned()),
        ..settings(vec![given])
    });

    deliver(&courier.unwrap()).await.unwrap();

    let asked = server.asked_once();
    assert_eq!(asked.path, "/2010-04-01/Accounts/AC123/Messages.json");
    assert_eq!(asked.header("authorization"), "Basic U0s5Omh1bnRlcjI=");
    assert_eq!(asked.form()["MessagingServiceSid"], "MG0123");
    assert!(!asked.form().contains_key("From"));
}

#[tokio::test]
async fn sms_twilio_refuses_numbers_by_its_code() {
    for (answer, ended) in [
        (twilio_error(400, 21211), permanent("main: 400 21211")),
        (twilio_error(400, 21610), permanent("main: 400 21610")),
        (twilio_error(400, 21614), permanent("main: 400 21614")),
        (twilio_error(400, 21606), transient("main: 400 21606")),
        (twilio_error(401, 20003), transient("main: 401 20003")),
        (twilio_error(404, 20404), transient("main: 404 20404")),
        (twilio_error(429, 20429), transient("main: 429 20429")),
        (twilio_error(503, 20503), transient("main: 503 20503")),
    ] {
        assert_eq!(outcome("twilio", answer).await, ended);
    }
}

#[tokio::test]
async fn sms_vonage_is_asked_as_its_documentation_says() {
    let server = SmsGateway::start([vonage_answer("0")]).await;
    let courier = courier(vec![preset(&server, "vonage")]);

    assert_eq!(deliver(&courier).await, accepted("main: 200"));
    deliver_text(&courier, "密码 123456").await.unwrap();

    let asked = server.asked();
    assert_eq!(asked[0].method, "POST");
    assert_eq!(asked[0].path, "/sms/json");
    let form = [
        ("api_key", "key"),
        ("api_secret", PASSWORD),
        ("from", "Example"),
        ("to", "447700900001"),
        ("text", TEXT),
        ("type", "text"),
        ("client-ref", "message-1"),
    ];
    assert_eq!(asked[0].form(), strings(&form));
    assert_eq!(asked[1].form()["type"], "unicode");
    assert_eq!(asked[1].form()["text"], "密码 123456");
}

#[tokio::test]
async fn sms_vonage_tells_its_errors_inside_of_a_success() {
    for (status, is_transient) in [
        ("1", true),
        ("2", true),
        ("3", false),
        ("4", true),
        ("5", true),
        ("6", false),
        ("7", false),
        ("8", true),
        ("9", true),
        ("15", true),
        ("33", false),
        ("99", true),
    ] {
        let ended = outcome("vonage", vonage_answer(status)).await.unwrap_err();
        assert_eq!(ended.transient, is_transient, "{status}");
        assert_eq!(ended.outcome, format!("main: 200 {status}"));
    }
}

#[tokio::test]
async fn sms_messagebird_is_asked_as_its_documentation_says() {
    let answer = Answer::json(
        201,
        &json!({ "id": "1", "recipients": { "totalCount": 1 } }),
    );
    let server = SmsGateway::start([answer]).await;

    let outcome = deliver(&courier(vec![preset(&server, "messagebird")])).await;

    assert_eq!(outcome, accepted("main: 201"));
    let asked = server.asked_once();
    assert_eq!(asked.path, "/messages");
    assert_eq!(asked.header("authorization"), "AccessKey hunter2");
    let form = [
        ("recipients", "447700900001"),
        ("originator", "Example"),
        ("body", TEXT),
        ("datacoding", "auto"),
        ("reference", "message-1"),
    ];
    assert_eq!(asked.form(), strings(&form));
}

#[tokio::test]
async fn sms_messagebird_refuses_numbers_by_the_parameter() {
    let error = |status, code: u32, parameter: Value| {
        let error = json!({ "code": code, "description": "no", "parameter": parameter });
        Answer::json(status, &json!({ "errors": [error] }))
    };
    for (answer, ended) in [
        (error(422, 9, json!("recipients")), permanent("main: 422 9")),
        (error(422, 9, json!("originator")), transient("main: 422 9")),
        (error(401, 2, json!("access_key")), transient("main: 401 2")),
        (error(402, 25, json!(null)), transient("main: 402 25")),
        (error(500, 99, json!(null)), transient("main: 500 99")),
    ] {
        assert_eq!(outcome("messagebird", answer).await, ended);
    }
}

#[tokio::test]
async fn sms_bird_is_asked_as_its_documentation_says() {
    let server = SmsGateway::start([Answer::json(202, &json!({ "status": "accepted" }))]).await;
    let courier = SmsCourier::new(&SmsSettings {
        sender: None,
        ..settings(vec![preset(&server, "bird")])
    });

    let outcome = deliver(&courier.unwrap()).await;

    assert_eq!(outcome, accepted("main: 202"));
    let asked = server.asked_once();
    assert_eq!(asked.path, "/workspaces/w-1/channels/c-1/messages");
    assert_eq!(asked.header("authorization"), "AccessKey hunter2");
    let contact = json!({ "identifierKey": "phonenumber", "identifierValue": "+447700900001" });
    assert_eq!(
        asked.json(),
        json!({
            "receiver": { "contacts": [contact] },
            "body": { "type": "text", "text": { "text": TEXT } },
            "reference": "message-1",
        })
    );
}

#[tokio::test]
async fn sms_bird_refuses_by_its_status() {
    let error =
        |status, code: &str| Answer::json(status, &json!({ "code": code, "message": "no" }));
    for (answer, ended) in [
        (
            error(422, "InvalidPayload"),
            permanent("main: 422 InvalidPayload"),
        ),
        (
            error(403, "AccessDenied"),
            transient("main: 403 AccessDenied"),
        ),
        (error(404, "NotFound"), transient("main: 404 NotFound")),
        (error(429, "too many of them"), transient("main: 429")),
    ] {
        assert_eq!(outcome("bird", answer).await, ended);
    }
}

#[tokio::test]
async fn sms_ovhcloud_is_asked_as_its_documentation_says() {
    let answer = json!({ "status": 100, "creditLeft": "1987", "SmsIds": ["10867690"] });
    let server = SmsGateway::start([Answer::json(200, &answer)]).await;
    let courier = courier(vec![preset(&server, "ovhcloud")]);

    assert_eq!(deliver(&courier).await, accepted("main: 200"));
    deliver_text(&courier, "Ключ & {to} 1").await.unwrap();

    let asked = server.asked();
    assert_eq!(asked[0].method, "GET");
    assert_eq!(asked[0].body, "");
    assert!(
        asked[0]
            .path
            .starts_with("/cgi-bin/sms/http2sms.cgi?account=sms-xx11111-1&")
    );
    let query = [
        ("account", "sms-xx11111-1"),
        ("login", "me"),
        ("password", PASSWORD),
        ("from", "Example"),
        ("to", "+447700900001"),
        ("message", &TEXT.replace('\n', "\r")),
        ("contentType", "application/json"),
        ("noStop", "1"),
        ("smsCoding", "1"),
    ];
    assert_eq!(asked[0].query(), strings(&query));
    assert_eq!(asked[1].query()["smsCoding"], "2");
    assert_eq!(asked[1].query()["message"], "Ключ & {to} 1");
}

#[tokio::test]
async fn sms_ovhcloud_tells_its_errors_inside_of_a_success() {
    for (status, ended) in [
        (101, accepted("main: 200")),
        (201, transient("main: 200 201")),
        (202, transient("main: 200 202")),
        (401, transient("main: 200 401")),
    ] {
        let answer = Answer::json(
            200,
            &json!({ "status": status, "message": "Missing login" }),
        );
        assert_eq!(outcome("ovhcloud", answer).await, ended);
    }
}

#[tokio::test]
async fn sms_a_gateway_of_any_vendor_that_tells_a_failure_is_tried_again() {
    for name in PRESETS {
        let elsewhere = SmsGateway::start([Answer::Say(201, "{}".to_owned())]).await;
        for (answer, ended) in [
            (
                Answer::Say(500, "<html>hunter2</html>".to_owned()),
                "main: 500",
            ),
            (Answer::Say(401, "{".to_owned()), "main: 401"),
            (Answer::Redirect(elsewhere.url()), "main: 307"),
            (Answer::HangInBody(503), "main: 503"),
            (Answer::Flood(500), "main: 500"),
            (Answer::BreakOff(500, "{".to_owned()), "main: 500"),
        ] {
            assert_eq!(outcome(name, answer).await, transient(ended), "{name}");
        }
        assert_eq!(elsewhere.asked().len(), 0, "{name}");
    }
}

#[tokio::test]
async fn sms_a_gateway_of_any_vendor_that_is_silent_may_have_sent_the_message() {
    for name in PRESETS {
        for (answer, ended) in [
            (Answer::Hang, "main: timed out"),
            (Answer::HangUp, "main: request: network error"),
        ] {
            assert_eq!(outcome(name, answer).await, unsure(ended), "{name}");
        }
    }
}

#[tokio::test]
async fn sms_a_success_without_its_json_counts_where_the_status_tells() {
    for answer in [
        Answer::Say(200, "<html>Welcome</html>".to_owned()),
        Answer::Say(200, String::new()),
        Answer::Say(200, "{\"messages\":[{\"sta".to_owned()),
        Answer::Say(200, "{}".to_owned()),
        Answer::HangInBody(200),
        Answer::BreakOff(200, "{\"status\":".to_owned()),
        Answer::Flood(200),
    ] {
        for (name, ended) in [
            ("twilio", accepted("main: 200")),
            ("vonage", unsure("main: 200")),
            ("ovhcloud", unsure("main: 200")),
        ] {
            assert_eq!(outcome(name, answer.clone()).await, ended, "{name}");
        }
    }
}

#[tokio::test]
async fn sms_the_next_gateway_is_asked_until_one_takes_the_message() {
    let first = SmsGateway::start([Answer::Say(401, String::new())]).await;
    let second = SmsGateway::start([Answer::Say(503, String::new())]).await;
    let third = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let fourth = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let courier = courier(vec![
        plain(&first, "first"),
        GatewaySettings {
            timeout: Some(Duration::from_secs(20)),
            ..plain(&second, "second")
        },
        plain(&third, "third"),
        plain(&fourth, "fourth"),
    ]);

    let outcome = deliver(&courier).await;

    assert_eq!(outcome, accepted("first: 401; second: 503; third: 201"));
    for server in [&first, &second, &third] {
        assert_eq!(
            server.asked_once().json(),
            json!({ "to": "447700900001", "text": TEXT })
        );
    }
    assert_eq!(fourth.asked().len(), 0);
    assert_eq!(courier.longest(), TIMEOUT * 3 + Duration::from_secs(20 + 1));
}

#[tokio::test]
async fn sms_after_a_gateway_that_falls_silent_the_next_one_is_asked() {
    for (answer, ended) in [
        (Answer::Hang, "first: timed out"),
        (Answer::HangUp, "first: request: network error"),
    ] {
        let first = SmsGateway::start([answer]).await;
        let second = SmsGateway::start([
            Answer::Say(503, String::new()),
            Answer::Say(201, String::new()),
        ])
        .await;
        let courier = courier(vec![
            GatewaySettings {
                timeout: Some(SHORT),
                ..plain(&first, "first")
            },
            plain(&second, "second"),
        ]);

        let none = deliver(&courier).await;
        let taken = deliver(&courier).await;

        assert_eq!(none, unsure(&format!("{ended}; second: 503")));
        assert_eq!(taken, accepted(&format!("{ended}; second: 201")));
    }
}

#[tokio::test]
async fn sms_a_gateway_that_can_not_be_reached_is_passed_over() {
    let (_nobody, closed) = closed_port();
    // It takes connections, and never says a word of TLS.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let last = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let at = |name: &str, url: String| GatewaySettings {
        url: Some(url),
        timeout: Some(SHORT),
        ..plain(&last, name)
    };
    let courier = courier(vec![
        at("gone", format!("http://{closed}/")),
        at("nameless", "https://gateway.invalid/".to_owned()),
        at("mute", format!("https://{}/", mute.local_addr().unwrap())),
        plain(&last, "last"),
    ]);

    let outcome = deliver(&courier).await.unwrap();

    assert!(outcome.starts_with("gone: connect: refused; nameless: connect: "));
    assert!(outcome.ends_with("; mute: connect: timed out; last: 201"));
    assert_eq!(last.asked().len(), 1);
}

#[tokio::test]
async fn sms_a_refusal_for_good_ends_the_search() {
    let first = SmsGateway::start([Answer::Say(503, String::new())]).await;
    let second = SmsGateway::start([Answer::Say(422, String::new())]).await;
    let third = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let courier = courier(vec![
        plain(&first, "first"),
        plain(&second, "second"),
        plain(&third, "third"),
    ]);

    assert_eq!(
        deliver(&courier).await,
        permanent("first: 503; second: 422")
    );
    assert_eq!(third.asked().len(), 0);
}

#[tokio::test]
async fn sms_a_gateway_that_is_not_there_is_told_by_its_phase() {
    let gone = SmsGateway::start([Answer::Hang]).await;
    let no_tls = SmsGateway::start([Answer::Hang]).await;
    let mut first = plain(&gone, "first");
    let (_nobody, closed) = closed_port();
    first.url = Some(format!("http://{closed}/"));
    let mut second = plain(&no_tls, "second");
    second.url = Some(no_tls.url().replace("http:", "https:"));
    let courier = courier(vec![first, second]);

    let outcome = deliver(&courier).await;
    let (told, greeted) = courier.greet().await;

    let failed = "first: connect: refused; second: TLS: handshake failed";
    assert_eq!(outcome, transient(failed));
    assert_eq!(greeted, Err(DeliveryError::transient(failed)));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("second: connected to 127.0.0.1:"));
}

#[tokio::test]
async fn sms_greeting_sends_no_message() {
    let server = SmsGateway::start([Answer::Hang]).await;
    let courier = courier(vec![preset(&server, "twilio")]);

    let (told, greeted) = courier.greet().await;

    assert_eq!(greeted, Ok(()));
    let address = server.url().replace("http://", "");
    assert_eq!(told, [format!("main: connected to {address}")]);
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test]
async fn sms_a_certificate_must_be_by_an_authority_that_is_trusted() {
    let server = SmsGateway::start_tls([Answer::Say(201, String::new())]).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let doubting = plain(&server, "main");
    let trusting = GatewaySettings {
        ca_files: vec![certificates::authority_in(folder.path())],
        ..doubting.clone()
    };
    let (trusting, doubting) = (courier(vec![trusting]), courier(vec![doubting]));

    assert_eq!(deliver(&trusting).await, accepted("main: 201"));
    assert_eq!(deliver(&trusting).await, accepted("main: 201"));
    let (told, greeted) = trusting.greet().await;
    let outcome = deliver(&doubting).await;

    assert_eq!(greeted, Ok(()));
    assert_eq!(told[1], "main: TLS, certificate trusted");
    let untrusted = "main: TLS: certificate not trusted";
    assert_eq!(outcome, transient(untrusted));
    assert_eq!(
        doubting.greet().await.1,
        Err(DeliveryError::transient(untrusted))
    );
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn sms_hostile_texts_stay_data() {
    let hostile = "\",\"to\":\"1\"}\\ {to} {{x}} & to=1 %26 + # 日本\r\n\u{0}";
    let server = SmsGateway::start([Answer::Say(200, String::new())]).await;
    let in_json = plain(&server, "json");
    let in_form = GatewaySettings {
        json: None,
        form: Some(strings(&[("to", "{to}"), ("text", "<{text}>")])),
        ..plain(&server, "form")
    };
    let in_url = GatewaySettings {
        json: None,
        method: Some(Method::Get),
        url: Some(format!(
            "{}/{{to_plus}}/send?x={{text}}&to={{to}}",
            server.url()
        )),
        ..plain(&server, "url")
    };

    for given in [in_json, in_form, in_url] {
        deliver_text(&courier(vec![given]), hostile).await.unwrap();
    }

    let asked = server.asked();
    assert_eq!(
        asked[0].json(),
        json!({ "to": "447700900001", "text": hostile })
    );
    assert_eq!(
        asked[1].form(),
        strings(&[("to", "447700900001"), ("text", &format!("<{hostile}>"))])
    );
    assert!(asked[2].path.starts_with("/%2B447700900001/send?x=%22%2C"));
    assert_eq!(
        asked[2].query(),
        strings(&[("x", hostile), ("to", "447700900001")])
    );
}

#[tokio::test]
async fn sms_the_sender_is_that_of_the_country() {
    let server = SmsGateway::start([vonage_answer("0")]).await;
    let courier = SmsCourier::new(&SmsSettings {
        senders: strings(&[("1", "+12025550100"), ("+44", "Britain"), ("CA", "Canada")]),
        ..settings(vec![preset(&server, "vonage")])
    });
    let courier = courier.unwrap();

    for (country, number) in [
        ("GB", "07911123456"),
        ("US", "2025550123"),
        ("CA", "6132350123"),
        ("FR", "0612345678"),
    ] {
        let to = Threepid::msisdn(country, number).unwrap();
        courier.deliver(&to, &message(TEXT)).await.unwrap();
    }

    let senders: Vec<_> = server
        .asked()
        .iter()
        .map(|asked| asked.form()["from"].clone())
        .collect();
    assert_eq!(senders, ["Britain", "+12025550100", "Canada", "Example"]);
}

#[tokio::test]
async fn sms_each_try_has_the_same_id() {
    let server = SmsGateway::start([
        Answer::Say(500, String::new()),
        Answer::Say(201, String::new()),
    ])
    .await;
    let courier = courier(vec![GatewaySettings {
        headers: strings(&[("Idempotency-Key", "{id}"), ("X-Api-Key", "{password}")]),
        password: Some(SecretString::from(PASSWORD)),
        ..plain(&server, "main")
    }]);

    deliver(&courier).await.unwrap_err();
    deliver(&courier).await.unwrap();

    for asked in server.asked() {
        assert_eq!(asked.header("idempotency-key"), "message-1");
        assert_eq!(asked.header("x-api-key"), PASSWORD);
    }
}

#[tokio::test]
async fn sms_what_a_vendor_says_is_not_told() {
    for code in [
        json!("447700900001"),
        json!("+447700900001"),
        json!("07700900001"),
        json!("123456"),
        json!("Do not tell anyone"),
        json!("x".repeat(33)),
    ] {
        let answer = Answer::json(400, &json!({ "code": code, "message": TEXT }));
        assert_eq!(
            outcome("twilio", answer).await,
            transient("main: 400"),
            "{code}"
        );
    }
}

#[tokio::test]
async fn sms_nothing_shows_a_secret() {
    let server = SmsGateway::start([Answer::Hang]).await;
    let given = GatewaySettings {
        headers: strings(&[("X-Key", "hunter2 {username}")]),
        url: Some(format!("{}/hunter2", server.url())),
        ..preset(&server, "twilio")
    };
    let whole = settings(vec![given]);

    let courier = SmsCourier::new(&whole).unwrap();
    let shown = format!("{whole:?} {courier:?} {:?}", courier.greet().await);

    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(
        shown.contains("main") && shown.contains("127.0.0.1"),
        "{shown}"
    );
    let written = toml::to_string(&GatewaySettings {
        headers: BTreeMap::new(),
        url: None,
        ..whole.gateways[0].clone()
    });
    assert!(!written.unwrap().contains(PASSWORD));
}

#[tokio::test]
async fn sms_a_mail_address_is_not_sent_to() {
    let server = SmsGateway::start([Answer::Hang]).await;
    let to = Threepid::email("alice@example.org").unwrap();

    let outcome = courier(vec![plain(&server, "main")])
        .deliver(&to, &message(TEXT))
        .await;

    assert_eq!(outcome, permanent("not a phone number"));
    assert_eq!(server.asked().len(), 0);
}

/// A gateway that has all it needs.
const GOOD: &str = "url = 'https://a.example/{to}'\nform = { x = '{text}' }\n";

fn gateway(text: &str) -> GatewaySettings {
    let read: GatewaySettings = toml::from_str(text).expect("the gateway can be read");
    GatewaySettings {
        name: "main".to_owned(),
        ..read
    }
}

#[test]
fn sms_a_gateway_can_be_written_in_toml() {
    let text = r#"
        url = "https://sms.example.org/v1/send?to={to}"
        method = "PUT"
        auth = "bearer"
        password = "hunter2"
        timeout = "2s"
        headers = { X-Message = "{id}" }
        json = { content = { text = "{text}", flash = false }, tags = ["a", 1] }
        accepted = ["202"]
        again = ["400-404"]
        never = ["4xx"]
        answer = [{ pointer = "/status", equals = ["0"], means = "accepted" }]
        code = "/error"
    "#;
    let read = gateway(text);

    assert_eq!(settings(vec![read.clone()]).check(), Ok(()));
    let written = toml::to_string(&read).unwrap();
    let again = GatewaySettings {
        password: read.password.clone(),
        ..gateway(&written)
    };
    assert_eq!(toml::to_string(&again).unwrap(), written);
    assert_eq!(courier(vec![again]).longest(), Duration::from_secs(3));
}

#[test]
fn sms_settings_that_can_not_be_read_say_what_to_write() {
    for (text, says) in [
        ("passwort = 'x'", "unknown field"),
        ("method = 'post'", "\"POST\""),
        ("auth = 'digest'", "\"bearer\""),
        ("timeout = '0s'", "\"10s\""),
        ("timeout = '1h'", "\"10s\""),
        ("timeout = '-1s'", "\"10s\""),
        ("timeout = 'soon'", "\"10s\""),
        (
            "answer = [{ pointer = '/a', equals = ['1'], means = 'maybe' }]",
            "\"never\"",
        ),
    ] {
        let refusal = toml::from_str::<GatewaySettings>(text).unwrap_err();
        assert!(refusal.to_string().contains(says), "{text}: {refusal}");
    }
}

#[test]
fn sms_settings_that_can_not_work_are_refused() {
    assert_eq!(settings(vec![gateway(GOOD)]).check(), Ok(()));
    for (text, says) in [
        ("", "main.url is missing"),
        ("preset = 'nobody'", "\"twilio\""),
        (
            "preset = 'twilio'",
            "main.username is missing; write it (the account SID",
        ),
        (
            "preset = 'vonage'\nusername = 'a'",
            "main.password is missing",
        ),
        (
            "preset = 'bird'\npassword = 'a'\naccount = 'b'",
            "main.channel is missing",
        ),
        (
            "preset = 'messagebird'\npassword = 'a'\nusername = 'b'",
            "username is not used",
        ),
        ("url = 'http://a.example/{to}{text}'", "https://"),
        ("url = 'ftp://a.example/{to}{text}'", "https://"),
        ("url = 'a.example/{to}{text}'", "whole URL"),
        ("url = 'https://{to}.example/{text}'", "before its path"),
        (
            "url = 'https://a:hunter2@a.example/{to}{text}'",
            "main.username",
        ),
        (
            "url = 'https://a.example/{to}/{account}/{text}'",
            "main.account is missing",
        ),
        ("url = 'https://a.example/{to}#{text}'", "#"),
        (
            "url = 'https://a.example/{hunter2}{text}'",
            "main.url has a placeholder that is not known; write one of {to} {to_plus}",
        ),
        (
            "url = 'https://a.example/{to}{text}'\nheaders = { X-Key = 'a{hunter2}' }",
            "main.headers.X-Key has a placeholder that is not known; write one of {to}",
        ),
        (
            "url = 'https://a.example/{to}{text}'\nform = { key = '{hunter2}' }",
            "main.form.key has a placeholder that is not known",
        ),
        ("url = 'https://a.example/{to}'", "no text"),
        ("url = 'https://a.example/{text}'", "no number"),
    ] {
        let refusal = settings(vec![gateway(text)]).check().unwrap_err();
        assert!(refusal.contains(says), "{text}: {refusal}");
        assert!(!refusal.contains(PASSWORD), "{refusal}");
    }
}

#[test]
fn sms_settings_that_contradict_each_other_are_refused() {
    for (text, says) in [
        (format!("{GOOD}method = 'GET'"), "method = \"POST\""),
        (format!("{GOOD}json = 1"), "both json and form"),
        (
            format!("{GOOD}password = 'hunter2'"),
            "password is not used",
        ),
        (format!("{GOOD}auth = 'bearer'"), "password is missing"),
        (
            format!("{GOOD}auth = 'basic'\npassword = 'a'\nusername = 'b:c'"),
            "colon",
        ),
        (
            format!("{GOOD}headers = {{ X = '{{text}}' }}"),
            "more than one line",
        ),
        (format!("{GOOD}headers = {{ Host = 'a' }}"), "X-Api-Key"),
        (format!("{GOOD}headers = {{ 'a b' = 'a' }}"), "X-Api-Key"),
        (format!("{GOOD}accepted = ['ok']"), "\"2xx\""),
        (format!("{GOOD}code = 'x'"), "/messages/0/status"),
        (
            format!("{GOOD}ca_files = ['/nonexistent/ca.pem']"),
            "can not be read",
        ),
    ] {
        let refusal = settings(vec![gateway(&text)]).check().unwrap_err();
        assert!(refusal.contains(says), "{text}: {refusal}");
        assert!(!refusal.contains(PASSWORD), "{refusal}");
    }
}

#[test]
fn sms_gateways_and_senders_must_fit_together() {
    const SIGNED: &str = "url = 'https://a.example/{to}?s={sender}'\nform = { x = '{text}' }\n";
    let named = |name: &str| GatewaySettings {
        name: name.to_owned(),
        ..gateway(SIGNED)
    };
    let no_sender = SmsSettings {
        sender: None,
        ..settings(vec![named("a")])
    };
    for (given, says) in [
        (settings(vec![]), "[sms.gateways.main]"),
        (settings(vec![named("a"), named("a")]), "a name of its own"),
        (settings(vec![named("a b")]), "\"main\""),
        (no_sender, "sms.sender is missing"),
    ] {
        let refusal = given.check().unwrap_err();
        assert!(refusal.contains(says), "{refusal}");
    }
}
