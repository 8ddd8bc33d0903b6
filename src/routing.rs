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
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and none excludes another"
)]
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
pub(crate) fn decide(question: Question) -> Result<Route> {
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

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::error::Dialect;

    const ALL: [Validate; 4] = [
        Validate::Here,
        Validate::ClientChoice,
        Validate::IdentityServer,
        Validate::Off,
    ];
    const NAMED: [Named; 3] = [Named::Nobody, Named::Trusted, Named::Other];

    /// Nothing is missing.
    fn question(validate: Validate, purpose: Purpose, named: Named) -> Question {
        Question {
            validate,
            purpose,
            named,
            has_token: true,
            has_transport: true,
            has_default_server: true,
            allow_password_reset: true,
        }
    }

    #[test]
    fn every_cell_of_the_table_is_as_designed() {
        let off = || Err(Error::MediumNotSupported);
        for (validate, wanted) in [
            (
                Validate::Here,
                [Ok(Route::Here), Ok(Route::Here), Ok(Route::Here)],
            ),
            (
                Validate::ClientChoice,
                [Ok(Route::Here), Ok(Route::ToNamed), Ok(Route::Here)],
            ),
            (
                Validate::IdentityServer,
                [
                    Ok(Route::ToDefault),
                    Ok(Route::ToNamed),
                    Err(Error::ServerNotTrusted),
                ],
            ),
            (Validate::Off, [off(), off(), off()]),
        ] {
            for purpose in Purpose::ALL {
                for (named, wanted) in NAMED.into_iter().zip(&wanted) {
                    let got = decide(question(validate, purpose, named));
                    assert_eq!(&got, wanted, "{validate:?} {purpose} {named:?}");
                }
            }
        }
    }

    #[test]
    fn a_password_reset_stays_here_unless_the_operator_insists() {
        for (validate, named) in ALL.into_iter().flat_map(|v| NAMED.map(|n| (v, n))) {
            let stays = Question {
                allow_password_reset: false,
                ..question(validate, Purpose::Password, named)
            };
            let unsent = Question {
                has_transport: false,
                ..stays
            };
            let here = if validate == Validate::Off {
                Err(Error::MediumNotSupported)
            } else {
                Ok(Route::Here)
            };
            assert_eq!(decide(stays), here, "{validate:?} {named:?}");
            assert_eq!(decide(unsent), Err(Error::MediumNotSupported));
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        for purpose in Purpose::ALL {
            let ask = |validate, named| question(validate, purpose, named);
            for validate in [Validate::ClientChoice, Validate::IdentityServer] {
                let without_token = Question {
                    has_token: false,
                    ..ask(validate, Named::Trusted)
                };
                let missing = Err(Error::MissingParam("id_access_token"));
                assert_eq!(decide(without_token), missing);
            }
            let without_default = Question {
                has_default_server: false,
                ..ask(Validate::IdentityServer, Named::Nobody)
            };
            let missing = Err(Error::MissingParam("id_server"));
            assert_eq!(decide(without_default), missing);
            for (validate, named) in ALL.into_iter().flat_map(|v| NAMED.map(|n| (v, n))) {
                let unsent = Question {
                    has_transport: false,
                    ..ask(validate, named)
                };
                assert_ne!(decide(unsent), Ok(Route::Here), "nothing to send it with");
            }
        }
    }

    /// What one cell says: the decision when nothing is missing, and what is missing otherwise.
    fn cell(question: Question) -> String {
        let words = |question: Question| match decide(question) {
            Ok(Route::Here) => "here".to_owned(),
            Ok(Route::ToNamed) => "that server".to_owned(),
            Ok(Route::ToDefault) => "the default server".to_owned(),
            Err(error) => {
                let (status, errcode) = error.wire(Dialect::Client);
                format!("{} `{errcode}`", status.as_u16())
            }
        };
        let mut told = words(question);
        let without_token = Question {
            has_token: false,
            ..question
        };
        let without_default = Question {
            has_default_server: false,
            ..question
        };
        for (what, missing) in [
            ("`id_access_token`", without_token),
            ("one", without_default),
        ] {
            if decide(missing) != decide(question) {
                let _ = write!(told, "; without {what}: {}", words(missing));
            }
        }
        told
    }

    #[test]
    fn the_documentation_shows_what_is_decided() {
        let mut table = String::from(
            "| `validate` | purpose | names nobody, or us | names a trusted server | names another server |\n\
             | --- | --- | --- | --- | --- |\n",
        );
        for validate in ALL {
            let name = serde_json::to_value(validate).unwrap();
            for (what, purpose, allow_password_reset) in [
                ("register, add", Purpose::Register, false),
                ("password", Purpose::Password, false),
                (
                    "password, with `allow_password_reset`",
                    Purpose::Password,
                    true,
                ),
            ] {
                let _ = write!(table, "| `{}` | {what} ", name.as_str().unwrap());
                for named in NAMED {
                    let question = Question {
                        allow_password_reset,
                        ..question(validate, purpose, named)
                    };
                    let _ = write!(table, "| {} ", cell(question));
                }
                table.push_str("|\n");
            }
        }
        let documented = include_str!("../docs/identity-servers.md");
        assert!(
            documented.contains(&table),
            "docs/identity-servers.md should hold\n{table}"
        );
    }
}
