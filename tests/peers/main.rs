//! Tests against real programs of others, each of which the tests install and start by themselves; and of our own
//! program as a whole, when something around it fails.

#![expect(
    clippy::print_stdout,
    reason = "whoever reads a test's output wants to know what it counted"
)]

mod account_delegate;
mod account_faults;
mod accounts;
mod aiosmtpd;
mod beside;
mod browser;
mod browser_reset;
mod crash;
mod crash_sms;
mod curl;
mod disk;
mod examples;
mod identity_js;
mod identity_synapse;
mod proxies;
mod registration;
mod registration_browser;
mod registration_faults;
mod registration_race;
mod registration_round;
mod registration_stages;
mod relay;
mod support;
mod sydent;
mod synapse;
mod webhook;
