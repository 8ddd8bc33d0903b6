//! How mails leave: the settings, and the courier that they describe.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{
    Courier,
    capture::Capture,
    file::Folder,
    mime,
    sendmail::Sendmail,
    smtp::{Smtp, SmtpSettings},
};

/// How long one phase of a delivery takes at most, unless the operator says otherwise.
pub const PHASE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a relay may take to accept a body, unless the operator says otherwise: as long as RFC 5321 (4.5.3.2.6) wants
/// it to be waited for, because whoever gives up earlier may send a mail twice.
pub const BODY_TIMEOUT: Duration = Duration::from_mins(10);

/// What there is to write in place of a transport that can not be used.
const EXAMPLES: &str = "write \"capture\", \"smtp://user@host:587\", \"smtps://user@host\", \"sendmail:\" or \"file:DIR\"";

/// How mails leave. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct EmailSettings {
    /// The mailbox that mails come from: `Example <no-reply@example.org>`.
    pub from: String,
    /// What [`Transport::parse`] takes.
    pub transport: String,
    /// The password, or the bearer token of XOAUTH2, of the user in `transport`.
    pub password: Option<SecretString>,
    /// How the user logs in.
    pub auth: Auth,
    /// PEM files with CA certificates that are trusted besides the platform's.
    pub ca_files: Vec<PathBuf>,
    /// The name for EHLO; this machine's if there is none.
    pub hello_name: Option<String>,
    /// How long one phase of a delivery takes at most, apart from the body.
    pub phase_timeout: Duration,
    /// How long it takes at most to hand over the body and to have it accepted, or to run the `sendmail` program.
    pub body_timeout: Duration,
}

impl EmailSettings {
    /// Settings with nothing but what must be said.
    #[must_use]
    pub fn new(from: &str, transport: &str) -> Self {
        Self {
            from: from.to_owned(),
            transport: transport.to_owned(),
            password: None,
            auth: Auth::default(),
            ca_files: Vec::new(),
            hello_name: None,
            phase_timeout: PHASE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
        }
    }
}

/// How a user logs in at a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// PLAIN, or LOGIN where the relay offers only that.
    #[default]
    Auto,
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN, which some large providers still want.
    Login,
    /// XOAUTH2; the password is a bearer token.
    Xoauth2,
}

/// Where mails go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// They are kept to be looked at; nothing is sent.
    Capture,
    /// To an SMTP relay.
    Smtp(Server),
    /// To the `sendmail` program at this path.
    Sendmail(PathBuf),
    /// Into this folder, one file per mail.
    File(PathBuf),
}

/// Where an SMTP relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name, or its IP address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in; `None` if nobody does.
    pub user: Option<String>,
    /// How the way there is protected.
    pub tls: Tls,
}

/// How the way to a relay is protected. A certificate is checked wherever there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// From the first byte on: `smtps://`.
    Implicit,
    /// By STARTTLS, or nothing is sent.
    Required,
    /// By STARTTLS if the relay offers it; nobody logs in without it.
    Opportunistic,
    /// Not at all; a password goes in the clear.
    None,
}

impl Transport {
    /// Takes `capture`, `smtp://[user@]host[:port][?tls=required|opportunistic|none]`, `smtps://[user@]host[:port]`,
    /// `sendmail:[/path]` or `file:DIR`. In `user`, write `%40` for `@`.
    ///
    /// # Errors
    /// What is wrong, and what to write instead. Holds no password, even if one was written.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "capture" {
            return Ok(Self::Capture);
        }
        match text.split_once(':') {
            Some(("smtp" | "smtps", _)) => server(text).map(Self::Smtp),
            Some(("sendmail", "")) => Ok(Self::Sendmail(PathBuf::from("/usr/sbin/sendmail"))),
            Some(("sendmail", path)) if Path::new(path).is_absolute() => {
                Ok(Self::Sendmail(PathBuf::from(path)))
            }
            Some(("sendmail", _)) => Err(refuse(
                "the path of sendmail must be absolute; write \"sendmail:/usr/sbin/sendmail\"",
            )),
            Some(("file", "")) => Err(refuse("there is no folder; write \"file:/path/of/folder\"")),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path))),
            _ => Err(refuse(&format!("this is no transport; {EXAMPLES}"))),
        }
    }

    /// Whether people get what is handed to it.
    #[must_use]
    pub fn really_sends(&self) -> bool {
        matches!(self, Self::Smtp(_) | Self::Sendmail(_))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capture => out.write_str("capture"),
            Self::Smtp(server) => {
                let scheme = if server.tls == Tls::Implicit {
                    "smtps"
                } else {
                    "smtp"
                };
                write!(out, "{scheme}://{}:{}", server.host, server.port)
            }
            Self::Sendmail(path) => write!(out, "sendmail:{}", path.display()),
            Self::File(path) => write!(out, "file:{}", path.display()),
        }
    }
}

