//! Whether the homeserver keeps its accounts itself. Where an OAuth account server has them, addresses and passwords are
//! that server's matter, and threepid would do nothing but lead people astray.

use std::{future, time::Duration};

use super::{Failure, homeserver::cause};
use crate::{error::Error, homeserver::synapse::Synapse};

/// How long to wait before a homeserver is asked again that did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// What it means, and what to do.
const ELSEWHERE: &str = "the homeserver has handed its accounts to an OAuth account server (Matrix Authentication Service, \
                         for one). That server proves addresses and resets passwords by itself, and apps no longer ask \
                         the homeserver for either: threepid can do nothing here. Take it out of your reverse proxy and \
                         stop it; mail and addresses are set up in the account server.";

/// Asks at the start; `false` if there was no answer, and [`watch`] is to go on.
///
/// # Errors
/// What to tell the operator if the accounts are elsewhere.
pub(super) async fn ask(homeserver: &Synapse) -> Result<bool, Failure> {
    match homeserver.accounts_live_elsewhere().await {
        Ok(true) => Err(elsewhere()),
        Ok(false) => Ok(true),
        Err(error) => {
            tracing::warn!(
                why = cause(&error),
                "the homeserver does not answer; until it does, whatever needs it fails. \"threepid check\" tells more"
            );
            Ok(false)
        }
    }
}

/// Asks until there is an answer. Ends only if it is that the accounts are elsewhere.
pub(super) async fn watch(homeserver: &Synapse) -> Failure {
    watch_with(|| homeserver.accounts_live_elsewhere()).await
}

async fn watch_with(live_elsewhere: impl AsyncFn() -> Result<bool, Error>) -> Failure {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        match live_elsewhere().await {
            Ok(true) => {
                tracing::error!("{ELSEWHERE}");
                return elsewhere();
            }
            Ok(false) => {
                tracing::info!("the homeserver answers now");
                return future::pending().await;
            }
            Err(error) => {
                tracing::debug!(why = cause(&error), "the homeserver does not answer yet");
            }
        }
    }
}

fn elsewhere() -> Failure {
    Failure::Told(ELSEWHERE.to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Asks until there is word, or for an hour; how often it asked.
    async fn asked(answer: impl Fn(u32) -> Result<bool, Error>) -> (u32, bool) {
        let asked = Cell::new(0);
        let watched = watch_with(async || {
            asked.set(asked.get() + 1);
            answer(asked.get())
        });
        let ended = tokio::time::timeout(Duration::from_hours(1), watched).await;
        (asked.get(), ended.is_ok())
    }

    fn silent() -> Result<bool, Error> {
        Err(Error::HomeserverTimeout("silent".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_homeserver_is_asked_until_it_answers() {
        assert_eq!(asked(|_| silent()).await, (120, false));
        let third = |time| if time < 3 { silent() } else { Ok(false) };
        assert_eq!(asked(third).await, (3, false));
    }

    #[tokio::test(start_paused = true)]
    async fn word_of_an_account_server_ends_the_watch() {
        let third = |time| if time < 3 { silent() } else { Ok(true) };
        assert_eq!(asked(third).await, (3, true));
    }
}
