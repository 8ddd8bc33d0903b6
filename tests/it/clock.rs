//! The machine's clock is set back.

use std::time::Duration;

use threepid::{clock::Clock, limits, rate::Rate};

use crate::support::app::*;

const DAY: Duration = Duration::from_hours(24);

fn set_back(app: &TestApp) {
    app.clock.set(app.clock.now().before(DAY));
}

#[tokio::test]
async fn a_session_from_before_the_clock_was_set_back_is_proved() {
    for by_link in [true, false] {
        let app = TestApp::with(|builder| builder);
        let sid = app.post(REGISTER, &alice(1)).await.sid();
        let mail = app.mail().await;

        set_back(&app);
        let token = if by_link {
            link_value(&mail)
        } else {
            code(&mail)
        };

        assert_eq!(app.post(SUBMIT, &shown(&sid, &token)).await.status, 200);
    }
}

#[tokio::test]
async fn whoever_spent_a_limit_before_the_clock_was_set_back_waits_for_one_step() {
    let app = TestApp::with(|builder| builder);
    let (mails, period) = (5, Duration::from_mins(30));
    assert_eq!(
        limits::Settings::default().per_session,
        Rate::new(mails, period)
    );
    let ask = async |attempt| app.post(REGISTER, &alice(attempt)).await.status;
    for attempt in 1..=mails {
        assert_eq!(ask(attempt).await, 200);
    }
    assert_eq!(ask(6).await, 429);

    set_back(&app);

    assert_eq!(ask(6).await, 200);
    assert_eq!(ask(7).await, 429);
    app.wait(period / mails);
    assert_eq!(ask(7).await, 200);
}

#[tokio::test]
async fn a_mail_from_before_the_clock_was_set_back_is_delivered_all_the_same() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;

    set_back(&app);
    app.threepid.sweep().await.unwrap();

    assert_eq!(app.mails().await.len(), 1);
}
