//! What is fuzzed: plain functions, which the property tests call with made-up inputs and `cargo fuzz` with found ones.
//!
//! Each panics if a promise breaks.

use threepid::{
    error::{Dialect, Error},
    http::read_email_request,
    next_link::{NextLink, NextLinkPolicy},
    session::Purpose,
    source::Source,
    threepid::Threepid,
};
use url::Url;

/// An address that is taken is canonical, bare and stays what it is when it is read again.
pub(super) fn address(text: &str) {
    let Ok(taken) = Threepid::email(text) else {
        return;
    };
    let address = taken.address();
    assert_eq!(address.matches('@').count(), 1, "{address:?}");
    assert!(
        !address
            .chars()
            .any(|letter| letter.is_control() || letter.is_whitespace() || "%!".contains(letter)),
        "{address:?}"
    );
    assert!(
        address
            .rsplit('@')
            .next()
            .is_some_and(|domain| domain.is_ascii() && domain == domain.to_ascii_lowercase())
    );
    assert_eq!(
        Threepid::email(address).as_ref(),
        Ok(&taken),
        "canonical form is a fixed point"
    );
    let mailbox = taken.mailbox();
    assert!(
        mailbox.ends_with(&format!("@{}", taken.domain())) && mailbox.matches('@').count() == 1,
        "{mailbox:?}"
    );
    assert!(
        !taken.masked().contains(address),
        "a mask hides the address"
    );
}

/// A number that is taken is digits alone, and the same wherever it is read again.
pub(super) fn phone(country: &str, typed: &str) {
    let Ok(taken) = Threepid::msisdn(country, typed) else {
        return;
    };
    let digits = taken.address();
    assert!(
        (5..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0'),
        "{digits:?}"
    );
    for elsewhere in [country, "GB", "US", "IT", "AR", "BR", "AQ"] {
        let again = Threepid::msisdn(elsewhere, &format!("+{digits}"));
        assert_eq!(again.as_ref(), Ok(&taken), "read in {elsewhere}");
    }
    assert!(!taken.masked().contains(digits), "a mask hides the number");
}

/// A link that is taken is what browsers take it for, with and without the `sid`.
pub(super) fn next_link(text: &str) {
    let open = NextLinkPolicy::default();
    if let Ok(taken) = NextLink::parse(text, &open) {
        let url = Url::parse(text).expect("what is taken is a URL");
        assert!(matches!(url.scheme(), "http" | "https"), "{text:?}");
        assert!(
            url.username().is_empty() && url.password().is_none(),
            "{text:?}"
        );
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
        let host = url.host_str().expect("a web page has a host");
        assert!(
            taken.destination().starts_with(host),
            "what a person reads is where the browser goes: {text:?}"
        );
        let with_sid = taken.with_sid("AAAA");
        assert_eq!(
            Url::parse(&with_sid).map(|url| url.origin()),
            Ok(url.origin()),
            "{text:?}"
        );
        assert!(with_sid.starts_with(text) && with_sid.ends_with("sid=AAAA"));
    }
    let listed = NextLinkPolicy::new(["app.example.org", "io.example.app:"]).expect("a list");
    if NextLink::parse(text, &listed).is_ok() {
        let url = Url::parse(text).expect("what is taken is a URL");
        assert!(
            url.host_str() == Some("app.example.org") || url.scheme() == "io.example.app",
            "{text:?}"
        );
    }
}

/// A body is read or refused with a 400 in Matrix's words; what is read keeps every promise of its type.
pub(super) fn body(bytes: &[u8]) {
    let policy = NextLinkPolicy::default();
    match read_email_request(Purpose::Register, bytes, &policy, Source::Unknown) {
        Ok(request) => {
            assert!((0..=(1 << 53) - 1).contains(&request.send_attempt));
            address(request.threepid.address());
        }
        Err(error) => {
            let (status, errcode) = error.wire(Dialect::Client);
            assert_eq!(status.as_u16(), 400, "{error:?}");
            assert!(matches!(
                errcode,
                "M_NOT_JSON" | "M_BAD_JSON" | "M_MISSING_PARAM" | "M_INVALID_PARAM"
            ));
            assert!(!matches!(error, Error::Internal(_) | Error::Unavailable(_)));
        }
    }
}
