//! Whether people sign up through threepid alone, as the world sees it: at the public URL.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{
    Found,
    call::Caller,
    forms::{ODD, PATHS, Said, listed, proves, wants_token},
    registration::PART,
};
use crate::{config::Config, homeserver::registration::Requires};

/// The longest that one call takes.
const LIMIT: Duration = Duration::from_secs(5);
/// How many calls are under way at once.
const AT_ONCE: usize = 4;
/// What to do where somebody else answers.
const SEND: &str = "let the reverse proxy send it to threepid; see deploy/";

/// What an answer shows.
#[derive(Debug)]
enum Shown {
    /// It is threepid's, as far as can be told.
    Ours,
    /// Nobody signs up there: why.
    Shut(String),
    /// People sign up there past threepid: with what.
    Open(String),
    /// Nothing now: why.
    Nothing(String),
}

/// Tries the paths at which clients sign up, and odd forms of them.
pub(super) async fn look(config: &Config, found: &mut Found) {
    if config.server.public_url.is_none() {
        return;
    }
    let url = config.server.public_url();
    let shown = url.as_str().trim_end_matches('/');
    let caller = match Caller::new(&url, &config.outbound.ca_files.0, LIMIT) {
        Ok(caller) => caller,
        Err(why) => return found.failed(PART, why),
    };
    let mut first_is_ours = false;
    for path in PATHS {
        let what = format!("POST {shown}{path}");
        let is_first = path == PATHS[0];
        match ask(config, &caller, path).await {
            Shown::Ours => first_is_ours |= is_first,
            Shown::Shut(why) => {
                let detail = format!("{what}: {why}, and so nobody signs up there; {SEND}");
                found.failed(PART, detail);
            }
            Shown::Open(with) => {
                let detail = format!("{what} is not threepid's: {with}; {SEND}");
                found.failed(PART, detail);
            }
            Shown::Nothing(why) => {
                let warned = format!(
                    "{what}: {why}; whether people sign up through threepid alone was not looked at. Run the check again \
                     while threepid and the reverse proxy serve"
                );
                return found.warn(PART, &warned);
            }
        }
    }
    if first_is_ours {
        look_round(config, &caller, shown, found).await;
    }
}

/// Tries to get round threepid, as anybody may.
async fn look_round(config: &Config, caller: &Caller, shown: &str, found: &mut Found) {
    if is_nothing_required(config) {
        found.fine(
            PART,
            &format!("{shown}: people sign up, and need no address"),
        );
        return;
    }
    let answers = stream::iter(ODD).map(async |form| (form, ask(config, caller, form).await));
    let answers: Vec<_> = answers.buffered(AT_ONCE).collect().await;
    let (mut open, mut missed) = (0, Vec::new());
    for (form, answer) in answers {
        match answer {
            Shown::Ours | Shown::Shut(_) => {}
            Shown::Open(with) => {
                open += 1;
                found.failed(
                    PART,
                    format!(
                        "POST {shown}{form} leads past threepid: {with}; let the reverse proxy send it to threepid, or \
                         answer 404; see deploy/"
                    ),
                );
            }
            Shown::Nothing(why) => missed.push(format!("{form}: {why}")),
        }
    }
    if let Some(first) = missed.first() {
        let number = missed.len();
        let warned = format!(
            "{number} odd forms of POST {shown}{} gave no answer that tells anything (as {first}); run the check again",
            PATHS[0]
        );
        found.warn(PART, &warned);
    } else if open == 0 {
        let tried = ODD.len();
        let detail = format!(
            "{shown}: POST /register is threepid's, and {tried} odd forms of it lead nowhere else"
        );
        found.fine(PART, &detail);
    }
}

/// Whether whoever gets round us gets no more than everybody does.
fn is_nothing_required(config: &Config) -> bool {
    config.accounts.registration && config.accounts.registration_requires == Requires::Nothing
}

async fn ask(config: &Config, caller: &Caller, path: &str) -> Shown {
    match caller.post(path).await {
        Err(why) => Shown::Nothing(why),
        Ok(reply) => shown(config, &Said::of(&reply)),
    }
}

fn shown(config: &Config, said: &Said) -> Shown {
    let is_open = config.accounts.registration;
    let requires = config.accounts.registration_requires;
    let has_token = config.homeserver.registration_token.is_some();
    match said {
        Said::Ways(ways) if ways.is_empty() => Shown::Shut("there is no way to sign up".to_owned()),
        Said::Ways(ways) if is_open && ways.iter().all(|way| proves(way, requires)) => Shown::Ours,
        Said::Ways(ways) if has_token && ways.iter().all(|way| wants_token(way)) => {
            Shown::Shut("it asks for the registration token that threepid alone knows".to_owned())
        }
        Said::Ways(ways) => Shown::Open(lacking(ways, is_open.then_some(requires))),
        Said::Made => Shown::Open("it made an account at once".to_owned()),
        Said::Closed if is_open => Shown::Shut("nobody may sign up (403 M_FORBIDDEN)".to_owned()),
        Said::Closed => Shown::Ours,
        Said::NotHere(told) => Shown::Shut(format!("the answer is {told}")),
        Said::NotNow(told) => Shown::Nothing(format!("the answer is {told}")),
    }
}

/// What is asked for where that is not enough; if nobody is to sign up, anything is.
fn lacking(ways: &[Vec<String>], requires: Option<Requires>) -> String {
    let is_short = |way: &&Vec<String>| requires.is_none_or(|requires| !proves(way, requires));
    let short: Vec<_> = ways.iter().filter(is_short).cloned().collect();
    let missing = match requires {
        None | Some(Requires::Nothing) => "",
        Some(Requires::Any) => ", and for no address",
        Some(Requires::Email) => ", and for no email address",
        Some(Requires::Msisdn) => ", and for no phone number",
        Some(Requires::Both) => ", and not for both an email address and a phone number",
    };
    format!("it asks for {}{missing}", listed(&short))
}
