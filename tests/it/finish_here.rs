//! The link of a reset: the new password is set on its page, or the reset is handed to the app.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use threepid::{
    error::Error, limits, next_link::NextLinkPolicy, password::PasswordPolicy, rate::Rate,
};

use crate::support::{app::*, resets::*};

const HANDED: &str = "The reset was handed to the app";
const FORM: &str = "application/x-www-form-urlencoded";
const CHANGED: &str = "<h1>Your password is changed</h1>";

#[tokio::test]
async fn the_page_sets_the_password_and_the_app_waits_in_vain() {
    let resets = Resets::new().await;
    let mailed = resets.mailed().await;

    let page = resets.app.get(&mailed.link, &[]).await;
    let done = resets
        .type_into_page(&mailed.link, "correct horse ä+&%")
        .await;

    assert!(page.text.contains("name=\"new_password_again\""));
    assert!(page.text.contains(&format!("value=\"{OWNER}\" readonly")));
    assert_eq!(done.status, 200);
    assert!(done.text.contains(CHANGED), "{}", done.text);
    assert_eq!(resets.password(), "correct horse ä+&%");
    for new in ["new", "correct horse ä+&%"] {
        assert_eq!(resets.set(&mailed.sid, new).await.status, 401);
    }
    let told = resets.app.mail().await;
    assert!(told.text.contains("was changed"), "{}", told.text);
}

