//! What is asked: each request has an address or a number and a `client_secret` of its own.

use crate::load::post;

const EMAIL: &str = "/_matrix/client/v3/register/email/requestToken";
const MSISDN: &str = "/_matrix/client/v3/register/msisdn/requestToken";
/// The last digits of each number.
const SUFFIX: usize = 1_000_000;
/// Countries, and how mobile numbers there begin when people write them; six digits follow.
const COUNTRIES: [(&str, &str); 8] = [
    ("GB", "07400"),
    ("US", "2012"),
    ("DE", "015120"),
    ("FR", "0612"),
    ("IN", "9876"),
    ("BR", "11970"),
    ("ES", "612"),
    ("JP", "09012"),
];

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An email address that is handled here.
    Email,
    /// A phone number that is handled here.
    Phone,
    /// An email address that an identity server validates.
    Proxied,
}

/// Each follows the other, so that what the machine does beside meets all alike.
pub(crate) const KINDS: [Kind; 3] = [Kind::Email, Kind::Phone, Kind::Proxied];

/// Makes requests, no two alike.
#[derive(Default)]
pub(crate) struct Requests {
    made: usize,
}

impl Requests {
    /// The next requests of a kind; `id_server` is named by those that are proxied.
    pub(crate) fn next(&mut self, kind: Kind, count: usize, id_server: &str) -> Vec<Vec<u8>> {
        let first = self.made;
        self.made += count;
        (first..self.made)
            .map(|number| request(kind, number, id_server))
            .collect()
    }
}

fn request(kind: Kind, number: usize, id_server: &str) -> Vec<u8> {
    let common = format!(r#""client_secret":"benchmark.secret.{number:07}","send_attempt":1"#);
    match kind {
        Kind::Email => post(EMAIL, &format!("{{{common},{}}}", email(number))),
        Kind::Phone => post(MSISDN, &format!("{{{common},{}}}", phone(number))),
        Kind::Proxied => {
            let server = format!(r#""id_server":"{id_server}","id_access_token":"a.token.there""#);
            post(EMAIL, &format!("{{{common},{},{server}}}", email(number)))
        }
    }
}

fn email(number: usize) -> String {
    format!(r#""email":"someone{number:07}@example.org""#)
}

fn phone(number: usize) -> String {
    let (country, prefix) = COUNTRIES[number % COUNTRIES.len()];
    let suffix = number / COUNTRIES.len() % SUFFIX;
    format!(r#""country":"{country}","phone_number":"{prefix}{suffix:06}""#)
}
