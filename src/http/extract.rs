//! From a request to our types.

use std::{fmt, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{
        header::{AUTHORIZATION, USER_AGENT},
        request::Parts,
    },
};
use futures_util::StreamExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{App, peer::Peer};
use crate::{
    error::{Error, Result},
    homeserver::Origin,
    secret::AccessToken,
    source::Source,
    threepid::{Medium, Threepid},
};

/// The largest body that is read, in KiB.
const MOST_KIB: usize = 64;
/// The largest body of a request that may name thousands of addresses, in KiB.
const MOST_KIB_OF_LARGE: usize = 1024;
/// How many of those that are larger than any other may be are read at one time.
const MOST_LARGE: usize = 32;
/// How long a client may take to send its body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The greatest integer that Matrix knows.
const MOST: i64 = (1 << 53) - 1;
/// The same as a floating-point number.
const MOST_AS_FLOAT: f64 = 9_007_199_254_740_991.0;

/// The JSON object of a request, whatever its `Content-Type` says.
#[derive(Debug)]
pub(crate) struct MatrixJson(pub(crate) Object);

/// The same where the body may be larger; only for requests of a known account, which is looked for first.
#[derive(Debug)]
pub(crate) struct LargeJson(pub(crate) Object);

/// A JSON object in which no key stands twice. Keys that nobody asks for are ignored.
pub(crate) struct Object(Map<String, Value>);

