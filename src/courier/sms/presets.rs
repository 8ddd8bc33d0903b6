//! What is known of some vendors, as values: the operator gives the rest.

use std::collections::BTreeMap;

use super::settings::{AnswerRule, Auth, GatewaySettings, Means, Method};

/// The presets: Bird (Channels API), MessageBird (SMS API), OVHcloud (`http2sms`), Twilio (Messages resource), Vonage
/// (SMS API).
pub const PRESETS: [&str; 5] = ["bird", "messagebird", "ovhcloud", "twilio", "vonage"];

/// A vendor.
struct Preset {
    /// Scheme and host, which `url` replaces.
    base: &'static str,
    /// Path and query.
    path: &'static str,
    settings: GatewaySettings,
}

/// The whole description of a gateway: the preset's, if there is one, with what the operator gave put over it.
///
/// # Errors
/// If the preset is not known: which there are.
pub(super) fn complete(given: &GatewaySettings, at: &str) -> Result<GatewaySettings, String> {
    let Some(name) = given.preset.as_deref() else {
        return Ok(given.clone());
    };
    let preset = match name {
        "bird" => bird(),
        "messagebird" => messagebird(),
        "ovhcloud" => ovhcloud(),
        "twilio" => twilio(),
        "vonage" => vonage(),
        _ => {
            return Err(format!(
                "{at}.preset {name:?} is not known; write one of {}, or describe the gateway without a preset",
                PRESETS.map(|name| format!("{name:?}")).join(", ")
            ));
        }
    };
    let mut whole = over(given.clone(), preset);
    if name == "twilio" && whole.account.is_none() {
        whole.account.clone_from(&whole.username);
    }
    Ok(whole)
}

fn over(given: GatewaySettings, preset: Preset) -> GatewaySettings {
    let usual = preset.settings;
    let base = given.url.as_deref().unwrap_or(preset.base);
    let has_body = given.json.is_some() || given.form.is_some();
    let mut headers = usual.headers;
    headers.extend(given.headers);
    let mut answer = given.answer;
    answer.extend(usual.answer);
    GatewaySettings {
        url: Some(format!("{}{}", base.trim_end_matches('/'), preset.path)),
        method: given.method.or(usual.method),
        headers,
        auth: given.auth.or(usual.auth),
        json: given.json.or(usual.json.filter(|_| !has_body)),
        form: given.form.or(usual.form.filter(|_| !has_body)),
        accepted: given.accepted.or(usual.accepted),
        again: given.again.or(usual.again),
        never: given.never.or(usual.never),
        answer,
        code: given.code.or(usual.code),
        ..given
    }
}

/// What the operator is asked for, where a setting has another name at the vendor.
pub(super) fn hint(preset: Option<&str>, field: &str) -> &'static str {
    match (preset, field) {
        (Some("twilio"), "username") => " (the account SID, or the SID of an API key)",
        (Some("twilio"), "password") => " (the auth token, or the secret of the API key)",
        (Some("vonage"), "username") => " (the API key)",
        (Some("vonage"), "password") => " (the API secret)",
        (Some("messagebird" | "bird"), "password") => " (the access key)",
        (Some("bird"), "account") => " (the id of the workspace)",
        (Some("bird"), "channel") => " (the id of the SMS channel)",
        (Some("ovhcloud"), "account") => " (the SMS account, as sms-xx11111-1)",
        (Some("ovhcloud"), "username") => " (the SMS user of that account)",
        (Some("ovhcloud"), "password") => " (the password of the SMS user)",
        _ => "",
    }
}

/// Twilio, "Messages resource". A refusal has a `code` of its error dictionary; only those about the number or the
/// text are for good, all others may be about this account.
fn twilio() -> Preset {
    // Not a number, not routable anywhere, has unsubscribed, no mobile phone; text empty or too long.
    let never = [
        "21211", "21214", "21217", "21610", "21614", "21602", "21617",
    ];
    Preset {
        base: "https://api.twilio.com",
        path: "/2010-04-01/Accounts/{account}/Messages.json",
        settings: GatewaySettings {
            auth: Some(Auth::Basic),
            form: pairs(&[
                ("To", "{to_plus}"),
                ("{sender_key}", "{sender}"),
                ("Body", "{text}"),
            ]),
            never: Some(Vec::new()),
            answer: vec![rule("/code", &never, Means::Never)],
            code: Some("/code".to_owned()),
            ..GatewaySettings::default()
        },
    }
}