/// The courier that the settings describe. `capture` is where mails go if they are only to be looked at.
///
/// Reads the CA files; talks to nobody.
///
/// # Errors
/// Which setting does not fit, and what to write instead. Holds no secret.
pub fn courier(settings: &EmailSettings, capture: &Capture) -> Result<Arc<dyn Courier>, String> {
    let from = mime::sender(&settings.from)?;
    let transport = Transport::parse(&settings.transport)?;
    if settings.phase_timeout.is_zero() {
        return Err("email.phase_timeout is zero; write a time like \"30s\"".to_owned());
    }
    if settings.body_timeout.is_zero() {
        return Err("email.body_timeout is zero; write a time like \"10m\"".to_owned());
    }
    if settings.password.is_some() && !matches!(transport, Transport::Smtp(_)) {
        return Err(format!(
            "there is a password for email.transport, but {transport} needs none; remove email.password_file"
        ));
    }
    Ok(match transport {
        Transport::Capture => Arc::new(capture.clone()),
        Transport::Sendmail(program) => {
            Arc::new(Sendmail::new(from, program, settings.body_timeout))
        }
        Transport::File(folder) => Arc::new(Folder::new(from, folder)),
        Transport::Smtp(server) => {
            let smtp = SmtpSettings {
                password: settings.password.as_ref(),
                auth: settings.auth,
                ca_files: &settings.ca_files,
                hello_name: settings.hello_name.as_deref(),
                phase_timeout: settings.phase_timeout,
                body_timeout: settings.body_timeout,
            };
            Arc::new(Smtp::new(from, &server, &smtp)?)
        }
    })
}

