//! Everything that can go wrong, and the one table that words it.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use crate::threepid::Medium;

/// What went wrong. [`Error::wire`] gives the status and `errcode`, `Display` the sentence for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body is no JSON at all.
    #[error("The request body is not JSON. Send a JSON object.")]
    NotJson,
    /// The body is JSON of another shape than the one asked for.
    #[error("{0}")]
    BadJson(Cow<'static, str>),
    /// A required key is absent.
    #[error("The key {0} is missing.")]
    MissingParam(&'static str),
    /// A value breaks its grammar.
    #[error("{0}")]
    InvalidParam(Cow<'static, str>),
    /// The address is not a valid one.
    #[error("This is not a valid address: {0}.")]
    InvalidAddress(&'static str),
    /// The phone number is not a valid one.
    #[error("This is not a valid phone number: {0}.")]
    InvalidNumber(&'static str),
    /// The body is larger than allowed.
    #[error("The request body is too large. At most {most_kib} KiB are taken.")]
    TooLarge {
        /// How much is taken, in KiB.
        most_kib: usize,
    },
    /// The rest of the request did not come in time.
    #[error("The rest of the request did not arrive in time. Try again.")]
    RequestTimeout,
    /// No such path.
    #[error("There is nothing at this path.")]
    Unrecognized,
    /// The path exists, not with this method.
    #[error("This path does not take this method.")]
    MethodNotAllowed,
    /// The address belongs to an account here.
    #[error("This address already belongs to an account. Log in, or reset the password.")]
    InUse,
    /// No account here has this address.
    #[error("No account has this address. Check the spelling, or sign up.")]
    NoAccount,
    /// The operator does not admit this address.
    #[error("This address is not allowed here. Use another one.")]
    Denied,
    /// Addresses of this medium can not be proved here.
    #[error("This kind of address can not be used here.")]
    MediumNotSupported,
    /// The request needs an access token and has none.
    #[error("This needs an access token. Log in first.")]
    MissingToken,
    /// The homeserver does not know the access token.
    #[error("This access token is not known, or no longer. Log in again.")]
    UnknownToken {
        /// Whether the client may keep its data and log in again (Client-Server API, "Soft logout").
        soft_logout: bool,
    },
    /// The account is locked (Client-Server API, "Account locking").
    #[error("This account is locked. Ask the people who run this server.")]
    UserLocked,
    /// The account is suspended, and may not do this (Client-Server API, "Account suspension").
    #[error("This account is suspended. It can not remove addresses.")]
    UserSuspended,
    /// Guests have no addresses.
    #[error("Guests can not do this. Sign up first.")]
    GuestForbidden,
    /// The operator, or the homeserver, does not allow it.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// The session that was shown proves no address for this request.
    #[error("The address is not confirmed for this request: {0}")]
    ThreepidAuthFailed(String),
    /// The same where the specification wants another status: `POST account/3pid`, which is deprecated.
    #[error("The address is not confirmed for this request: {0}")]
    ThreepidAuthForbidden(String),
    /// The homeserver's password policy refuses the new password.
    #[error("{0}")]
    WeakPassword(Cow<'static, str>),
    /// The account that the reset was asked for does not have the address any more.
    #[error("No account has this address any more. Check the spelling, or sign up.")]
    AccountGone,
    /// The identity server that the request names is not one that the operator trusts.
    #[error("This server does not use that identity server. Leave id_server out.")]
    ServerNotTrusted,
    /// Too much was asked in too short a time.
    #[error("Too many requests. Wait a little, then try again.")]
    Limited {
        /// After how long the same request can succeed.
        retry_after: Duration,
    },
    /// The code or link is not the right one.
    #[error("This is not the right code. Type the code from the newest message.")]
    TokenIncorrect,
    /// The session, its link or its code has run out.
    #[error("This code or link is no longer valid. Ask for a new message.")]
    SessionExpired,
    /// Nobody has shown the right code or link yet.
    #[error("The address is not confirmed yet. Open the link in the message, or type its code.")]
    SessionNotValidated,
    /// No session for this `sid` and `client_secret`; never said of one half alone.
    #[error("There is no such session. Ask for a new message.")]
    NoValidSession,
    /// The proof was given to another request, or to another user.
    #[error("This confirmation was used for another request. Ask for a new message.")]
    ProofSpent,
    /// The operation claims nothing, or not any more.
    #[error("This operation holds no confirmation.")]
    NoClaim,
    /// The same operation is under way in another request.
    #[error(
        "This confirmation is being used by another request. Try the same again in a moment, or ask for a new message."
    )]
    ProofHeld,
    /// A form of ours was sent from another site.
    #[error("This form was not sent from this page. Open the link in the message again.")]
    CrossSite,
    /// What an identity server answered, for whoever named it: its status, `errcode` and `error`, and nothing else.
    #[error("{error}")]
    Relayed {
        /// From 400 to 499.
        status: StatusCode,
        /// Its code, of letters, digits, `_` and `.` alone.
        errcode: String,
        /// Its words, shortened, on one line.
        error: String,
        /// After how long it would like to be asked again.
        retry_after: Option<Duration>,
    },
    /// An identity server failed, or answered nonsense; the cause is for the log alone.
    #[error("The identity server did not answer as it should. Try again later.")]
    UpstreamFailed(String),
    /// An identity server did not answer in time; the cause is for the log alone.
    #[error("The identity server did not answer in time. Try again later.")]
    UpstreamTimeout(String),
    /// The homeserver failed, and has certainly done nothing; the cause is for the log alone.
    #[error("The homeserver did not answer as it should. Try again in a moment.")]
    HomeserverFailed(String),
    /// The homeserver did not answer in time, or broke off: it may have done what it was asked, or may do it yet. The
    /// cause is for the log alone.
    #[error(
        "The homeserver did not answer as it should, or not in time. Try the same again in a moment."
    )]
    HomeserverTimeout(String),
    /// An identity server's caller has no access token, or none that is known.
    #[error("This needs an access token of this identity server. Register here first.")]
    Unauthorized,
    /// An identity server's caller may do this for themselves alone.
    #[error("{0}")]
    UnauthorizedUser(Cow<'static, str>),
    /// A homeserver signed the request for another server.
    #[error("This request was signed for another server than this one.")]
    OtherDestination,
    /// The caller has not accepted the identity server's terms yet.
    #[error("Accept the terms of this identity server first: see GET terms.")]
    TermsNotSigned,
    /// Hashes for a lookup were made with another pepper than the current one.
    #[error("The pepper is not the current one. Hash the addresses again with lookup_pepper.")]
    InvalidPepper {
        /// What the hashes were made with.
        algorithm: String,
        /// The current pepper.
        lookup_pepper: String,
    },
    /// More was asked at once than is answered.
    #[error("{0}")]
    TooMany(Cow<'static, str>),
    /// Messages of this medium can not be sent just now, or not at all.
    #[error("No message can be sent there at the moment. Try again later.")]
    CanNotSend(Medium),
    /// No text messages are sent to this country or kind of number.
    #[error("No text messages are sent to this country or kind of number. Use another number.")]
    DestinationRejected,
    /// The address is associated with a user.
    #[error("This address already belongs to a user. Invite them by their user id.")]
    InUseBy {
        /// The user.
        user_id: String,
    },
    /// Only email addresses can be invited.
    #[error("Only the medium email can be invited.")]
    UnknownMedium,
    /// There is no such invitation, or not any more.
    #[error("There is no such invitation, or it was used or withdrawn.")]
    UnknownInvitation,
    /// There is no such signing key.
    #[error("This server has no key of that name.")]
    UnknownKey,
    /// A homeserver that a stranger named failed, or answered nonsense; the cause is for the log alone.
    #[error("That homeserver did not answer as it should. Check its name, or try again later.")]
    FederationFailed(String),
    /// A homeserver that a stranger named did not answer in time; the cause is for the log alone.
    #[error("That homeserver did not answer in time. Try again later.")]
    FederationTimeout(String),
    /// The server can not do its work just now; the cause is for the log alone.
    #[error("The server can not do this right now. Try again in a moment.")]
    Unavailable(String),
    /// A fault of ours; the cause is for the log alone.
    #[error("Something went wrong on the server. Try again; if it goes on, tell the operator.")]
    Internal(String),
}

/// The result of whatever may be refused.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose words an error is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The Client-Server API.
    Client,
    /// The Identity Service API, and our own `submit_url`, which answers as that API does (MSC4183).
    Identity,
    /// Pages for people.
    Page,
}

impl Error {
    /// A value that breaks its grammar; `why` names the key and what to send instead.
    pub(crate) fn invalid(why: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidParam(why.into())
    }

    /// The HTTP status and the Matrix `errcode`: the only table of both.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "it is a table, a line for each case")]
    pub fn wire(&self, dialect: Dialect) -> (StatusCode, &str) {
        let identity = dialect == Dialect::Identity;
        let page = dialect == Dialect::Page;
        match self {
            Self::NotJson => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
            Self::BadJson(_) => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            Self::MissingParam(_) if identity => (StatusCode::BAD_REQUEST, "M_MISSING_PARAMS"),
            Self::MissingParam(_) => (StatusCode::BAD_REQUEST, "M_MISSING_PARAM"),
            Self::InvalidAddress(_) if identity => (StatusCode::BAD_REQUEST, "M_INVALID_EMAIL"),
            Self::InvalidNumber(_) if identity => (StatusCode::BAD_REQUEST, "M_INVALID_ADDRESS"),
            Self::InvalidParam(_) | Self::InvalidAddress(_) | Self::InvalidNumber(_) => {
                (StatusCode::BAD_REQUEST, "M_INVALID_PARAM")
            }
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN"),
            Self::Unrecognized | Self::UnknownInvitation => {
                (StatusCode::NOT_FOUND, "M_UNRECOGNIZED")
            }
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"),
            Self::InUse | Self::InUseBy { .. } => (StatusCode::BAD_REQUEST, "M_THREEPID_IN_USE"),
            Self::NoAccount => (StatusCode::BAD_REQUEST, "M_THREEPID_NOT_FOUND"),
            Self::Denied => (StatusCode::FORBIDDEN, "M_THREEPID_DENIED"),
            Self::MediumNotSupported => {
                (StatusCode::BAD_REQUEST, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
            }
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN"),
            Self::UnknownToken { .. } => (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
            Self::UserLocked => (StatusCode::UNAUTHORIZED, "M_USER_LOCKED"),
            Self::UserSuspended => (StatusCode::FORBIDDEN, "M_USER_SUSPENDED"),
            Self::GuestForbidden => (StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN"),
            Self::ThreepidAuthFailed(_) => (StatusCode::BAD_REQUEST, "M_THREEPID_AUTH_FAILED"),
            Self::ThreepidAuthForbidden(_) => (StatusCode::FORBIDDEN, "M_THREEPID_AUTH_FAILED"),
            Self::WeakPassword(_) => (StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD"),
            Self::AccountGone => (StatusCode::NOT_FOUND, "M_THREEPID_NOT_FOUND"),
            Self::ServerNotTrusted => (StatusCode::BAD_REQUEST, "M_SERVER_NOT_TRUSTED"),
            Self::Relayed {
                status, errcode, ..
            } => (*status, errcode),
            Self::UpstreamFailed(_) | Self::HomeserverFailed(_) | Self::FederationFailed(_) => {
                (StatusCode::BAD_GATEWAY, "M_UNKNOWN")
            }
            Self::UpstreamTimeout(_) | Self::HomeserverTimeout(_) | Self::FederationTimeout(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN")
            }
            Self::Unauthorized | Self::OtherDestination => {
                (StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED")
            }
            Self::UnauthorizedUser(_) => (StatusCode::FORBIDDEN, "M_UNAUTHORIZED"),
            Self::TermsNotSigned => (StatusCode::FORBIDDEN, "M_TERMS_NOT_SIGNED"),
            Self::InvalidPepper { .. } => (StatusCode::BAD_REQUEST, "M_INVALID_PEPPER"),
            Self::TooMany(_) => (StatusCode::BAD_REQUEST, "M_TOO_LARGE"),
            Self::CanNotSend(Medium::Email) => (StatusCode::BAD_REQUEST, "M_EMAIL_SEND_ERROR"),
            Self::CanNotSend(Medium::Msisdn) => (StatusCode::BAD_REQUEST, "M_SEND_ERROR"),
            Self::DestinationRejected => (StatusCode::BAD_REQUEST, "M_DESTINATION_REJECTED"),
            Self::UnknownMedium => (StatusCode::BAD_REQUEST, "M_UNRECOGNIZED"),
            Self::Limited { .. } => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            Self::TokenIncorrect => (StatusCode::BAD_REQUEST, "M_TOKEN_INCORRECT"),
            Self::SessionExpired if page => (StatusCode::GONE, "M_SESSION_EXPIRED"),
            Self::SessionExpired => (StatusCode::BAD_REQUEST, "M_SESSION_EXPIRED"),
            Self::SessionNotValidated => (StatusCode::BAD_REQUEST, "M_SESSION_NOT_VALIDATED"),
            Self::NoValidSession => (StatusCode::NOT_FOUND, "M_NO_VALID_SESSION"),
            // To a homeserver, which has a token of its own, a 401 would say that this token is wrong.
            Self::ProofSpent if identity => (StatusCode::CONFLICT, "M_THREEPID_AUTH_FAILED"),
            Self::ProofSpent => (StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"),
            Self::NoClaim | Self::UnknownKey => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            Self::ProofHeld => (StatusCode::CONFLICT, "M_UNKNOWN"),
            Self::CrossSite | Self::Forbidden(_) => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
        }
    }

    /// Whether what was asked of the homeserver may have been done in spite of this.
    pub(crate) fn leaves_open(&self) -> bool {
        matches!(
            self,
            Self::HomeserverTimeout(_) | Self::Internal(_) | Self::Unavailable(_)
        )
    }

    /// What the log should know of a fault that is not the caller's; `None` for refusals.
    pub(crate) fn cause(&self) -> Option<&str> {
        match self {
            Self::Unavailable(cause)
            | Self::Internal(cause)
            | Self::UpstreamFailed(cause)
            | Self::UpstreamTimeout(cause)
            | Self::HomeserverFailed(cause)
            | Self::HomeserverTimeout(cause)
            | Self::FederationFailed(cause)
            | Self::FederationTimeout(cause) => Some(cause),
            _ => None,
        }
    }
}
