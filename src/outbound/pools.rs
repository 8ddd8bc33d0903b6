//! How many calls are under way: of each kind of caller, so that none takes another's, and to each host.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{CallError, ChosenBy};
use crate::in_flight::{Entered, InFlight};

/// To servers that the operator trusts.
const MOST_FOR_OPERATOR: usize = 512;
/// To servers that accounts name.
const MOST_FOR_ACCOUNTS: usize = 64;
/// To servers that anybody may name.
const MOST_FOR_STRANGERS: usize = 64;
/// To servers that are said to have signed a request.
const MOST_FOR_SIGNERS: usize = 64;
/// To servers that are told something in the background.
const MOST_IN_BACKGROUND: usize = 32;
/// To one host, of each kind but those to servers that the operator trusts: one that never answers holds no whole pool.
const MOST_TO_ONE_HOST: usize = 8;

pub(super) struct Pools {
    operator: Semaphore,
    accounts: Semaphore,
    strangers: Semaphore,
    signers: Semaphore,
    background: Semaphore,
    hosts: InFlight<(ChosenBy, String)>,
}

/// Leave for one call.
pub(super) struct Permit<'a> {
    _of_pool: SemaphorePermit<'a>,
    _of_host: Option<Entered<'a, (ChosenBy, String)>>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            operator: Semaphore::new(MOST_FOR_OPERATOR),
            accounts: Semaphore::new(MOST_FOR_ACCOUNTS),
            strangers: Semaphore::new(MOST_FOR_STRANGERS),
            signers: Semaphore::new(MOST_FOR_SIGNERS),
            background: Semaphore::new(MOST_IN_BACKGROUND),
            hosts: InFlight::new(MOST_TO_ONE_HOST),
        }
    }
}

impl Pools {
    /// Leave for a call to `host`, or the reason why not now.
    pub(super) fn enter(&self, chosen_by: ChosenBy, host: String) -> Result<Permit<'_>, CallError> {
        let pool = match chosen_by {
            ChosenBy::Operator => &self.operator,
            ChosenBy::Account => &self.accounts,
            ChosenBy::Stranger => &self.strangers,
            ChosenBy::Signer => &self.signers,
            ChosenBy::Background => &self.background,
        };
        let busy = |cause: &str| CallError::Busy(cause.to_owned());
        let of_host = if chosen_by == ChosenBy::Operator {
            None
        } else {
            let entered = self.hosts.enter((chosen_by, host));
            Some(
                entered
                    .ok_or_else(|| busy("too many calls to this server are under way already"))?,
            )
        };
        let of_pool = pool
            .try_acquire()
            .map_err(|_| busy("too many calls to other servers are under way already"))?;
        Ok(Permit {
            _of_pool: of_pool,
            _of_host: of_host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_of_caller_does_not_take_what_is_another_s() {
        let pools = Pools::default();
        let to = |number: usize| format!("host{number}.example");
        let held: Vec<_> = (0..MOST_FOR_STRANGERS)
            .map(|number| pools.enter(ChosenBy::Stranger, to(number)).unwrap())
            .collect();

        assert!(matches!(
            pools.enter(ChosenBy::Stranger, to(MOST_FOR_STRANGERS)),
            Err(CallError::Busy(_))
        ));
        for other in [
            ChosenBy::Operator,
            ChosenBy::Account,
            ChosenBy::Signer,
            ChosenBy::Background,
        ] {
            assert!(pools.enter(other, to(0)).is_ok(), "{other:?}");
        }
        drop(held);
        assert!(pools.enter(ChosenBy::Stranger, to(0)).is_ok());
    }

    #[test]
    fn one_host_does_not_take_a_whole_pool() {
        for (chosen_by, most) in [
            (ChosenBy::Operator, MOST_FOR_OPERATOR),
            (ChosenBy::Account, MOST_TO_ONE_HOST),
            (ChosenBy::Stranger, MOST_TO_ONE_HOST),
            (ChosenBy::Signer, MOST_TO_ONE_HOST),
            (ChosenBy::Background, MOST_TO_ONE_HOST),
        ] {
            let pools = Pools::default();
            let enter = |host: &str| pools.enter(chosen_by, host.to_owned());
            let held: Vec<_> = (0..most).map(|_| enter("slow.example").unwrap()).collect();

            assert!(enter("slow.example").is_err(), "{chosen_by:?}");
            let of_another = enter("other.example").is_ok();
            assert_eq!(of_another, chosen_by != ChosenBy::Operator, "{chosen_by:?}");
            drop(held);
            assert!(enter("slow.example").is_ok(), "{chosen_by:?}");
        }
    }
}
