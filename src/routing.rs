//! Who validates an address: this server, or the identity server that the request names. Decided for each request.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    session::Purpose,
};

/// Who validates addresses of a medium: `validate` in `[email]` and `[sms]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validate {
    /// We do, whatever a request names.
    #[default]
    Here,
    /// The identity server that the request names, if it is a trusted one; else we do.
    ClientChoice,
    /// An identity server always: the one that the request names, else the default one.
    IdentityServer,
    /// Nobody: every request is refused.
    Off,
}

/// What a request names in `id_server`, as the operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing, or ourselves.
    Nobody,
    /// A server on the operator's list.
    Trusted,
    /// Any other server, or what is no server's name at all.
    Other,
}

/// What the decision depends on, and nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// What is configured for the medium and the purpose.
    pub(crate) validate: Validate,
    pub(crate) purpose: Purpose,
    pub(crate) named: Named,
    /// Whether the request brings an `id_access_token`.
    pub(crate) has_token: bool,
    /// Whether we can send messages of the medium.
    pub(crate) has_transport: bool,
    /// Whether there is a `default_server`, at which we have an account.
    pub(crate) has_default_server: bool,
    /// Whether the operator wrote `allow_password_reset`: else a server that a client chose could take over accounts.
    pub(crate) allow_password_reset: bool,
}

/// Who validates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// We send the message.
    Here,
    /// The server that the request names, with the `id_access_token` that the request brings.
    ToNamed,
    /// The default server, with our own token.
    ToDefault,
}

/// Who validates, or why nobody does.
///
/// # Errors
/// [`Error::MediumNotSupported`], [`Error::MissingParam`], [`Error::ServerNotTrusted`].
pub(crate) fn decide(question: &Question) -> Result<Route> {
    let here = || {
        if question.has_transport {
            Ok(Route::Here)
        } else {
            Err(Error::MediumNotSupported)
        }
    };
    let to_named = || {
        if question.has_token {
            Ok(Route::ToNamed)
        } else {
            Err(Error::MissingParam("id_access_token"))
        }
    };
    let stays_here = question.purpose == Purpose::Password && !question.allow_password_reset;
    match (question.validate, question.named) {
        (Validate::Off, _) => Err(Error::MediumNotSupported),
        (Validate::Here, _) => here(),
        (_, _) if stays_here => here(),
        (Validate::ClientChoice, Named::Nobody | Named::Other) => here(),
        (Validate::ClientChoice | Validate::IdentityServer, Named::Trusted) => to_named(),
        (Validate::IdentityServer, Named::Nobody) if question.has_default_server => {
            Ok(Route::ToDefault)
        }
        (Validate::IdentityServer, Named::Nobody) => Err(Error::MissingParam("id_server")),
        (Validate::IdentityServer, Named::Other) => Err(Error::ServerNotTrusted),
    }
}
