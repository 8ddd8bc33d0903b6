//! Whether people can sign up through threepid, and through nothing else: what the homeserver itself says.

use std::slice;

use serde_json::Value;
use url::Url;

use super::{
    Found,
    call::{Caller, Reply},
    forms::{EMAIL, MSISDN, PATHS, Said, listed, wants_token},
    outside,
};
use crate::{
    config::{Config, HomeserverKind, RegistrationWay},
    homeserver::registration::Requires,
};

pub(super) const PART: &str = "registration";

/// Where a homeserver says whether a token is good (Client-Server API, "Registration token validity"; MSC3231).
const VALIDITY: &str = "/_matrix/client/v1/register/m.login.registration_token/validity";

/// Looks at it from both sides; the homeserver is asked if it `answers` at all.
pub(super) async fn look(config: &Config, answers: bool, found: &mut Found) {
    let homeserver = &config.homeserver;
    if !homeserver.registers() {
        if !matches!(
            homeserver.kind,
            HomeserverKind::Local | HomeserverKind::None
        ) {
            found.fine(PART, "off: nobody signs up through threepid");
        }
        return;
    }
    if let Some(url) = homeserver.url()
        && answers
        && homeserver.kind != HomeserverKind::Webhook
        && inside(config, url, found).await == Door::Closed
    {
        return;
    }
    outside::look(config, found).await;
}

/// Whether anybody at all can sign up at the homeserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
}

/// Asks the homeserver itself, past the reverse proxy, how people sign up.
async fn inside(config: &Config, url: &Url, found: &mut Found) -> Door {
    let homeserver = &config.homeserver;
    let caller = Caller::new(url, &homeserver.ca_files.0, homeserver.timeout.0);
    let caller = match caller {
        Ok(caller) => caller,
        Err(why) => {
            found.failed(PART, why);
            return Door::Open;
        }
    };
    let said = caller.post(PATHS[0]).await.map(|reply| Said::of(&reply));
    match &said {
        Err(why) => found.failed(PART, format!("POST {} at the homeserver: {why}", PATHS[0])),
        Ok(said) => judge(config, said, found),
    }
    if said == Ok(Said::Closed) && homeserver.registration() != RegistrationWay::SharedSecret {
        return Door::Closed;
    }
    if let Ok(Some(token)) = homeserver.registration_token() {
        let asked = format!("{VALIDITY}?token={}", token.reveal());
        let reply = caller.get(&asked).await;
        judge_token(config, reply, found);
    }
    Door::Open
}

/// What the homeserver's answer means for how we are to make accounts there.
fn judge(config: &Config, said: &Said, found: &mut Found) {
    let words = Words::of(config.homeserver.kind);
    let by_secret = config.homeserver.registration() == RegistrationWay::SharedSecret;
    match said {
        Said::Ways(ways) if by_secret => {
            let listed = listed(ways);
            let warned = format!(
                "whoever reaches the homeserver directly signs up there with {listed}; accounts are made by its shared \
                 secret, and so {}",
                words.close
            );
            found.warn(PART, &warned);
        }
        Said::Closed if by_secret => {
            found.fine(PART, "the homeserver is closed to all but its shared secret");
        }
        Said::Closed => {
            let told = format!(
                "the homeserver lets nobody sign up, and so not through threepid either; if people are to, {}",
                words.open
            );
            // Nobody has said that they are.
            if config.homeserver.registration.is_none() {
                found.fine(PART, &told);
            } else {
                found.failed(PART, told);
            }
        }
        Said::Ways(ways) => judge_ways(config, ways, found),
        Said::Made => found.failed(
            PART,
            "the homeserver made an account without asking for anything; let it ask for a registration token".to_owned(),
        ),
        Said::NotHere(told) => found.failed(
            PART,
            format!("the homeserver answers {told} to POST {}: nobody can sign up there; set homeserver.registration to \"off\", or mend that", PATHS[0]),
        ),
        Said::NotNow(told) => found.warn(
            PART,
            &format!("the homeserver answers {told} to POST {}; run the check again later", PATHS[0]),
        ),
    }
}

