//! What text messages may cost at most: the ceilings hold, whoever asks, however many at once, whatever restarts.

use std::{sync::Arc, time::Duration};

use axum::http::Request;
use futures_util::future::join_all;
use threepid::{
    limits::{self, Ceilings},
    rate::Rate,
};

use crate::support::app::*;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn limited(ceilings: Ceilings) -> limits::Settings {
    limits::Settings {
        sms: ceilings,
        ..limits::Settings::OFF
    }
}

fn app_with(ceilings: Ceilings) -> TestApp {
    TestApp::with(|builder| builder.limits(limited(ceilings)))
}

/// The number of phone `n` in Great Britain.
fn number(n: u32) -> String {
    format!("07700900{n:03}")
}

/// Asks for tokens for `count` phones at once; how many were accepted, and how many refused with 429.
async fn flood(app: &Arc<TestApp>, number_of: fn(u32) -> String, count: u32) -> (usize, usize) {
    let asked = (0..count).map(|n| {
        let app = Arc::clone(app);
        tokio::spawn(async move {
            let body = phone(&number_of(n), &format!("secret{n}"), 1);
            app.post(REGISTER_PHONE, &body).await
        })
    });
    let mut counted = (0, 0);
    for answer in join_all(asked).await {
        let answer = answer.expect("it does not panic");
        match answer.status.as_u16() {
            200 => counted.0 += 1,
            429 => {
                assert_eq!(answer.errcode(), "M_LIMIT_EXCEEDED");
                assert!(answer.json()["retry_after_ms"].as_u64() > Some(0));
                counted.1 += 1;
            }
            status => panic!("{status}: {}", answer.text),
        }
    }
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_parallel_requests_as_many_pass_as_each_ceiling_allows() {
    let one = |rate| vec![rate];
    for (ceilings, number_of) in [
        (
            Ceilings {
                per_number: one(Rate::new(5, DAY)),
                ..Ceilings::OFF
            },
            (|_| number(1)) as fn(u32) -> String,
        ),
        (
            Ceilings {
                per_calling_code: one(Rate::new(5, DAY)),
                ..Ceilings::OFF
            },
            number,
        ),
        (
            Ceilings {
                total: vec![Rate::new(60, HOUR), Rate::new(5, DAY)],
                ..Ceilings::OFF
            },
            number,
        ),
    ] {
        let app = Arc::new(app_with(ceilings));

        let counted = flood(&app, number_of, 64).await;

        assert_eq!(counted, (5, 59));
        assert_eq!(app.mails().await.len(), 5, "and no more is sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_does_not_lift_a_ceiling() {
    let ceilings = || Ceilings {
        total: vec![Rate::new(5, DAY)],
        ..Ceilings::OFF
    };
    let app = app_with(ceilings());
    for n in 0..4 {
        let body = phone(&number(n), "s", 1);
        assert_eq!(app.post(REGISTER_PHONE, &body).await.status, 200);
    }

    let app = Arc::new(app.restarted(|builder| builder.limits(limited(ceilings()))));

    assert_eq!(flood(&app, |n| number(n + 100), 64).await, (1, 63));
    assert_eq!(app.mails().await.len(), 5);
}

#[tokio::test]
async fn a_ceiling_of_one_calling_code_leaves_the_others_alone() {
    let app = app_with(Ceilings {
        per_calling_code: vec![Rate::new(1, DAY)],
        ..Ceilings::OFF
    });
    for (number, status) in [
        ("+447700900001", 200),
        ("+447700900002", 429),
        ("+33611223344", 200),
        ("+33611223345", 429),
    ] {
        let answer = app.post(ADD_PHONE, &phone(number, "s", 1)).await;
        assert_eq!(answer.status, status, "{number}");
    }
}

#[tokio::test]
async fn a_refused_request_is_charged_to_no_other_ceiling() {
    let app = app_with(Ceilings {
        per_number: vec![Rate::new(1, DAY)],
        per_calling_code: vec![Rate::new(2, DAY)],
        total: vec![Rate::new(2, DAY)],
        ..Ceilings::OFF
    });
    for secret in ["a", "b", "c", "d"] {
        let body = phone(&number(1), secret, 1);
        app.post(REGISTER_PHONE, &body).await;
    }

    let other = app.post(REGISTER_PHONE, &phone(&number(2), "a", 1)).await;

    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn a_repeated_attempt_costs_nothing() {
    let app = app_with(Ceilings {
        per_number: vec![Rate::new(2, DAY)],
        ..Ceilings::OFF
    });
    for _ in 0..5 {
        let answer = app.post(REGISTER_PHONE, &alices_phone(1)).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(app.post(REGISTER_PHONE, &alices_phone(2)).await.status, 200);
    assert_eq!(app.post(REGISTER_PHONE, &alices_phone(3)).await.status, 429);
    app.wait(DAY);
    assert_eq!(app.post(REGISTER_PHONE, &alices_phone(3)).await.status, 200);
}

#[tokio::test]
async fn mails_are_counted_on_no_ceiling() {
    let app = app_with(Ceilings {
        total: vec![Rate::new(1, DAY)],
        ..Ceilings::OFF
    });
    for n in 1..4 {
        assert_eq!(app.post(REGISTER, &alice(n)).await.status, 200);
    }
}

#[tokio::test]
async fn one_source_does_not_spend_what_is_everybody_s() {
    let app = app_with(Ceilings {
        per_source: vec![Rate::new(2, DAY)],
        ..Ceilings::OFF
    });
    for (from, n, status) in [
        ("203.0.113.7:1", 1, 200),
        ("203.0.113.7:2", 2, 200),
        ("203.0.113.7:3", 3, 429),
        ("203.0.113.8:1", 3, 200),
        ("[2001:db8::1]:1", 4, 200),
        ("[2001:db8::2]:1", 5, 200),
        ("[2001:db8::3]:1", 6, 429),
    ] {
        let body = phone(&number(n), "s", 1).to_string();
        let request = Request::post(REGISTER_PHONE).body(body.into());
        let answer = app.send_from(from, request.expect("a request")).await;
        assert_eq!(answer.status, status, "{from}");
    }
}
