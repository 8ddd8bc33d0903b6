//! The forms in which a request for an account may be written, and what answers mean.

use http::StatusCode;
use serde_json::Value;

use super::call::Reply;
use crate::homeserver::registration::Requires;

pub(super) const EMAIL: &str = "m.login.email.identity";
pub(super) const MSISDN: &str = "m.login.msisdn";
pub(super) const REGISTRATION_TOKEN: &str = "m.login.registration_token";

/// Where clients sign up (Client-Server API, "Account registration"), today's path first.
pub(super) const PATHS: [&str; 4] = [
    "/_matrix/client/v3/register",
    "/_matrix/client/r0/register",
    "/_matrix/client/unstable/register",
    "/_matrix/client/api/v1/register",
];

/// Other ways to write these, which one program on the way may understand and the next one not. None of them asks for a
/// guest: that would make one.
pub(super) const ODD: &[&str] = &[
    "/_matrix/client/v3/register?kind=user",
    "/_matrix/client/v3/%72egister",
    "/_matrix/client/v3/registe%72",
    "/_matrix/client/v3/%72%65%67%69%73%74%65%72",
    "/_matrix/client/%763/register",
    "/_matrix/%63lient/v3/register",
    "/%5Fmatrix/client/v3/register",
    "/%5fmatrix/client/v3/register",
    "/_matrix/client/v3/%2572egister",
    "/_matrix/client/v3%2Fregister",
    "/_matrix/client%2fv3/register",
    "/_matrix/client/v3/register%2F",
    "//_matrix/client/v3/register",
    "/_matrix//client/v3/register",
    "/_matrix/client//v3/register",
    "/_matrix/client/v3//register",
    "/_matrix/client/v3/register/",
    "/_matrix/client/v3/register//",
    "/_matrix/client/v3/register/.",
    "/_matrix/client/v3/register/%2e",
    "/_matrix/client/v3/register/x/..",
    "/_matrix/client/v3/./register",
    "/_matrix/client/v3/%2e/register",
    "/_matrix/client/v3/login/../register",
    "/_matrix/client/v3/login/%2e%2e/register",
    "/_matrix/client/v3/login/.%2E/register",
    "/_matrix/client/v3/login/..%2fregister",
    "/_matrix/client/r0/../v3/register",
    "/_matrix/media/../client/v3/register",
    "/_matrix/media/%2e%2e/client/v3/register",
    "/_matrix/client/v3/register;x",
    "/_matrix/client/v3/register%3bx",
    "/_matrix/client/v3/register%20",
    "/_matrix/client/v3/register%00",
    "/_matrix/client/v3/register%3F",
    "/_matrix/client/v3/REGISTER",
    "/_matrix/client/V3/register",
    "/_matrix/client/r0/%72egister",
    "/_matrix/client/r0//register",
    "/_matrix/client/r0/register/",
    "/_matrix/client/unstable/%72egister",
    "/_matrix/client/unstable//register",
    "/_matrix/client/unstable/register/",
    "/_matrix/client/api/v1/%72egister",
    "/_matrix/client/api//v1/register",
    "/_matrix/client/api%2Fv1/register",
    "/_matrix/client/api/v1/register/",
    "/_matrix/client/v1/register",
    "/_matrix/client/v2_alpha/register",
];

/// What a server makes of a request for an account that shows no stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// There are these ways to sign up, each of several stages.
    Ways(Vec<Vec<String>>),
    /// Nobody signs up.
    Closed,
    /// An account was made, without any stage.
    Made,
    /// It is no request for an account there: the answer's status and `errcode`.
    NotHere(String),
    /// That can not be told now: the same.
    NotNow(String),
}

impl Said {
    pub(super) fn of(reply: &Reply) -> Self {
        let errcode = reply.body.get("errcode").and_then(Value::as_str);
        let told = format!(
            "{} {}",
            reply.status.as_u16(),
            plain(errcode.unwrap_or_default())
        );
        let told = told.trim_end().to_owned();
        let flows = reply.body.get("flows").and_then(Value::as_array);
        match (reply.status, flows) {
            (StatusCode::UNAUTHORIZED, Some(flows)) => {
                Self::Ways(flows.iter().map(stages).collect())
            }
            (StatusCode::FORBIDDEN, _) if errcode == Some("M_FORBIDDEN") => Self::Closed,
            (status, _) if status.is_success() && reply.body.get("user_id").is_some() => Self::Made,
            (StatusCode::TOO_MANY_REQUESTS, _) => Self::NotNow(told),
            (status, _) if status.is_server_error() => Self::NotNow(told),
            _ => Self::NotHere(told),
        }
    }
}