fn judge_ways(config: &Config, ways: &[Vec<String>], found: &mut Found) {
    let words = Words::of(config.homeserver.kind);
    let is_native = |stage: &String| [EMAIL, MSISDN].contains(&stage.as_str());
    let left = ways.iter().filter(|way| !way.iter().any(is_native));
    let left: Vec<_> = left.cloned().collect();
    let is_native_alone = left.is_empty();
    if is_native_alone {
        let why =
            "the homeserver wants to prove addresses itself, and leaves no other way to sign up";
        found.failed(PART, format!("{why}; {}", words.drop_native));
        return;
    }
    let has_token = config.homeserver.registration_token.is_some();
    if has_token && !left.iter().any(|way| wants_token(way)) {
        let why = "there is a registration token, but the homeserver asks nobody for one";
        found.failed(PART, format!("{why}; {}", words.demand_token));
        return;
    }
    found.fine(PART, &format!("the homeserver asks for {}", listed(&left)));
    let open = left.iter().find(|way| !wants_token(way));
    let Some(open) = open.filter(|_| config.accounts.registration_requires != Requires::Nothing)
    else {
        return;
    };
    let warned = format!(
        "whoever reaches the homeserver directly signs up without an address: it asks for {} alone. Let nobody reach it \
         but threepid and your reverse proxy{}",
        listed(slice::from_ref(open)),
        words.better
    );
    found.warn(PART, &warned);
}

/// Whether the homeserver knows the token that nobody else is to know.
fn judge_token(config: &Config, reply: Result<Reply, String>, found: &mut Found) {
    let words = Words::of(config.homeserver.kind);
    let valid = reply
        .as_ref()
        .ok()
        .and_then(|reply| reply.body.get("valid"));
    match (valid.and_then(Value::as_bool), reply) {
        (Some(true), _) => found.fine(PART, "the homeserver knows the registration token"),
        (Some(false), _) => found.failed(
            PART,
            format!(
                "the homeserver does not take the registration token: it has no such one, or it has come to its end; make \
                 it there without an end ({}), or write another into homeserver.registration_token_file",
                words.make_token
            ),
        ),
        (None, Ok(reply)) => {
            let told = reply.status.as_u16();
            let warned = format!("the homeserver does not say whether it takes the registration token ({told})");
            found.warn(PART, &warned);
        }
        (None, Err(why)) => {
            let warned = format!("whether the homeserver takes the registration token: {why}");
            found.warn(PART, &warned);
        }
    }
}

/// What is to be written in the homeserver's own configuration.
struct Words {
    drop_native: &'static str,
    demand_token: &'static str,
    make_token: &'static str,
    /// What is better than to hide it.
    better: &'static str,
    open: &'static str,
    close: &'static str,
}

impl Words {
    fn of(kind: HomeserverKind) -> Self {
        match kind {
            HomeserverKind::Synapse => Self {
                drop_native: "take registrations_require_3pid and email: out of homeserver.yaml",
                demand_token: "set registration_requires_token: true in homeserver.yaml",
                make_token: "POST /_synapse/admin/v1/registration_tokens/new, with \"token\"",
                better: "; better still, write homeserver.registration_token_file, and set \
                         registration_requires_token: true in homeserver.yaml",
                open: "set enable_registration: true and registration_requires_token: true in homeserver.yaml",
                close: "set enable_registration: false in homeserver.yaml",
            },
            HomeserverKind::Dendrite => Self {
                better: "",
                open: "set registration_disabled: false below client_api: in dendrite.yaml",
                ..Self::of(HomeserverKind::Local)
            },
            HomeserverKind::Local | HomeserverKind::None | HomeserverKind::Webhook => Self {
                drop_native: "let it leave that to threepid",
                demand_token: "let it ask everybody for that token",
                make_token: "its documentation tells how",
                better: "; better still, write homeserver.registration_token_file, and let the homeserver ask \
                         everybody for that token",
                open: "let it take registrations",
                close: "let it take none",
            },
        }
    }
}