#[tokio::test]
async fn looking_at_the_page_changes_nothing() {
    let resets = Resets::new().await;
    let mailed = resets.mailed().await;
    for method in ["GET", "HEAD", "GET"] {
        assert_eq!(resets.app.bare(method, &mailed.link, &[]).await.status, 200);
    }
    assert_eq!(resets.set(&mailed.sid, "new").await.status, 401);
    assert!(resets.accounts.resets().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_polls_beside_the_page_get_nothing() {
    let resets = Arc::new(Resets::new().await);
    let mailed = resets.mailed().await;
    let poll = |_| {
        let (resets, sid) = (Arc::clone(&resets), mailed.sid.clone());
        tokio::spawn(async move { resets.set(&sid, "stolen").await.status })
    };
    // The homeserver takes its time: half of the polls come in between.
    resets.accounts.close();
    let page = {
        let (resets, link) = (Arc::clone(&resets), mailed.link.clone());
        tokio::spawn(async move { resets.type_into_page(&link, "mine").await.status })
    };
    for polled in (0..50).map(poll).collect::<Vec<_>>() {
        assert_eq!(polled.await.unwrap(), 401);
    }
    let polls: Vec<_> = (50..100).map(poll).collect();
    resets.accounts.open();

    assert_eq!(page.await.unwrap(), 200);
    for polled in polls {
        assert_eq!(polled.await.unwrap(), 401);
    }
    assert_eq!(resets.set(&mailed.sid, "stolen").await.status, 401);
    assert_eq!(resets.password(), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_page_is_at_work_neither_code_nor_button_hands_over() {
    let resets = Arc::new(Resets::new().await);
    let mailed = resets.mailed().await;
    resets
        .accounts
        .fail(Some(Error::HomeserverTimeout("slow".to_owned())));
    let late = resets.type_into_page(&mailed.link, "mine").await;
    assert_eq!(late.status, 504);

    let typed = resets
        .app
        .post(SUBMIT, &shown(&mailed.sid, &mailed.code))
        .await;
    let handed = resets
        .app
        .submit_form(&mailed.link, &[("continue", "app")])
        .await;

    assert_eq!(typed.errcode(), "M_SESSION_EXPIRED");
    assert_eq!(handed.status, 409);
    assert!(handed.text.contains("name=\"new_password\""));
    assert_eq!(resets.set(&mailed.sid, "stolen").await.status, 401);
    resets.accounts.fail(None);
    let other = resets.type_into_page(&mailed.link, "another").await;
    assert_eq!(other.status, 409, "the first one may be set yet");
    assert_eq!(resets.accounts.resets().len(), 1);
    let again = resets.type_into_page(&mailed.link, "mine").await;
    assert!(again.text.contains(CHANGED), "{}", again.text);
    assert_eq!(resets.password(), "mine");
    let typed = resets
        .app
        .post(SUBMIT, &shown(&mailed.sid, &mailed.code))
        .await;
    assert_eq!(typed.errcode(), "M_SESSION_EXPIRED", "nor when it is done");
}

#[tokio::test]
async fn a_code_that_was_typed_before_hands_the_reset_to_the_app() {
    let resets = Resets::new().await;
    let proved = resets.proved().await;

    let page = resets.app.get(&proved.link, &[]).await;
    let late = resets.type_into_page(&proved.link, "mine").await;

    assert!(page.text.contains(HANDED) && !page.text.contains("<form"));
    assert_eq!(late.status, 409);
    assert!(late.text.contains("was not changed here"), "{}", late.text);
    assert_eq!(resets.set(&proved.sid, "new").await.status, 200);
    assert_eq!(resets.password(), "new");
    let page = resets.app.get(&proved.link, &[]).await;
    assert!(page.text.contains(CHANGED), "and then that is what it says");
}

#[tokio::test]
async fn the_other_button_hands_the_reset_to_the_app_and_nothing_else_does() {
    let resets = Resets::new().await;
    let mailed = resets.mailed().await;
    for form in [&[][..], &[("continue", "no")], &[("x", "y")]] {
        let page = resets.app.submit_form(&mailed.link, form).await;
        assert_eq!(page.status, 400);
        assert!(page.text.contains("name=\"new_password\""), "{}", page.text);
        assert_eq!(resets.set(&mailed.sid, "stolen").await.status, 401);
    }

    let form = [("continue", "app")];
    let page = resets.app.submit_form(&mailed.link, &form).await;

    assert_eq!(page.status, 200);
    assert!(page.text.contains(HANDED), "{}", page.text);
    assert_eq!(resets.set(&mailed.sid, "new").await.status, 200);
}

#[tokio::test]
async fn the_next_link_is_offered_to_whoever_continues_in_the_app_alone() {
    let next = json!("https://app.example.org/reset");
    for listed in [false, true] {
        let hosts: &[&str] = if listed { &["app.example.org"] } else { &[] };
        let policy = NextLinkPolicy::new(hosts.iter().copied()).unwrap();
        let resets = Resets::with(|builder| builder.next_links(policy)).await;
        let mut body = alice(1);
        body["next_link"] = next.clone();
        let mailed = resets.asked(&body).await;

        let page = resets.app.get(&mailed.link, &[]).await;
        let done = resets.type_into_page(&mailed.link, "mine").await;

        assert!(!page.text.contains("app.example.org"));
        let policy = page.header("content-security-policy");
        assert_eq!(policy.contains("https://app.example.org"), listed);
        assert_eq!(done.status, 200);
        let again = resets
            .app
            .submit_form(&mailed.link, &[("continue", "app")])
            .await;
        for page in [done, again, resets.app.get(&mailed.link, &[]).await] {
            assert!(page.text.contains(CHANGED), "{}", page.text);
            assert!(!page.text.contains("app.example.org"));
        }
    }
}

#[tokio::test]
async fn what_was_typed_wrongly_is_said_and_not_shown() {
    let resets = Resets::new().await;
    resets.accounts.demand(PasswordPolicy {
        minimum_length: 8,
        ..PasswordPolicy::default()
    });
    let link = resets.mailed().await.link;
    let long = "x".repeat(513);
    for (new, again, words) in [
        ("hunter2!", "hunter3!", "not the same"),
        ("hunter2", "hunter2", "at least 8 characters"),
        ("", "", "is empty"),
        (&long, &long, "too long"),
    ] {
        let fields = [("new_password", new), ("new_password_again", again)];
        let page = resets.app.submit_form(&link, &fields).await;

        assert_eq!(page.status, 400);
        assert!(page.text.contains(words), "{}", page.text);
        assert!(page.text.contains("name=\"new_password_again\""));
        assert!(!page.text.contains("hunter") && !page.text.contains(&long));
        assert!(!page.text.contains(" checked"), "devices stay as they were");
    }
    assert!(resets.accounts.resets().is_empty());
    assert_eq!(
        resets.type_into_page(&link, "long enough").await.status,
        200
    );
}

#[tokio::test]
async fn the_page_says_what_a_password_needs() {
    let resets = Resets::new().await;
    resets.accounts.demand(PasswordPolicy {
        minimum_length: 8,
        require_digit: true,
        ..PasswordPolicy::default()
    });
    let page = resets.app.get(&resets.mailed().await.link, &[]).await;
    assert!(page.text.contains("needs at least 8 characters, a digit."));
    assert!(page.text.contains("minlength=\"8\""));
}

#[tokio::test]
async fn a_homeserver_that_fails_leaves_the_page_as_it_was() {
    let resets = Resets::new().await;
    let mailed = resets.mailed().await;
    for (fault, status) in [
        (Error::HomeserverFailed("disk full".to_owned()), 502),
        (
            Error::Limited {
                retry_after: Duration::from_secs(5),
            },
            429,
        ),
    ] {
        resets.accounts.fail(Some(fault));
        let page = resets.type_into_page(&mailed.link, "mine").await;
        assert_eq!(page.status, status);
        assert!(page.text.contains("name=\"new_password\""));
        assert!(!page.text.contains("disk full"));
    }
    resets.accounts.fail(None);
    let page = resets.app.get(&mailed.link, &[]).await;
    assert!(page.text.contains("name=\"new_password\""));
    assert_eq!(
        resets.type_into_page(&mailed.link, "mine").await.status,
        200
    );
}

#[tokio::test]
async fn an_address_that_the_account_lost_sets_nothing() {
    let resets = Resets::new().await;
    let link = resets.mailed().await.link;
    resets.accounts.fail(Some(Error::AccountGone));

    let page = resets.type_into_page(&link, "mine").await;

    assert_eq!(page.status, 404);
    assert!(page.text.contains("does not have this address any more"));
    assert_eq!(resets.app.get(&link, &[]).await.status, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_sets_one_password() {
    let resets = Arc::new(Resets::new().await);
    let link = resets.mailed().await.link;
    let clicks: Vec<_> = (0..10)
        .map(|_| {
            let (resets, link) = (Arc::clone(&resets), link.clone());
            tokio::spawn(async move { resets.type_into_page(&link, "mine").await })
        })
        .collect();
    for click in clicks {
        assert!(click.await.unwrap().text.contains(CHANGED));
    }
    assert_eq!(resets.accounts.resets().len(), 1);
    assert_eq!(resets.app.mails().await.len(), 1);
}

#[tokio::test]
async fn where_it_can_not_finish_there_is_the_one_button() {
    let off = Resets::with(|builder| builder.finish_password_reset(false)).await;
    let none = Resets::new().await;
    none.accounts.set_none();
    for resets in [off, none] {
        let mailed = resets.mailed().await;

        let page = resets.app.get(&mailed.link, &[]).await;
        let typed = resets.type_into_page(&mailed.link, "mine").await;

        assert!(page.text.contains("continue there"));
        assert!(!page.text.contains("new_password"));
        assert_eq!(typed.status, 403);
        assert!(resets.accounts.resets().is_empty());
        assert_eq!(
            resets.set(&mailed.sid, "new").await.status.as_u16() / 100,
            4
        );
    }
}

#[tokio::test]
async fn a_form_from_elsewhere_or_of_another_kind_is_refused() {
    let resets = Resets::new().await;
    let link = resets.mailed().await.link;
    let send = |content_type: &'static str, site: &'static str, body: &'static str| {
        let request = http::Request::post(&link)
            .header("content-type", content_type)
            .header("sec-fetch-site", site)
            .body(axum::body::Body::from(body))
            .unwrap();
        resets.app.send(request)
    };
    let typed = "new_password=a&new_password_again=a";

    assert_eq!(send(FORM, "cross-site", typed).await.status, 403);
    for (content_type, body) in [
        ("text/plain", typed),
        ("application/json", "{}"),
        (FORM, "new_password=%FF&new_password_again=%FF"),
        (FORM, "new_password=a&new_password=a"),
        (FORM, "something=else"),
    ] {
        assert_eq!(
            send(content_type, "same-origin", body).await.status,
            400,
            "{body}"
        );
    }
    assert!(resets.accounts.resets().is_empty());
    let huge = format!("new_password={}", "a".repeat(70_000));
    let request = http::Request::post(&link).header("content-type", FORM);
    let huge = resets.app.send(request.body(huge.into()).unwrap()).await;
    assert_eq!(huge.status, 413);
}

#[tokio::test]
async fn the_page_is_limited_like_other_submissions() {
    let limits = limits::Settings {
        per_source_submit: Rate::new(2, Duration::from_hours(1)),
        ..limits::Settings::OFF
    };
    let resets = Resets::with(|builder| builder.limits(limits)).await;
    let link = resets.mailed().await.link;
    for _ in 0..2 {
        let fields = [("new_password", "a"), ("new_password_again", "b")];
        assert_eq!(resets.app.submit_form(&link, &fields).await.status, 400);
    }
    let limited = resets.type_into_page(&link, "mine").await;
    assert_eq!(limited.status, 429);
    assert!(!limited.header("retry-after").is_empty());
}
