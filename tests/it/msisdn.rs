//! Proving a phone number.

use std::time::Duration;

use serde_json::json;
use threepid::{
    Builder, limits,
    threepid::Medium,
    validation::{Validate, Validates},
};

use crate::support::app::*;

fn with_password_resets(builder: Builder) -> Builder {
    builder
        .limits(limits::Settings::OFF)
        .validates(Medium::Msisdn, Validates::all(Validate::Here))
}

#[tokio::test]
async fn a_request_is_answered_with_the_number_as_it_was_understood() {
    let app = TestApp::new();

    let answer = app.post(REGISTER_PHONE, &alices_phone(1)).await;

    assert_eq!(
        answer.json(),
        json!({
            "sid": answer.sid(),
            "submit_url": format!("{PUBLIC_URL}{SUBMIT_PHONE}"),
            "msisdn": "447700900001",
            "intl_fmt": "+44 7700 900001",
            "success": true,
        })
    );
    let sms = app.mail().await;
    assert_eq!(
        (sms.to.as_str(), sms.medium.as_str()),
        ("447700900001", "msisdn")
    );
    assert!(!sms.text.contains("monkeys_are_GREAT") && !sms.text.contains("/_threepid/link/"));
}

#[tokio::test]
async fn a_code_of_six_digits_proves_the_number() {
    let app = TestApp::new();
    let sid = app.post(ADD_PHONE, &alices_phone(1)).await.sid();
    let code = code(&app.mail().await);

    let wrong = app.post(SUBMIT_PHONE, &shown(&sid, "x")).await;
    let right = app.post(SUBMIT_PHONE, &shown(&sid, &code)).await;
    let again = app.post(SUBMIT_PHONE, &shown(&sid, &code)).await;

    assert_eq!(wrong.errcode(), "M_TOKEN_INCORRECT");
    assert_eq!(
        (right.status.as_u16(), right.json()),
        (200, json!({ "success": true }))
    );
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn a_person_may_open_the_submit_url_as_a_page() {
    let app = TestApp::new();
    let sid = app.post(REGISTER_PHONE, &alices_phone(1)).await.sid();
    let code = code(&app.mail().await);
    let page = |token: &str| {
        format!("{SUBMIT_PHONE}?sid={sid}&client_secret=monkeys_are_GREAT&token={token}")
    };

    let head = app.bare("HEAD", &page(&code), &[]).await;
    let wrong = app.get(&page("000"), &[]).await;
    let right = app.get(&page(&code), &[]).await;

    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(wrong.status, 400);
    assert_eq!(right.status, 200, "{}", right.text);
    assert!(
        right.text.contains("<html") && !right.text.contains("email"),
        "{}",
        right.text
    );
}

#[tokio::test]
async fn only_the_newest_code_counts_and_it_lives_a_quarter_of_an_hour() {
    let app = TestApp::new();
    let sid = app.post(REGISTER_PHONE, &alices_phone(1)).await.sid();
    let older = code(&app.mail().await);
    assert_eq!(app.post(REGISTER_PHONE, &alices_phone(2)).await.sid(), sid);
    let newer = code(&app.mail().await);

    let late = app.post(SUBMIT_PHONE, &shown(&sid, &older)).await;
    app.wait(Duration::from_mins(15));
    let expired = app.post(SUBMIT_PHONE, &shown(&sid, &newer)).await;

    assert_eq!(late.errcode(), "M_TOKEN_INCORRECT");
    assert_eq!(expired.errcode(), "M_SESSION_EXPIRED");
}

#[tokio::test]
async fn the_fifth_wrong_code_is_the_last_one() {
    let app = TestApp::new();
    let sid = app.post(REGISTER_PHONE, &alices_phone(1)).await.sid();
    let code = code(&app.mail().await);
    for _ in 0..5 {
        let wrong = app.post(SUBMIT_PHONE, &shown(&sid, "not it")).await;
        assert_eq!(wrong.errcode(), "M_TOKEN_INCORRECT");
    }

    let right = app.post(SUBMIT_PHONE, &shown(&sid, &code)).await;

    assert_eq!(right.errcode(), "M_SESSION_EXPIRED");
    assert_ne!(app.post(REGISTER_PHONE, &alices_phone(1)).await.sid(), sid);
}

#[tokio::test]
async fn spellings_of_one_number_share_a_session_and_its_count_of_attempts() {
    let app = TestApp::new();
    let sid = app.post(REGISTER_PHONE, &alices_phone(1)).await.sid();
    for (country, number) in [
        ("GB", "+44 7700 900001"),
        ("FR", "+447700900001"),
        ("GB", "(07700) 900-001"),
        ("DE", "0044 7700 900001"),
    ] {
        let body = json!({ "client_secret": "monkeys_are_GREAT", "country": country, "phone_number": number, "send_attempt": 1 });
        assert_eq!(app.post(REGISTER_PHONE, &body).await.sid(), sid, "{number}");
    }
    assert_eq!(app.mails().await.len(), 1);
}

#[tokio::test]
async fn what_is_no_number_is_refused_and_nothing_is_sent() {
    let app = TestApp::new();
    for (country, number) in [
        ("GB", "07700900001x12"),
        ("GB", "07700900001;ext=12"),
        ("GB", "0800 FLOWERS"),
        ("GB", "tel:+447700900001"),
        ("GB", "1"),
        ("GB", "077009000010077009000010"),
        ("GB", ""),
        ("GB", "+"),
        ("GB", "0\u{0}7700900001"),
        ("gb", "07700900001"),
        ("Gb", "07700900001"),
        ("UK", "07700900001"),
        ("GBR", "07700900001"),
        ("001", "07700900001"),
        ("", "07700900001"),
        ("ZZ", "+447700900001"),
    ] {
        let body = json!({ "client_secret": "s", "country": country, "phone_number": number, "send_attempt": 1 });
        let answer = app.post(REGISTER_PHONE, &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (400, "M_INVALID_PARAM"),
            "{country} {number}"
        );
    }
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn a_missing_key_is_told_also_where_the_number_is_international() {
    let app = TestApp::new();
    for missing in ["client_secret", "country", "phone_number", "send_attempt"] {
        let mut body = phone("+447700900001", "s", 1);
        body.as_object_mut().unwrap().remove(missing);
        let answer = app.post(ADD_PHONE, &body).await;
        assert_eq!(answer.errcode(), "M_MISSING_PARAM", "{missing}");
    }
    let body = json!({ "client_secret": "s", "country": "GB", "phone_number": 7_700_900_001_u64, "send_attempt": 1 });
    assert_eq!(app.post(ADD_PHONE, &body).await.errcode(), "M_BAD_JSON");
}

#[tokio::test]
async fn a_password_reset_by_phone_is_off_unless_it_is_turned_on() {
    let off = TestApp::new();
    let on = TestApp::with(with_password_resets);
    for app in [&off, &on] {
        app.own("@alice:example.org", "07700900001").await;
    }

    let refused = off.post(PASSWORD_PHONE, &alices_phone(1)).await;
    let answer = on.post(PASSWORD_PHONE, &alices_phone(1)).await;

    assert_eq!(
        (refused.status.as_u16(), refused.errcode().as_str()),
        (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
    );
    let code = code(&on.mail().await);
    let submitted = on.post(SUBMIT_PHONE, &shown(&answer.sid(), &code)).await;
    assert_eq!(submitted.status, 200);
}

#[tokio::test]
async fn nobody_learns_whose_number_it_is() {
    let app = TestApp::new();
    app.own("@alice:example.org", "07700900001").await;

    let taken = app.post(REGISTER_PHONE, &alices_phone(1)).await;
    let notice = app.mail().await;
    let free = app
        .post(
            REGISTER_PHONE,
            &phone("07700900002", "monkeys_are_GREAT", 1),
        )
        .await;

    let keys = |answer: &Answer| {
        let body = answer.json();
        let keys = body.as_object().unwrap().keys().cloned();
        keys.collect::<Vec<_>>()
    };
    assert_eq!((taken.status, keys(&taken)), (free.status, keys(&free)));
    assert_eq!(notice.to, "447700900001");
    let guess = app.post(SUBMIT_PHONE, &shown(&taken.sid(), "123456")).await;
    assert_eq!(guess.errcode(), "M_TOKEN_INCORRECT");
}

#[tokio::test]
async fn a_session_of_the_other_medium_is_none() {
    let app = TestApp::new();
    let mail_sid = app.post(REGISTER, &alice(1)).await.sid();
    let mail_code = code(&app.mail().await);
    let phone_sid = app.post(REGISTER_PHONE, &alices_phone(1)).await.sid();
    let phone_code = code(&app.mail().await);

    let crossed = app.post(SUBMIT_PHONE, &shown(&mail_sid, &mail_code)).await;
    let crossed_too = app.post(SUBMIT, &shown(&phone_sid, &phone_code)).await;

    for answer in [crossed, crossed_too] {
        assert_eq!(answer.errcode(), "M_NO_VALID_SESSION");
    }
}

#[tokio::test]
async fn phones_are_served_under_every_prefix_and_the_number_may_be_anywhere() {
    let app = TestApp::new();
    for prefix in ["v3", "r0", "unstable", "api/v1"] {
        for group in ["register", "account/3pid"] {
            let path = format!("/_matrix/client/{prefix}/{group}/msisdn/requestToken");
            let secret = format!("{prefix}.{group}").replace('/', "-");
            let body = json!({ "client_secret": secret, "country": "US", "phone_number": "+33 6 11 22 33 44", "send_attempt": 0 });
            let answer = app.post(&path, &body).await;
            assert_eq!(answer.json()["msisdn"], "33611223344", "{path}");
        }
    }
    assert_eq!(app.mails().await.len(), 8);
}
