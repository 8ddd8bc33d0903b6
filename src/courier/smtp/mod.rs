//! The courier that hands mails to an SMTP relay.

mod connection;
mod outcome;
mod stream;
mod tls;

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use lettre::{
    message::Mailbox,
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        extension::ClientId,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{
    Courier, DeliveryError, Message,
    email::{Auth, Server, Tls},
    mime::Mail,
};
use crate::threepid::Threepid;
use connection::{Connection, Login, Relay, Security};

/// How long a connection is kept for the next mail: less than relays wait before they hang up.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// How many mails go through one connection: many relays hang up after a hundred.
const MAILS_PER_CONNECTION: u32 = 100;
/// How many connections wait for the next mail at most.
const KEPT_AT_MOST: usize = 16;

/// What the settings say about the way to the relay, apart from where it is.
pub(super) struct SmtpSettings<'a> {
    pub(super) password: Option<&'a SecretString>,
    pub(super) auth: Auth,
    pub(super) ca_files: &'a [PathBuf],
    pub(super) hello_name: Option<&'a str>,
    pub(super) phase_timeout: Duration,
    pub(super) body_timeout: Duration,
}

/// Hands mails to one relay, and keeps the connections that a mail went through well for the next ones.
pub(super) struct Smtp {
    from: Mailbox,
    relay: Relay,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Smtp {
    /// A courier for the relay at `server`.
    ///
    /// # Errors
    /// Which setting does not fit, and what to write instead.
    pub(super) fn new(
        from: Mailbox,
        server: &Server,
        settings: &SmtpSettings<'_>,
    ) -> Result<Self, String> {
        let security = match server.tls {
            Tls::Implicit => Security::Implicit(tls::implicit(&server.host, settings.ca_files)?),
            Tls::Required => {
                Security::Required(tls::after_starttls(&server.host, settings.ca_files)?)
            }
            Tls::Opportunistic => {
                Security::Opportunistic(tls::after_starttls(&server.host, settings.ca_files)?)
            }
            Tls::None => Security::Plain,
        };
        let relay = Relay {
            host: server.host.clone(),
            port: server.port,
            security,
            login: login(server, settings)?,
            hello: hello(settings.hello_name)?,
            phase_timeout: settings.phase_timeout,
            body_timeout: settings.body_timeout,
        };
        Ok(Self {
            from,
            relay,
            idle: Mutex::default(),
        })
    }

    /// A connection that is still good, taken out: it comes back by [`Self::keep`] alone.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.since.elapsed() < KEPT_IDLE);
        idle.pop().map(|kept| kept.connection)
    }

    fn keep(&self, connection: Connection) {
        if connection.is_broken() || connection.sent >= MAILS_PER_CONNECTION {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT_AT_MOST {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}

#[async_trait]
impl Courier for Smtp {
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError> {
        let mail = Mail::write(&self.from, to, message)?;
        // The connection lives in this future alone. Whoever cancels it, or any failure, drops the connection.
        if let Some(mut connection) = self.take_idle() {
            match connection.send(&self.relay, &mail).await {
                Ok(reply) => {
                    self.keep(connection);
                    return Ok(format!("sent: {reply}"));
                }
                Err(failure) if failure.is_stale() => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let mut connection = self.relay.open(&mut Vec::new()).await?;
        let reply = connection.send(&self.relay, &mail).await?;
        self.keep(connection);
        Ok(format!("sent: {reply}"))
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        let mut told = Vec::new();
        let greeted = match self.relay.open(&mut told).await {
            Ok(connection) => connection.part(&self.relay).await,
            Err(failure) => Err(failure),
        };
        (told, greeted.map_err(DeliveryError::from))
    }

    /// MAIL on a kept connection, then on a new one: connect, TLS, greeting, AUTH, MAIL, RCPT, DATA, and the body.
    fn longest(&self) -> Duration {
        self.relay.phase_timeout * 8 + self.relay.body_timeout
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Smtp({}:{})", self.relay.host, self.relay.port)
    }
}

fn login(server: &Server, settings: &SmtpSettings<'_>) -> Result<Option<Login>, String> {
    let mechanisms: &[Mechanism] = match settings.auth {
        Auth::Auto => &[Mechanism::Plain, Mechanism::Login],
        Auth::Plain => &[Mechanism::Plain],
        Auth::Login => &[Mechanism::Login],
        Auth::Xoauth2 => &[Mechanism::Xoauth2],
    };
    match (&server.user, settings.password) {
        (None, None) => Ok(None),
        (Some(user), Some(password)) => Ok(Some(Login {
            user: user.clone(),
            credentials: Credentials::new(user.clone(), password.expose_secret().to_owned()),
            mechanisms,
        })),
        (Some(_), None) => Err(
            "email.transport names a user, but there is no password; set email.password_file"
                .to_owned(),
        ),
        (None, Some(_)) => Err(
            "there is a password for email.transport, but no user; write smtp://user@host"
                .to_owned(),
        ),
    }
}

/// The name for EHLO: the operator's, or that of this machine.
fn hello(name: Option<&str>) -> Result<ClientId, String> {
    let Some(name) = name else {
        return Ok(ClientId::default());
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(fits) {
        return Err(
            "email.hello_name is not a host name; write one like mail.example.org".to_owned(),
        );
    }
    Ok(ClientId::Domain(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_ehlo_is_one_word() {
        for good in ["mail.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]"] {
            assert!(hello(Some(good)).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\r\nMAIL FROM:<x@y>", "ä.example"] {
            assert!(hello(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
