//! What the tests share: the real program, and small peers for it.

pub(crate) mod account_server;
pub(crate) mod captcha;
#[path = "../../it/support/certificates.rs"]
#[expect(dead_code, reason = "the other tests need the rest of it")]
pub(crate) mod certificates;
pub(crate) mod client_api;
pub(crate) mod elsewhere;
pub(crate) mod gate;
#[path = "../../it/support/gateway.rs"]
#[expect(dead_code, reason = "the other tests need the rest of it")]
pub(crate) mod gateway;
pub(crate) mod homeserver;
pub(crate) mod identity;
pub(crate) mod install;
pub(crate) mod js_sdk;
pub(crate) mod mails;
pub(crate) mod newcomer;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod reverse_proxy;
pub(crate) mod server;
#[path = "../../it/support/smtp.rs"]
#[expect(dead_code, reason = "the other tests need the rest of it")]
pub(crate) mod smtp;
pub(crate) mod sydent;
pub(crate) mod synapse;
pub(crate) mod tls_front;
pub(crate) mod webdriver;
