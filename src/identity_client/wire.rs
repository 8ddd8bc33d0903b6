//! The bodies that identity servers are sent: the fields of the Identity Service API, and no others.

use std::borrow::Cow;

use serde::Serialize;
use url::form_urlencoded;

use super::{Pair, TokenRequest};
use crate::{
    phone,
    secret::ClientSecret,
    threepid::{Medium, Threepid},
};

/// Where a number that begins with `+` is said to be dialled from if its own country is not known: any will do.
const ANY_COUNTRY: &str = "US";

/// `validate/{email,msisdn}/requestToken`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum RequestToken<'a> {
    Email {
        client_secret: Cow<'a, str>,
        email: &'a str,
        send_attempt: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_link: Option<&'a str>,
    },
    Msisdn {
        client_secret: Cow<'a, str>,
        country: Cow<'a, str>,
        phone_number: String,
        send_attempt: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_link: Option<&'a str>,
    },
}

impl<'a> From<TokenRequest<'a>> for RequestToken<'a> {
    fn from(request: TokenRequest<'a>) -> Self {
        let client_secret = reveal(request.client_secret);
        let address = request.threepid.address();
        match request.threepid.medium() {
            Medium::Email => Self::Email {
                client_secret,
                email: address,
                send_attempt: request.send_attempt,
                next_link: request.next_link,
            },
            Medium::Msisdn => Self::Msisdn {
                client_secret,
                country: phone::country(address).map_or(Cow::Borrowed(ANY_COUNTRY), Cow::Owned),
                phone_number: format!("+{address}"),
                send_attempt: request.send_attempt,
                next_link: request.next_link,
            },
        }
    }
}

/// A session, on its own or with what is done to it.
#[derive(Serialize)]
pub(super) struct Session<'a> {
    sid: &'a str,
    client_secret: Cow<'a, str>,
}

impl Session<'_> {
    /// As a query string, percent-encoded.
    pub(super) fn query(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("sid", self.sid)
            .append_pair("client_secret", &self.client_secret)
            .finish()
    }
}

impl<'a> From<Pair<'a>> for Session<'a> {
    fn from(pair: Pair<'a>) -> Self {
        Self {
            sid: pair.sid.as_str(),
            client_secret: reveal(pair.client_secret),
        }
    }
}

/// `validate/{email,msisdn}/submitToken`.
#[derive(Serialize)]
pub(super) struct SubmitToken<'a> {
    #[serde(flatten)]
    pub(super) session: Session<'a>,
    pub(super) token: &'a str,
}

/// `3pid/bind`.
#[derive(Serialize)]
pub(super) struct Bind<'a> {
    #[serde(flatten)]
    pub(super) session: Session<'a>,
    pub(super) mxid: &'a str,
}

/// `3pid/unbind`.
#[derive(Serialize)]
pub(super) struct Unbind<'a> {
    mxid: &'a str,
    threepid: Named<'a>,
    #[serde(flatten)]
    session: Option<Session<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    medium: &'a str,
    address: &'a str,
}

impl<'a> Unbind<'a> {
    pub(super) fn new(mxid: &'a str, threepid: &'a Threepid, session: Option<Pair<'a>>) -> Self {
        Self {
            mxid,
            threepid: Named {
                medium: threepid.medium().as_str(),
                address: threepid.address(),
            },
            session: session.map(Session::from),
        }
    }
}

fn reveal(secret: &ClientSecret) -> Cow<'_, str> {
    // Its grammar is ASCII: nothing is lost.
    String::from_utf8_lossy(secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::Sid;

    #[test]
    fn bodies_have_the_fields_of_the_api_alone() {
        let (email, phone) = (
            Threepid::email("Alice@Example.org").unwrap(),
            Threepid::msisdn("GB", "07400 123456").unwrap(),
        );
        let (secret, sid) = (
            ClientSecret::parse("s3cret").unwrap(),
            Sid::parse("123").unwrap(),
        );
        let request = |threepid, next_link| {
            let client_secret = &secret;
            let request = TokenRequest {
                threepid,
                client_secret,
                send_attempt: 2,
                next_link,
            };
            serde_json::to_value(RequestToken::from(request)).unwrap()
        };
        let pair = Pair {
            sid: &sid,
            client_secret: &secret,
        };
        let unbind = |session| serde_json::to_value(Unbind::new("@a:b", &email, session)).unwrap();
        let threepid = json!({"medium": "email", "address": "alice@example.org"});

        for (body, expected) in [
            (
                request(&email, None),
                json!({"client_secret": "s3cret", "email": "alice@example.org", "send_attempt": 2}),
            ),
            (
                request(&phone, Some("https://app.example/")),
                json!({"client_secret": "s3cret", "country": "GB", "phone_number": "+447400123456",
                       "send_attempt": 2, "next_link": "https://app.example/"}),
            ),
            (unbind(None), json!({"mxid": "@a:b", "threepid": threepid})),
            (
                unbind(Some(pair)),
                json!({"mxid": "@a:b", "threepid": threepid, "sid": "123", "client_secret": "s3cret"}),
            ),
        ] {
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn a_query_has_no_way_out() {
        // The grammars leave nothing to encode; should they ever be widened, this still holds.
        let session = Session {
            sid: "1&sid=2",
            client_secret: Cow::Borrowed("a b#c%"),
        };
        assert_eq!(session.query(), "sid=1%26sid%3D2&client_secret=a+b%23c%25");
    }
}
