//! What a client sees when something behind us fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use threepid::{
    clock::{Clock, ManualClock, Timestamp},
    error::{Error, Result},
    homeserver::Directory,
    limits,
    store::{Bound, Contact},
    threepid::Threepid,
};

use crate::support::app::*;

/// A directory that does not do its work.
#[derive(Debug)]
enum Broken {
    Panics,
    Hangs,
    Down,
}

#[async_trait]
impl Directory for Broken {
    async fn owner(&self, _: &Threepid) -> Result<Option<String>> {
        match self {
            Self::Panics => panic!("a secret detail"),
            Self::Hangs => std::future::pending().await,
            Self::Down => Err(Error::Unavailable("a secret detail".to_owned())),
        }
    }

    async fn bind(
        &self,
        _: &str,
        _: &Threepid,
        _: Option<Timestamp>,
        _: Timestamp,
    ) -> Result<Bound> {
        unreachable!("nobody binds")
    }

    async fn unbind(&self, _: &str, _: &Threepid) -> Result<bool> {
        unreachable!("nobody unbinds")
    }

    async fn list(&self, _: &str) -> Result<Vec<Contact>> {
        unreachable!("nobody lists")
    }
}

#[tokio::test]
async fn a_fault_behind_us_is_a_matrix_error_that_tells_nothing_and_sends_nothing() {
    let (at_once, late) = (Duration::from_millis(50), Duration::from_mins(1));
    for (broken, limit, status) in [
        (Broken::Panics, late, 500),
        (Broken::Hangs, at_once, 503),
        (Broken::Down, late, 503),
    ] {
        let app =
            TestApp::with(|builder| builder.directory(Arc::new(broken)).request_timeout(limit));

        let answer = app.post(REGISTER, &alice(1)).await;

        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (status, "M_UNKNOWN")
        );
        assert!(!answer.text.contains("secret"), "{}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(
            app.mails().await.is_empty(),
            "an error is never taken for a free address"
        );
    }
}

/// A clock that stops all who ask it, once it is broken.
#[derive(Debug)]
struct Stumbling {
    clock: ManualClock,
    broken: AtomicBool,
}

impl Clock for Stumbling {
    fn now(&self) -> Timestamp {
        assert!(!self.broken.load(Ordering::Relaxed), "a secret detail");
        self.clock.now()
    }
}

/// What the link's page and both forms of `submitToken` answer: to people a page, to clients an error of Matrix.
async fn tells_each_in_its_own_words(app: &TestApp, link: &str, sid: &str, status: u16) {
    let query = format!("{SUBMIT}?sid={sid}&client_secret=monkeys_are_GREAT&token=1");
    for (method, path) in [("POST", link), ("GET", &query)] {
        let page = app.bare(method, path, &[]).await;
        assert_eq!(page.status, status, "{method} {path}");
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(!page.text.contains("secret"), "{}", page.text);
    }
    let answer = app.post(SUBMIT, &shown(sid, "1")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.errcode().as_str()),
        (status, "M_UNKNOWN")
    );
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn a_panic_is_told_to_people_as_a_page() {
    let clock = Arc::new(Stumbling {
        clock: ManualClock::new(Timestamp(1_795_341_600_000)),
        broken: AtomicBool::new(false),
    });
    let app = TestApp::with(|builder| builder.clock(clock.clone()));
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    let link = link_path(&app.mail().await);

    clock.broken.store(true, Ordering::Relaxed);

    tells_each_in_its_own_words(&app, &link, &sid, 500).await;
    let page = app.get(&link, &[]).await;
    assert_eq!(page.status, 500);
    assert!(page.header("content-type").starts_with("text/html"));
}

#[tokio::test]
async fn a_time_out_is_told_to_people_as_a_page() {
    let app = TestApp::new();
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    let link = link_path(&app.mail().await);
    let limit = Duration::from_millis(200);
    let app = app.restarted(|builder| builder.limits(limits::Settings::OFF).request_timeout(limit));
    let other = rusqlite::Connection::open(app.dir().join("threepid.db")).unwrap();

    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    tells_each_in_its_own_words(&app, &link, &sid, 503).await;
    other.execute_batch("ROLLBACK").unwrap();
}
