//! Which stages a registration has: the homeserver's own and ours (Client-Server API, "User-Interactive Authentication
//! API").

use crate::{
    homeserver::registration::{DUMMY, Requires},
    threepid::Medium,
};

/// The stage that proves an address of a medium (Client-Server API, "Email-based (identity / homeserver)", "Phone
/// number/MSISDN-based (identity / homeserver)").
pub(crate) fn stage_of(medium: Medium) -> &'static str {
    match medium {
        Medium::Email => "m.login.email.identity",
        Medium::Msisdn => "m.login.msisdn",
    }
}

/// One way to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// All that the client does, in its order.
    pub(super) stages: Vec<String>,
    /// What of it is ours.
    pub(super) media: Vec<Medium>,
    /// Whether we end it; else the client's last stage does, at the homeserver.
    pub(super) ends_here: bool,
}

impl Flow {
    /// Whether nothing of it is left.
    pub(super) fn is_done(&self, done: &[String]) -> bool {
        self.stages.iter().all(|stage| done.contains(stage))
    }
}

/// What clients are offered, for what the homeserver offers us. Its own stages for addresses are not ours to pass on: it
/// would look for their sessions in its own tables.
pub(super) fn offered(
    homeserver: &[Vec<String>],
    requires: Requires,
    can_prove: impl Fn(Medium) -> bool,
) -> Vec<Flow> {
    let ways = ways(requires, can_prove);
    let mut flows = Vec::new();
    for theirs in homeserver.iter().filter(|flow| !is_native(flow)) {
        for media in &ways {
            let flow = combined(theirs, media);
            if !flows.contains(&flow) {
                flows.push(flow);
            }
        }
    }
    flows
}

/// The ways in which what is required can be met, of media that can be proved.
fn ways(requires: Requires, can_prove: impl Fn(Medium) -> bool) -> Vec<Vec<Medium>> {
    let each = || Medium::ALL.map(|medium| vec![medium]).to_vec();
    let ways = match requires {
        Requires::Any => each(),
        Requires::Email => vec![vec![Medium::Email]],
        Requires::Msisdn => vec![vec![Medium::Msisdn]],
        Requires::Both => vec![vec![Medium::Email, Medium::Msisdn]],
        Requires::Nothing => [vec![Vec::new()], each()].concat(),
    };
    let can = |way: &Vec<Medium>| way.iter().all(|medium| can_prove(*medium));
    ways.into_iter().filter(can).collect()
}

/// Whether showing `stage` may end the registration at the homeserver, which has `completed` before.
pub(super) fn ends_there(homeserver: &[Vec<String>], completed: &[String], stage: &str) -> bool {
    let is_done = |other: &String| other == stage || completed.contains(other);
    homeserver.iter().any(|flow| flow.iter().all(is_done))
}

fn is_native(flow: &[String]) -> bool {
    let is_ours = |stage: &String| Medium::ALL.iter().any(|medium| stage_of(*medium) == stage);
    flow.iter().any(is_ours)
}

/// Ours come last where the homeserver waits for a dummy, which is then withheld; else first, before the stage that the
/// homeserver takes for the last.
fn combined(theirs: &[String], media: &[Medium]) -> Flow {
    let ours = media.iter().map(|medium| stage_of(*medium).to_owned());
    let waits = theirs.iter().any(|stage| stage == DUMMY);
    let stages = if media.is_empty() {
        theirs.to_vec()
    } else if waits {
        let rest = theirs.iter().filter(|stage| *stage != DUMMY);
        rest.cloned().chain(ours).collect()
    } else {
        ours.chain(theirs.iter().cloned()).collect()
    };
    Flow {
        stages,
        media: media.to_vec(),
        ends_here: waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(texts: &[&str]) -> Vec<Vec<String>> {
        let flow = |text: &&str| text.split_whitespace().map(str::to_owned).collect();
        texts.iter().map(flow).collect()
    }

    fn told(homeserver: &[&str], requires: Requires, media: &[Medium]) -> Vec<String> {
        let offered = offered(&flows(homeserver), requires, |medium| {
            media.contains(&medium)
        });
        let told = offered.iter().map(|flow| flow.stages.join(" "));
        told.collect()
    }

    #[test]
    fn our_stage_takes_the_dummy_s_place() {
        const EMAIL: &[Medium] = &[Medium::Email];
        let all = Medium::ALL;
        for (homeserver, requires, media, expected) in [
            (
                vec!["m.login.dummy"],
                Requires::Any,
                EMAIL,
                vec!["m.login.email.identity"],
            ),
            (
                vec!["t c m.login.dummy"],
                Requires::Any,
                &all,
                vec!["t c m.login.email.identity", "t c m.login.msisdn"],
            ),
            (
                vec![
                    "c m.login.dummy",
                    "c m.login.email.identity",
                    "c m.login.msisdn",
                ],
                Requires::Email,
                &all,
                vec!["c m.login.email.identity"],
            ),
            (
                vec!["m.login.dummy"],
                Requires::Both,
                &all,
                vec!["m.login.email.identity m.login.msisdn"],
            ),
            (vec!["m.login.dummy"], Requires::Both, EMAIL, vec![]),
            (
                vec!["c m.login.dummy"],
                Requires::Nothing,
                EMAIL,
                vec!["c m.login.dummy", "c m.login.email.identity"],
            ),
            (
                vec!["token"],
                Requires::Any,
                EMAIL,
                vec!["m.login.email.identity token"],
            ),
            (vec!["m.login.email.identity"], Requires::Any, EMAIL, vec![]),
            (
                vec![""],
                Requires::Any,
                EMAIL,
                vec!["m.login.email.identity"],
            ),
        ] {
            assert_eq!(
                told(&homeserver, requires, media),
                expected,
                "{homeserver:?} {requires:?}"
            );
        }
    }

    #[test]
    fn a_stage_that_may_be_the_last_is_told() {
        for (homeserver, completed, stage, expected) in [
            (vec!["a m.login.dummy"], vec![], "a", false),
            (vec!["a m.login.dummy"], vec!["a"], "m.login.dummy", true),
            (vec!["token"], vec![], "token", true),
            (vec!["a b"], vec![], "b", false),
            (vec!["a b"], vec!["a"], "b", true),
            (vec!["a b m.login.dummy", "b"], vec![], "b", true),
            (vec![""], vec![], "anything", true),
        ] {
            let completed: Vec<String> = completed
                .iter()
                .map(|text: &&str| (*text).to_owned())
                .collect();
            let ends = ends_there(&flows(&homeserver), &completed, stage);
            assert_eq!(ends, expected, "{homeserver:?} {completed:?} {stage}");
        }
    }
}