fn stages(flow: &Value) -> Vec<String> {
    let stages = flow.get("stages").and_then(Value::as_array);
    let names = stages.into_iter().flatten().filter_map(Value::as_str);
    names.map(plain).collect()
}

/// A server's word as it may be shown: short, and nothing that a terminal would obey.
fn plain(text: &str) -> String {
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
    text.chars().filter(is_plain).take(60).collect()
}

/// Whether a way asks for what a new account must have proved.
pub(super) fn proves(way: &[String], requires: Requires) -> bool {
    let has = |stage: &str| way.iter().any(|own| own == stage);
    match requires {
        Requires::Any => has(EMAIL) || has(MSISDN),
        Requires::Email => has(EMAIL),
        Requires::Msisdn => has(MSISDN),
        Requires::Both => has(EMAIL) && has(MSISDN),
        Requires::Nothing => true,
    }
}

/// Whether a way asks for a registration token.
pub(super) fn wants_token(way: &[String]) -> bool {
    way.iter().any(|stage| stage == REGISTRATION_TOKEN)
}

/// Ways as they are told to an operator.
pub(super) fn listed(ways: &[Vec<String>]) -> String {
    if ways.iter().all(Vec::is_empty) {
        return "nothing at all".to_owned();
    }
    let ways: Vec<_> = ways.iter().map(|way| way.join(" and ")).collect();
    ways.join(", or ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(status: u16, body: Value) -> Said {
        let status = StatusCode::from_u16(status).unwrap();
        Said::of(&Reply { status, body })
    }

    #[test]
    fn an_answer_says_how_people_sign_up() {
        let flows = json!({ "flows": [{ "stages": ["m.login.terms", 7, "\u{1b}[31mx"] }, 3] });
        let ways = vec![vec!["m.login.terms".to_owned(), "31mx".to_owned()], vec![]];
        let error = |errcode: &str| json!({ "errcode": errcode });
        for (status, body, meant) in [
            (401, flows.clone(), Said::Ways(ways)),
            (400, flows, Said::NotHere("400".to_owned())),
            (
                401,
                error("M_MISSING_TOKEN"),
                Said::NotHere("401 M_MISSING_TOKEN".to_owned()),
            ),
            (403, error("M_FORBIDDEN"), Said::Closed),
            (403, json!("<html>"), Said::NotHere("403".to_owned())),
            (200, json!({ "user_id": "@a:b" }), Said::Made),
            (200, Value::Null, Said::NotHere("200".to_owned())),
            (308, Value::Null, Said::NotHere("308".to_owned())),
            (
                404,
                error("M_UNRECOGNIZED\n"),
                Said::NotHere("404 M_UNRECOGNIZED".to_owned()),
            ),
            (
                429,
                error("M_LIMIT_EXCEEDED"),
                Said::NotNow("429 M_LIMIT_EXCEEDED".to_owned()),
            ),
            (502, Value::Null, Said::NotNow("502".to_owned())),
        ] {
            assert_eq!(said(status, body.clone()), meant, "{status} {body}");
        }
    }

    #[test]
    fn a_way_proves_what_is_required() {
        let ways = [
            &[][..],
            &[EMAIL],
            &[MSISDN],
            &[EMAIL, MSISDN],
            &["m.login.dummy"],
        ];
        for (requires, meant) in [
            (Requires::Any, [false, true, true, true, false]),
            (Requires::Email, [false, true, false, true, false]),
            (Requires::Msisdn, [false, false, true, true, false]),
            (Requires::Both, [false, false, false, true, false]),
            (Requires::Nothing, [true; 5]),
        ] {
            let owned = |way: &[&str]| way.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(
                ways.map(|way| proves(&owned(way), requires)),
                meant,
                "{requires:?}"
            );
        }
    }

    #[test]
    fn no_form_asks_for_a_guest() {
        assert!(ODD.iter().chain(&PATHS).all(|form| !form.contains("guest")));
    }
}
