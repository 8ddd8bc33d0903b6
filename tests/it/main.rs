//! Tests of the whole, through its public face.

mod ceilings;
mod cli;
mod clock;
mod faults;
mod hidden_accounts;
mod identity_client;
mod layers;
mod link;
mod msisdn;
mod outbound;
mod outbox;
mod proof;
mod properties;
mod proxy;
mod proxy_attacks;
mod proxy_table;
mod request_token;
mod sms_delivery;
mod sms_gateways;
mod smtp;
mod store;
mod submit_token;
mod support;
mod synapse;
mod synapse_accounts;
mod wire;
