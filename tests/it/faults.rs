//! What a client sees when something behind us fails.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use threepid::{
    clock::Timestamp,
    error::{Error, Result},
    homeserver::Directory,
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

    async fn bind(&self, _: &str, _: &Threepid, _: Timestamp) -> Result<Bound> {
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
    for (broken, status) in [
        (Broken::Panics, 500),
        (Broken::Hangs, 503),
        (Broken::Down, 503),
    ] {
        let app = TestApp::with(|builder| {
            let limit = Duration::from_millis(50);
            builder.directory(Arc::new(broken)).request_timeout(limit)
        });

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