/// Vonage, "SMS API". It answers 200 to everything it understands, with the outcome inside.
fn vonage() -> Preset {
    // Invalid parameters or message, barred number, too long, invalid network, number no longer in use.
    let never = ["3", "6", "7", "12", "22", "33"];
    Preset {
        base: "https://rest.nexmo.com",
        path: "/sms/json",
        settings: GatewaySettings {
            form: pairs(&[
                ("api_key", "{username}"),
                ("api_secret", "{password}"),
                ("from", "{sender}"),
                ("to", "{to}"),
                ("text", "{text}"),
                ("type", "{type}"),
                ("client-ref", "{id}"),
            ]),
            accepted: Some(Vec::new()),
            never: Some(Vec::new()),
            answer: vec![
                rule("/messages/0/status", &["0"], Means::Accepted),
                rule("/messages/0/status", &never, Means::Never),
            ],
            code: Some("/messages/0/status".to_owned()),
            ..GatewaySettings::default()
        },
    }
}

/// MessageBird, "SMS API". What it refuses for good is about the recipients; the sender may do at another gateway.
fn messagebird() -> Preset {
    Preset {
        base: "https://rest.messagebird.com",
        path: "/messages",
        settings: GatewaySettings {
            headers: strings(&[
                ("Authorization", "AccessKey {password}"),
                ("Accept", "application/json"),
            ]),
            form: pairs(&[
                ("recipients", "{to}"),
                ("originator", "{sender}"),
                ("body", "{text}"),
                ("datacoding", "auto"),
                ("reference", "{id}"),
            ]),
            never: Some(Vec::new()),
            answer: vec![rule(
                "/errors/0/parameter",
                &["recipient", "recipients"],
                Means::Never,
            )],
            code: Some("/errors/0/code".to_owned()),
            ..GatewaySettings::default()
        },
    }
}

/// Bird, "Channels API", sending SMS messages. The sender is the number of the channel.
fn bird() -> Preset {
    let body = serde_json::json!({
        "receiver": {
            "contacts": [{ "identifierKey": "phonenumber", "identifierValue": "{to_plus}" }],
        },
        "body": { "type": "text", "text": { "text": "{text}" } },
        "reference": "{id}",
    });
    Preset {
        base: "https://api.bird.com",
        path: "/workspaces/{account}/channels/{channel}/messages",
        settings: GatewaySettings {
            headers: strings(&[
                ("Authorization", "AccessKey {password}"),
                ("Accept", "application/json"),
            ]),
            json: Some(body),
            // 400 and 404 are also said of a workspace or a channel that is not there.
            never: Some(vec!["422".to_owned()]),
            code: Some("/code".to_owned()),
            ..GatewaySettings::default()
        },
    }
}

/// OVHcloud, "Sending SMS messages via a URL - http2sms": it needs a login and no signature. It answers 200 to
/// everything, with a status inside: 1xx for what it took.
fn ovhcloud() -> Preset {
    Preset {
        base: "https://www.ovh.com",
        path: concat!(
            "/cgi-bin/sms/http2sms.cgi?account={account}&login={username}&password={password}",
            "&from={sender}&to={to_plus}&message={text_cr}",
            "&contentType=application/json&noStop=1&smsCoding={coding}"
        ),
        settings: GatewaySettings {
            method: Some(Method::Get),
            accepted: Some(Vec::new()),
            never: Some(Vec::new()),
            answer: vec![rule("/status", &["100", "101"], Means::Accepted)],
            code: Some("/status".to_owned()),
            ..GatewaySettings::default()
        },
    }
}

fn rule(pointer: &str, equals: &[&str], means: Means) -> AnswerRule {
    AnswerRule {
        pointer: pointer.to_owned(),
        equals: equals.iter().map(|text| (*text).to_owned()).collect(),
        means,
    }
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "a form may be missing")]
fn pairs(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(strings(pairs))
}