/// Reads the URL of a relay.
fn server(text: &str) -> Result<Server, String> {
    let unreadable =
        || refuse("this is no URL of a relay; write \"smtp://user@host:587\" (in user, %40 for @)");
    let url = Url::parse(text).map_err(|_| unreadable())?;
    if url.password().is_some() {
        return Err(refuse(
            "a password does not belong into the URL; put it into password_file",
        ));
    }
    let implicit = url.scheme() == "smtps";
    let host = match url.host() {
        Some(Host::Domain(name)) if is_host(name) => name.to_ascii_lowercase(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => return Err(unreadable()),
    };
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() || url.port() == Some(0) {
        return Err(unreadable());
    }
    let tls = match (implicit, url.query()) {
        (true, None) => Tls::Implicit,
        (false, None | Some("tls=required")) => Tls::Required,
        (false, Some("tls=opportunistic")) => Tls::Opportunistic,
        (false, Some("tls=none")) => Tls::None,
        (true, Some(_)) => {
            return Err(refuse(
                "smtps:// is encrypted from the first byte and takes no \"?…\"; remove it",
            ));
        }
        (false, Some(_)) => {
            return Err(refuse(
                "after the ? stands tls=required (the default), tls=opportunistic or tls=none",
            ));
        }
    };
    let user = percent_decode_str(url.username())
        .decode_utf8()
        .map_err(|_| unreadable())?;
    if user.contains(char::is_control) {
        return Err(unreadable());
    }
    Ok(Server {
        host,
        port: url.port().unwrap_or(if implicit { 465 } else { 587 }),
        user: (!user.is_empty()).then(|| user.into_owned()),
        tls,
    })
}

fn is_host(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

fn refuse(why: &str) -> String {
    format!("email.transport: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(host: &str, port: u16, user: Option<&str>, tls: Tls) -> Transport {
        Transport::Smtp(Server {
            host: host.to_owned(),
            port,
            user: user.map(str::to_owned),
            tls,
        })
    }

    #[test]
    fn transports_are_read() {
        for (text, transport) in [
            ("capture", Transport::Capture),
            (
                "smtp://mail.example.org",
                smtp("mail.example.org", 587, None, Tls::Required),
            ),
            (
                "smtp://me@Mail.example.org:2525/",
                smtp("mail.example.org", 2525, Some("me"), Tls::Required),
            ),
            (
                "smtp://me%40example.org@m.example?tls=required",
                smtp("m.example", 587, Some("me@example.org"), Tls::Required),
            ),
            (
                "smtp://me@example.org@m.example",
                smtp("m.example", 587, Some("me@example.org"), Tls::Required),
            ),
            (
                "smtp://127.0.0.1:25?tls=none",
                smtp("127.0.0.1", 25, None, Tls::None),
            ),
            (
                "smtp://[::1]:25?tls=opportunistic",
                smtp("::1", 25, None, Tls::Opportunistic),
            ),
            (
                "smtps://me@m.example",
                smtp("m.example", 465, Some("me"), Tls::Implicit),
            ),
            (
                "sendmail:",
                Transport::Sendmail("/usr/sbin/sendmail".into()),
            ),
            (
                "sendmail:/opt/sendmail",
                Transport::Sendmail("/opt/sendmail".into()),
            ),
            ("file:mails", Transport::File("mails".into())),
        ] {
            assert_eq!(Transport::parse(text), Ok(transport), "{text}");
        }
    }

    #[test]
    fn what_is_no_transport_is_refused_with_a_hint() {
        for (text, hint) in [
            ("", "smtp://"),
            ("smpt://host", "smtp://"),
            ("http://host", "smtp://"),
            ("smtp://", "smtp://user@host"),
            ("smtp:host", "smtp://user@host"),
            ("smtp://ho st", "smtp://user@host"),
            ("smtp://host:99999", "smtp://user@host"),
            ("smtp://host:0", "smtp://user@host"),
            ("smtp://host/path", "smtp://user@host"),
            ("smtp://a%0d%0ab@host", "smtp://user@host"),
            ("smtp://host?tls=yes", "tls=required"),
            ("smtp://host?tls=none&x=y", "tls=required"),
            ("smtps://host?tls=none", "remove it"),
            ("smtp://me:hunter2@host", "password_file"),
            ("smtps://me:hunter2@host?tls=none", "password_file"),
            ("smtp://me:hunter2/@host", "smtp://user@host"),
            ("sendmail:bin/sendmail", "sendmail:/usr/sbin/sendmail"),
            ("file:", "file:/path"),
        ] {
            let why = Transport::parse(text).unwrap_err();
            assert!(
                why.contains("email.transport") && why.contains(hint),
                "{text}: {why}"
            );
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn only_smtp_and_sendmail_really_send() {
        for (text, sends) in [
            ("smtp://host", true),
            ("smtps://host", true),
            ("sendmail:", true),
            ("file:x", false),
            ("capture", false),
        ] {
            assert_eq!(
                Transport::parse(text).unwrap().really_sends(),
                sends,
                "{text}"
            );
        }
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused() {
        let settings = |transport: &str, password: bool| EmailSettings {
            password: password.then(|| SecretString::from("hunter2")),
            ..EmailSettings::new("a@example.org", transport)
        };
        let missing_ca = EmailSettings {
            ca_files: vec!["/nonexistent/ca.pem".into()],
            ..settings("smtp://host", false)
        };
        for (settings, hint) in [
            (settings("smtp://me@host?tls=none", false), "password_file"),
            (settings("smtp://host?tls=none", true), "smtp://user@host"),
            (settings("capture", true), "password_file"),
            (missing_ca, "/nonexistent/ca.pem"),
        ] {
            let why = courier(&settings, &Capture::in_memory()).unwrap_err();
            assert!(why.contains(hint), "{why}");
            assert!(!format!("{why} {settings:?}").contains("hunter2"));
        }
    }
}
