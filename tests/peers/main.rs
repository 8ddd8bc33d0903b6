//! Tests against real programs of others, each of which the tests install and start by themselves; and of our own
//! program as a whole, when something around it fails.

mod aiosmtpd;
mod beside;
mod browser;
mod crash;
mod curl;
mod disk;
mod relay;
mod support;
