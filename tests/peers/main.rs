//! Tests against real programs of others, each of which the tests install and start by themselves.

mod aiosmtpd;
mod examples;
mod proxies;
