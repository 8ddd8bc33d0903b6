//! The request that a description makes, its placeholders still open.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Method as HttpMethod, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Url, form_urlencoded};

use super::{
    settings::{Auth, GatewaySettings, Method},
    template::{JsonTemplate, Placeholder, Template, Values},
};
use crate::loopback::is_loopback_url;

/// What need not be encoded anywhere in a URL (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Header fields that belong to the connection, not to the request.
const FORBIDDEN: [HeaderName; 6] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
];

/// A request whose placeholders are filled for each message.
pub(super) struct RequestTemplate {
    method: HttpMethod,
    url: Template,
    headers: Vec<(HeaderName, Template)>,
    auth: Auth,
    body: Body,
}

enum Body {
    None,
    Json(JsonTemplate),
    Form(Vec<(Template, Template)>),
}

impl RequestTemplate {
    /// Reads a description that a preset has completed; `at` is the gateway's name in the configuration. Gives a URL
    /// of the request, too, with the host that all have.
    ///
    /// # Errors
    /// Which setting can not be used, and what to write instead.
    pub(super) fn new(settings: &GatewaySettings, at: &str) -> Result<(Self, Url), String> {
        let (url, sample) = url(settings.url.as_deref(), at)?;
        let request = Self {
            method: match settings.method.unwrap_or_default() {
                Method::Post => HttpMethod::POST,
                Method::Get => HttpMethod::GET,
                Method::Put => HttpMethod::PUT,
            },
            url,
            headers: headers(settings, at)?,
            auth: settings.auth.unwrap_or_default(),
            body: body(settings, at)?,
        };
        Ok((request, sample))
    }

    /// Whether `placeholder` is anywhere in it.
    pub(super) fn has(&self, placeholder: Placeholder) -> bool {
        let in_body = match &self.body {
            Body::None => false,
            Body::Json(json) => json.has(placeholder),
            Body::Form(pairs) => pairs
                .iter()
                .any(|(key, value)| key.has(placeholder) || value.has(placeholder)),
        };
        let mut headers = self.headers.iter().map(|(_, value)| value);
        in_body || self.url.has(placeholder) || headers.any(|value| value.has(placeholder))
    }

    /// The request, or nothing if a value does not fit where the description wants it.
    pub(super) fn fill(
        &self,
        client: &reqwest::Client,
        values: &Values<'_>,
    ) -> Option<reqwest::Request> {
        let url = Url::parse(&self.url.fill_with(values, encode)).ok()?;
        let mut request = client.request(self.method.clone(), url);
        request = match self.auth {
            Auth::None => request,
            Auth::Basic => request.basic_auth(values.username, Some(values.password)),
            Auth::Bearer => request.bearer_auth(values.password),
        };
        if let Some((content_type, bytes)) = self.body.fill(values) {
            request = request
                .header(header::CONTENT_TYPE, content_type)
                .body(bytes);
        }
        let mut request = request.build().ok()?;
        for (name, value) in &self.headers {
            let mut value = HeaderValue::from_str(&value.fill(values)).ok()?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        Some(request)
    }
}

impl Body {
    fn fill(&self, values: &Values<'_>) -> Option<(&'static str, Vec<u8>)> {
        match self {
            Self::None => None,
            Self::Json(json) => {
                let bytes = json.fill(values).to_string().into_bytes();
                Some(("application/json", bytes))
            }
            Self::Form(pairs) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                for (key, value) in pairs {
                    form.append_pair(&key.fill(values), &value.fill(values));
                }
                let bytes = form.finish().into_bytes();
                Some(("application/x-www-form-urlencoded", bytes))
            }
        }
    }
}

fn encode(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, ENCODED).into()
}

/// The template of a URL, and a URL that it may become.
fn url(text: Option<&str>, at: &str) -> Result<(Template, Url), String> {
    const FORM: &str = "write one such as \"https://sms.example.org/send\"";
    let text = text.ok_or_else(|| format!("{at}.url is missing; {FORM}, or name a preset"))?;
    let refuse = |why: &str| format!("{at}.url {why}; {FORM}");
    let template = Template::parse(text).map_err(|why| format!("{at}.url {why}"))?;
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| refuse("is no whole URL"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme.contains('{') || authority.contains('{') {
        return Err(refuse("has a placeholder before its path"));
    }
    let values = Values {
        to: "0",
        text: "0",
        sender: "0",
        id: "0",
        username: "0",
        password: "0",
        account: "0",
        channel: "0",
    };
    let sample = Url::parse(&template.fill_with(&values, encode));
    let sample = sample.map_err(|_| refuse("is no whole URL"))?;
    match sample.scheme() {
        "https" => {}
        "http" if is_loopback_url(&sample) => {}
        _ => {
            return Err(refuse(
                "must begin with https:// (or http:// on your own machine)",
            ));
        }
    }
    if !sample.username().is_empty() || sample.password().is_some() {
        return Err(format!(
            "{at}.url must not hold a user name or password; set {at}.username, {at}.password and {at}.auth"
        ));
    }
    if sample.fragment().is_some() {
        return Err(refuse("must not hold a #"));
    }
    Ok((template, sample))
}

fn headers(settings: &GatewaySettings, at: &str) -> Result<Vec<(HeaderName, Template)>, String> {
    let one = |(name, value): (&String, &String)| {
        let at = format!("{at}.headers.{name}");
        let value = Template::parse(value).map_err(|why| format!("{at} {why}"))?;
        if value.has(Placeholder::Text) || value.has(Placeholder::TextCr) {
            return Err(format!(
                "{at} has the text, which may have more than one line; write {{text}} in json, form or url"
            ));
        }
        match HeaderName::try_from(name) {
            Ok(name) if !FORBIDDEN.contains(&name) => Ok((name, value)),
            _ => Err(format!(
                "{at} is no header field that can be set; write a name such as X-Api-Key"
            )),
        }
    };
    settings.headers.iter().map(one).collect()
}

fn body(settings: &GatewaySettings, at: &str) -> Result<Body, String> {
    let is_get = settings.method == Some(Method::Get);
    match (&settings.json, &settings.form) {
        (None, None) => Ok(Body::None),
        (Some(_), Some(_)) => Err(format!("{at} has both json and form; write one of them")),
        _ if is_get => Err(format!(
            "{at} has a body, but method = \"GET\" sends none; write method = \"POST\""
        )),
        (Some(json), None) => JsonTemplate::parse(json)
            .map(Body::Json)
            .map_err(|why| format!("{at}.json {why}")),
        (None, Some(form)) => {
            let pair = |(key, value): (&String, &String)| {
                let read =
                    |text| Template::parse(text).map_err(|why| format!("{at}.form.{key} {why}"));
                Ok((read(key)?, read(value)?))
            };
            let pairs: Result<_, String> = form.iter().map(pair).collect();
            pairs.map(Body::Form)
        }
    }
}
