//! Many homeservers that do not answer hold up none that was never tried.

use std::{
    future, io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use threepid::{limits, outbound::Resolve};
use tokio::time::timeout;

use crate::support::{
    app::{TestApp, with_identity},
    federation::{FederationServer, POST_ONBIND},
    identity::bound,
};

/// How many homeservers are dead: more than are told at once.
const DEAD: usize = 20;

/// Names of dead homeservers, which are not found; or are waited for in vain.
#[derive(Clone, Default)]
struct Dead {
    hangs: Arc<AtomicBool>,
    waited_for: Arc<AtomicUsize>,
}

impl Dead {
    fn resolve(&self) -> Resolve {
        let dead = self.clone();
        Arc::new(move |name| {
            let dead = dead.clone();
            Box::pin(async move {
                if name == "localhost" {
                    return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
                }
                if dead.hangs.load(Ordering::SeqCst) {
                    dead.waited_for.fetch_add(1, Ordering::SeqCst);
                    future::pending::<()>().await;
                }
                Err(io::Error::other("no such name"))
            })
        })
    }
}

#[tokio::test]
async fn whoever_binds_is_told_of_while_many_dead_homeservers_are_tried_again() {
    let (homeserver, dead) = (FederationServer::start().await, Dead::default());
    let outbound = homeserver.outbound().with_resolver(dead.resolve());
    let app = TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF);
        with_identity(builder.outbound(outbound), |_| {})
    });
    for number in 0..DEAD {
        let user = format!("@user:dead{number}.example:8448");
        bound(&app, &user, &format!("user{number}@example.org")).await;
    }
    let tried = app.threepid.tell_homeservers_due().await;
    assert_eq!(tried.expect("the store answers"), DEAD);
    app.wait(Duration::from_hours(2));
    dead.hangs.store(true, Ordering::SeqCst);
    let background = app.threepid.start();
    while dead.waited_for.load(Ordering::SeqCst) < 8 {
        tokio::task::yield_now().await;
    }

    bound(&app, &homeserver.user("alice"), "alice@example.org").await;
    let told = timeout(Duration::from_secs(5), async {
        while homeserver.count(POST_ONBIND) == 0 {
            tokio::task::yield_now().await;
        }
    });

    assert!(told.await.is_ok(), "not before the dead ones are given up");
    assert_eq!(dead.waited_for.load(Ordering::SeqCst), 8, "half of all");
    background.stop(Duration::ZERO).await;
}
