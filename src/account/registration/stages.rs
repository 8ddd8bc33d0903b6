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
    let ends_there = ends_there(homeserver);
    let mut flows = Vec::new();
    for theirs in homeserver.iter().filter(|flow| !is_native(flow)) {
        for media in &ways {
            let flow = combined(theirs, media, ends_there);
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

/// Whether a stage of the homeserver's may end the registration there: some way does not wait for us. Which stages are
/// done by now, the homeserver alone knows, whose own pages do them too.
pub(super) fn ends_there(homeserver: &[Vec<String>]) -> bool {
    let waits = |flow: &&Vec<String>| flow.iter().any(|stage| stage == DUMMY);
    let ours = homeserver.iter().filter(|flow| !is_native(flow));
    ours.filter(|flow| !waits(flow)).count() > 0
}

/// Whether clients have something to do at the homeserver yet.
pub(super) fn has_more(homeserver: &[Vec<String>], completed: &[String]) -> bool {
    let is_open = |stage: &String| stage != DUMMY && !completed.contains(stage);
    let ours = homeserver.iter().filter(|flow| !is_native(flow));
    ours.flatten().any(is_open)
}

fn is_native(flow: &[String]) -> bool {
    let is_ours = |stage: &String| Medium::ALL.iter().any(|medium| stage_of(*medium) == stage);
    flow.iter().any(is_ours)
}

/// Ours come last where the homeserver waits for a dummy, which is then withheld; else first (`ends_there`), before the
/// stage that the homeserver takes for the last.
fn combined(theirs: &[String], media: &[Medium], ends_there: bool) -> Flow {
    let ours = media.iter().map(|medium| stage_of(*medium).to_owned());
    let waits = theirs.iter().any(|stage| stage == DUMMY);
    let stages = if media.is_empty() {
        theirs.to_vec()
    } else {
        let rest = theirs.iter().filter(|stage| *stage != DUMMY).cloned();
        if ends_there {
            ours.chain(rest).collect()
        } else {
            rest.chain(ours).collect()
        }
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
    fn a_homeserver_that_does_not_wait_for_us_is_known() {
        for (homeserver, expected) in [
            (vec!["m.login.dummy"], false),
            (vec!["a m.login.dummy", "b m.login.dummy"], false),
            (vec!["a m.login.dummy", "a m.login.email.identity"], false),
            (vec!["a m.login.dummy", "token"], true),
            (vec!["token"], true),
            (vec![""], true),
        ] {
            assert_eq!(ends_there(&flows(&homeserver)), expected, "{homeserver:?}");
        }
    }

    #[test]
    fn what_is_left_to_be_done_at_the_homeserver_is_known() {
        for (homeserver, completed, expected) in [
            (vec!["m.login.dummy"], vec![], false),
            (vec!["a m.login.dummy"], vec![], true),
            (vec!["a m.login.dummy"], vec!["a"], false),
            (vec!["m.login.dummy", "a m.login.msisdn"], vec![], false),
        ] {
            let completed: Vec<String> = completed
                .iter()
                .map(|text: &&str| (*text).to_owned())
                .collect();
            let has_more = has_more(&flows(&homeserver), &completed);
            assert_eq!(has_more, expected, "{homeserver:?} {completed:?}");
        }
    }
}