impl Object {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::BadJson`] for anything but an object, or for a key that stands twice.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body).map_err(|error| {
            // What is no object may be no JSON either, further on.
            if error.is_data() && serde_json::from_slice::<Value>(body).is_ok() {
                Error::BadJson("The request body must be a JSON object, with no key twice.".into())
            } else {
                Error::NotJson
            }
        })
    }

    /// Reads a form, or a query (`application/x-www-form-urlencoded`): all values are strings.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] if a key stands twice.
    pub(crate) fn from_form(text: &[u8]) -> Result<Self> {
        let mut map = Map::new();
        for (key, value) in url::form_urlencoded::parse(text) {
            if map
                .insert(key.into_owned(), Value::String(value.into_owned()))
                .is_some()
            {
                return Err(Error::invalid("No key may stand twice."));
            }
        }
        Ok(Self(map))
    }

    /// Takes a string of digits for the integer that it writes.
    pub(crate) fn read_integer(&mut self, key: &str) {
        if let Some(value) = self.0.get_mut(key)
            && let Some(number) = value.as_str().and_then(|text| text.parse::<u64>().ok())
        {
            *value = number.into();
        }
    }

    /// All keys and values.
    pub(crate) fn entries(&self) -> &Map<String, Value> {
        &self.0
    }

    /// A required string.
    pub(crate) fn string(&self, key: &'static str) -> Result<&str> {
        text(&self.0, key)
    }

    /// An optional string; `null` is none.
    pub(crate) fn optional_string(&self, key: &'static str) -> Result<Option<&str>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .ok_or_else(|| wrong_type(key, "a string")),
        }
    }

    /// An optional string that is never an error: the empty string is none, and so is a value of another type.
    pub(crate) fn lenient_string(&self, key: &str) -> Option<String> {
        match self.0.get(key) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    /// Takes out a required array of strings.
    pub(crate) fn take_strings(&mut self, key: &'static str) -> Result<Vec<String>> {
        let wrong = || wrong_type(key, "an array of strings");
        let value = self.0.remove(key).ok_or(Error::MissingParam(key))?;
        let Value::Array(values) = value else {
            return Err(wrong());
        };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong()),
        };
        values.into_iter().map(text).collect()
    }

    /// An optional truth value; `null` is none.
    pub(crate) fn optional_bool(&self, key: &'static str) -> Result<Option<bool>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_bool()
                .map(Some)
                .ok_or_else(|| wrong_type(key, "true or false")),
        }
    }

    /// Any value; `null` is none.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A required integer from 0 to 2^53 − 1.
    pub(crate) fn count(&self, key: &'static str) -> Result<i64> {
        let value = self.0.get(key).ok_or(Error::MissingParam(key))?;
        let out_of_range = || {
            Error::invalid(format!(
                "The key {key} must lie between 0 and 9007199254740991."
            ))
        };
        match (value.as_i64(), value.as_f64()) {
            (Some(count @ 0..=MOST), _) => Ok(count),
            (Some(_), _) => Err(out_of_range()),
            // Written with a fraction or an exponent it is no integer of JSON, unless it is too large for one.
            (None, Some(number)) if number.fract() == 0.0 && number.abs() > MOST_AS_FLOAT => {
                Err(out_of_range())
            }
            _ => Err(wrong_type(key, "an integer")),
        }
    }
}

/// A required string of an object.
pub(crate) fn text<'a>(holder: &'a Map<String, Value>, key: &'static str) -> Result<&'a str> {
    let value = holder.get(key).ok_or(Error::MissingParam(key))?;
    value.as_str().ok_or_else(|| wrong_type(key, "a string"))
}

/// The address that an object names by `medium` and `address`.
///
/// # Errors
/// Besides those of [`text`], [`Error::InvalidParam`] for an unknown medium; those of [`Threepid::parse`].
pub(crate) fn threepid(holder: &Map<String, Value>) -> Result<Threepid> {
    let medium = Medium::parse(text(holder, "medium")?)
        .ok_or_else(|| Error::invalid("medium must be email or msisdn"))?;
    Threepid::parse(medium, text(holder, "address")?)
}

fn wrong_type(key: &'static str, wanted: &'static str) -> Error {
    Error::BadJson(format!("The key {key} must be {wanted}.").into())
}

impl fmt::Debug for Object {
    /// The keys alone: values are secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NoKeyTwice;

        impl<'de> Visitor<'de> for NoKeyTwice {
            type Value = Object;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut map = Map::new();
                let mut twice = false;
                while let Some((key, value)) = entries.next_entry()? {
                    twice |= map.insert(key, value).is_some();
                }
                if twice {
                    Err(serde::de::Error::custom("a key stands twice"))
                } else {
                    Ok(Object(map))
                }
            }
        }

        from.deserialize_map(NoKeyTwice)
    }
}

impl<S: Send + Sync> FromRequest<S> for MatrixJson {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        Ok(Self(Object::parse(&read_body(request).await?)?))
    }
}

/// Turns for bodies that are larger than any other may be.
static LARGE: Semaphore = Semaphore::const_new(MOST_LARGE);

impl<S: Send + Sync> FromRequest<S> for LargeJson {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        large_object(&LARGE, request.into_body()).await.map(Self)
    }
}

/// Reads a large body and what is in it.
async fn large_object(turns: &Semaphore, body: Body) -> Result<Object> {
    let read = timeout(BODY_TIME, read_large(turns, body)).await;
    let (body, _turn) = read.map_err(|_| Error::RequestTimeout)??;
    Object::parse(&body)
}

/// Reads a large body, and gives it with the turn that it took, if any; dropped, the turn ends.
///
/// A body waits for its turn only once it is larger than any other may be: whoever lets small ones drip in holds up nobody.
async fn read_large(
    turns: &Semaphore,
    body: Body,
) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>)> {
    let mut parts = Limited::new(body, MOST_KIB_OF_LARGE * 1024).into_data_stream();
    let (mut bytes, mut turn) = (Vec::new(), None);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| broken(&*error, MOST_KIB_OF_LARGE))?;
        if turn.is_none() && bytes.len() + part.len() > MOST_KIB * 1024 {
            let next = turns.acquire().await;
            turn = Some(next.expect("the turns never end"));
        }
        bytes.extend_from_slice(&part);
    }
    Ok((bytes, turn))
}

/// The body of a request, if it is not too large and does not take too long.
pub(crate) async fn read_body(request: Request) -> Result<Bytes> {
    let body = Limited::new(request.into_body(), MOST_KIB * 1024).collect();
    let body = timeout(BODY_TIME, body)
        .await
        .map_err(|_| Error::RequestTimeout)?;
    let body = body.map_err(|error| broken(&*error, MOST_KIB))?;
    Ok(body.to_bytes())
}

/// Why a body did not come to its end.
fn broken(error: &(dyn std::error::Error + Send + Sync + 'static), most_kib: usize) -> Error {
    if error.is::<LengthLimitError>() {
        Error::TooLarge { most_kib }
    } else {
        Error::NotJson
    }
}

/// Lets a body come to its end, and keeps nothing of it: to a client that is still sending, an answer before would be a
/// broken connection.
pub(crate) async fn skip_large_body(body: Body) {
    let mut left = MOST_KIB_OF_LARGE * 1024;
    let skip = async {
        let mut body = body.into_data_stream();
        while let Some(Ok(part)) = body.next().await {
            left = left.saturating_sub(part.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whoever is too slow for it gets the answer all the same.
    let _ = timeout(BODY_TIME, skip).await;
}

/// The access token of a request: `Authorization: Bearer …`, and nothing else (Client-Server API, "Using access tokens").
#[derive(Clone, Debug)]
pub(crate) struct Bearer(pub(crate) Option<AccessToken>);

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let header = parts.headers.get(AUTHORIZATION);
        let text = header.and_then(|value| value.to_str().ok());
        let token = text.and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            AccessToken::parse(token.trim()).ok().filter(|_| is_bearer)
        });
        Ok(Self(token))
    }
}

/// What the homeserver is told of where a request came from.
#[derive(Clone, Debug)]
pub(crate) struct ClientOrigin(pub(crate) Origin);

impl FromRequestParts<App> for ClientOrigin {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let peer = Peer::of(&parts.extensions);
        let user_agent = parts.headers.get(USER_AGENT);
        Ok(Self(Origin {
            address: app.trusted_proxies.client(peer, &parts.headers),
            user_agent: user_agent
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        }))
    }
}

/// Where a request came from, as far as trusted proxies tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientSource(pub(crate) Source);

impl FromRequestParts<App> for ClientSource {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let peer = Peer::of(&parts.extensions);
        Ok(Self(app.trusted_proxies.source(peer, &parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn parse(body: &str) -> Result<Object> {
        Object::parse(body.as_bytes())
    }

    #[test]
    fn what_is_no_object_is_told_apart_from_what_is_no_json() {
        let deep = "[".repeat(10_000);
        let deep_value = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for body in [
            "",
            "{",
            "email=a%40b.org",
            "{'a':1}",
            "{\"a\":1}x",
            "nul",
            "{\"a\":\"\\ud800\"}",
            &deep,
            &deep_value,
        ] {
            assert_eq!(parse(body).unwrap_err(), Error::NotJson, "{body:.40}");
        }
        assert_eq!(
            Object::parse(b"{\"a\":\"\xff\"}").unwrap_err(),
            Error::NotJson
        );
        for body in ["[]", "null", "1", "\"a\"", "{\"a\":1,\"a\":2}"] {
            assert!(
                matches!(parse(body).unwrap_err(), Error::BadJson(_)),
                "{body}"
            );
        }
        assert!(parse("{\"a\":{\"b\":[1,2,{\"c\":null}]}}").is_ok());
    }

    #[test]
    fn values_have_their_types() {
        let body = parse(r#"{"s":"x","n":null,"i":1}"#).unwrap();
        assert_eq!(body.string("s"), Ok("x"));
        assert_eq!(body.string("none"), Err(Error::MissingParam("none")));
        assert!(matches!(body.string("n"), Err(Error::BadJson(_))));
        assert!(matches!(body.string("i"), Err(Error::BadJson(_))));
        assert_eq!(body.optional_string("n"), Ok(None));
        assert!(matches!(body.optional_string("i"), Err(Error::BadJson(_))));
    }

    #[test]
    fn an_array_of_strings_has_nothing_else_in_it() {
        let mut body = parse(r#"{"none":[],"some":["a","a"]}"#).unwrap();
        assert_eq!(body.take_strings("none"), Ok(vec![]));
        let some = vec!["a".to_owned(), "a".to_owned()];
        assert_eq!(body.take_strings("some"), Ok(some));
        assert_eq!(body.take_strings("x"), Err(Error::MissingParam("x")));
        for text in [
            "null",
            "{}",
            "\"a\"",
            "1",
            "[null]",
            "[\"a\",1]",
            "[[\"a\"]]",
        ] {
            let mut body = parse(&format!("{{\"n\":{text}}}")).unwrap();
            let refused = body.take_strings("n");
            assert!(matches!(refused, Err(Error::BadJson(_))), "{text}");
        }
    }

    #[test]
    fn counts_are_integers_that_matrix_knows() {
        for (text, wanted) in [("0", 0), ("1", 1), ("9007199254740991", MOST)] {
            assert_eq!(
                parse(&format!("{{\"n\":{text}}}")).unwrap().count("n"),
                Ok(wanted)
            );
        }
        for text in [
            "-1",
            "9007199254740992",
            "9223372036854775807",
            "99999999999999999999",
            "1e300",
        ] {
            let refused = parse(&format!("{{\"n\":{text}}}")).unwrap().count("n");
            assert!(matches!(refused, Err(Error::InvalidParam(_))), "{text}");
        }
        for text in ["\"1\"", "1.5", "null", "true", "[1]", "{}"] {
            let refused = parse(&format!("{{\"n\":{text}}}")).unwrap().count("n");
            assert!(matches!(refused, Err(Error::BadJson(_))), "{text}");
        }
    }

    #[test]
    fn a_form_is_read_like_an_object_of_strings() {
        let body = b"email=a%2Bb%40c.org&send_attempt=2&x=%zz+y";
        let mut form = Object::from_form(body).unwrap();
        assert_eq!(form.string("email"), Ok("a+b@c.org"));
        assert_eq!(form.string("x"), Ok("%zz y"));
        assert!(form.count("send_attempt").is_err());
        form.read_integer("send_attempt");
        assert_eq!(form.count("send_attempt"), Ok(2));
        assert!(matches!(
            Object::from_form(b"a=1&b=2&a=1").unwrap_err(),
            Error::InvalidParam(_)
        ));
        for text in ["", "-1", "1.0", " 1", "x"] {
            let mut body = parse(&format!("{{\"n\":\"{text}\"}}")).unwrap();
            body.read_integer("n");
            assert!(body.count("n").is_err(), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let shown = format!("{:?}", parse(r#"{"client_secret":"hunter2"}"#).unwrap());
        assert!(shown.contains("client_secret") && !shown.contains("hunter2"));
    }

    /// A body of so many KiB, all of it in small parts.
    fn body_of(kib: usize) -> Vec<Bytes> {
        let mut parts = vec![Bytes::from(vec![b' '; 1024]); kib];
        if let Some(last) = parts.last_mut() {
            *last = Bytes::from(format!("{:>1024}", r#"{"a":1}"#));
        }
        parts
    }

    fn sent(parts: Vec<Bytes>) -> Body {
        let parts = parts.into_iter().map(Ok::<_, std::io::Error>);
        Body::from_stream(futures_util::stream::iter(parts))
    }

    /// A body whose end never comes.
    fn stalled(kib: usize) -> Body {
        let parts = body_of(kib).into_iter().map(Ok::<_, std::io::Error>);
        let never = futures_util::stream::pending();
        Body::from_stream(futures_util::stream::iter(parts).chain(never))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_any_request_may_have_needs_no_turn() {
        let none = Semaphore::new(0);

        let read = large_object(&none, sent(body_of(MOST_KIB))).await;

        assert_eq!(read.unwrap().count("a"), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_drip_and_are_small_take_no_turn() {
        let one = Semaphore::new(1);
        let mut dripping = Box::pin(large_object(&one, stalled(MOST_KIB)));
        assert!(futures_util::poll!(&mut dripping).is_pending());

        let read = large_object(&one, sent(body_of(MOST_KIB + 1))).await;

        assert!(read.is_ok(), "{read:?}");
        assert_eq!(dripping.await.unwrap_err(), Error::RequestTimeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_larger_body_waits_for_its_turn_no_longer_than_for_the_rest_of_it() {
        let one = Semaphore::new(1);
        let mut held = Box::pin(large_object(&one, stalled(MOST_KIB + 1)));
        assert!(futures_util::poll!(&mut held).is_pending());
        let mut next = Box::pin(large_object(&one, sent(body_of(MOST_KIB + 1))));
        assert!(futures_util::poll!(&mut next).is_pending(), "for its turn");

        drop(held);
        let read = next.await;
        let _held = one.acquire().await.unwrap();
        let began = Instant::now();
        let in_vain = large_object(&one, sent(body_of(MOST_KIB + 1))).await;

        assert!(read.is_ok(), "{read:?}");
        assert_eq!(in_vain.unwrap_err(), Error::RequestTimeout);
        assert_eq!(began.elapsed().as_secs(), BODY_TIME.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_has_an_end_too() {
        let one = Semaphore::new(1);

        let largest = large_object(&one, sent(body_of(MOST_KIB_OF_LARGE))).await;
        let too_large = large_object(&one, sent(body_of(MOST_KIB_OF_LARGE + 1))).await;
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        let broken = large_object(&one, Body::from_stream(broken)).await;

        assert!(largest.is_ok(), "{largest:?}");
        let most_kib = MOST_KIB_OF_LARGE;
        assert_eq!(too_large.unwrap_err(), Error::TooLarge { most_kib });
        assert_eq!(broken.unwrap_err(), Error::NotJson);
        assert_eq!(one.available_permits(), 1);
    }
}
