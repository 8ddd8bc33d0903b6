//! What the limits are: `[limits]`, and `[sms.ceilings]`.

use std::time::Duration;

use crate::rate::Rate;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// What text messages may cost at most: `[sms.ceilings]`. Each list holds for itself; all are counted in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Messages that one source asks for (IPv6: one /64), so that none can spend what is everybody's.
    pub per_source: Vec<Rate>,
    /// Messages to one number.
    pub per_number: Vec<Rate>,
    /// Messages to all numbers of one calling code.
    pub per_calling_code: Vec<Rate>,
    /// Messages in all.
    pub total: Vec<Rate>,
}

impl Default for Ceilings {
    fn default() -> Self {
        let day = HOUR * 24;
        Self {
            per_source: vec![Rate::new(80, HOUR), Rate::new(200, day)],
            per_number: vec![Rate::new(5, HOUR), Rate::new(10, day)],
            per_calling_code: vec![Rate::new(100, HOUR), Rate::new(300, day)],
            total: vec![Rate::new(200, HOUR), Rate::new(600, day)],
        }
    }
}

impl Ceilings {
    /// No ceilings at all.
    pub const OFF: Self = Self {
        per_source: Vec::new(),
        per_number: Vec::new(),
        per_calling_code: Vec::new(),
        total: Vec::new(),
    };
}

/// All limits: `[limits]`, and `[sms.ceilings]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `requestToken` and `store-invite`, per source address (IPv6: per /64).
    pub per_source: Rate,
    /// `submitToken`, and likewise `3pid/unbind` and `sign-ed25519`, per source address (IPv6: per /64).
    /// As many access tokens that the identity server does not know, counted apart.
    pub per_source_submit: Rate,
    /// Registrations that are begun, per source address (IPv6: per /64).
    pub per_source_register: Rate,
    /// Changes of an account's addresses, and the identity server's `requestToken`, per account.
    pub per_account: Rate,
    /// Addresses that an account of the identity server looks up.
    pub lookups_per_account: Rate,
    /// Addresses that all accounts of one homeserver look up, and those that are looked up from one source address (IPv6: per
    /// /64): whoever has a homeserver has as many accounts as they like. A homeserver that
    /// [`identity::Settings::homeservers`](crate::identity::Settings) names is not counted.
    pub lookups_per_homeserver: Rate,
    /// Invitations that an account of the identity server sends.
    pub invites_per_account: Rate,
    /// Invitations that all accounts of one homeserver send, unless it is named there.
    pub invites_per_homeserver: Rate,
    /// `requestToken` and `store-invite`, all together.
    pub global: Rate,
    /// Messages to one mailbox; counted in the store.
    pub per_address: Rate,
    /// Messages of one session; counted in the store.
    pub per_session: Rate,
    /// Codes tried for one mailbox, over all its sessions; counted in the store.
    pub code_tries_per_address: Rate,
    /// Text messages; counted in the store.
    pub sms: Ceilings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            per_source: Rate::new(100, HOUR),
            per_source_submit: Rate::new(300, HOUR),
            per_source_register: Rate::new(300, HOUR),
            per_account: Rate::new(300, HOUR),
            lookups_per_account: Rate::new(100_000, HOUR * 24),
            lookups_per_homeserver: Rate::new(1_000_000, HOUR * 24),
            invites_per_account: Rate::new(50, HOUR),
            invites_per_homeserver: Rate::new(500, HOUR * 24),
            global: Rate::new(1000, MINUTE),
            per_address: Rate::new(10, HOUR),
            per_session: Rate::new(5, Duration::from_mins(30)),
            code_tries_per_address: Rate::new(30, HOUR),
            sms: Ceilings::default(),
        }
    }
}

impl Settings {
    /// No limits at all.
    pub const OFF: Self = Self {
        per_source: Rate::OFF,
        per_source_submit: Rate::OFF,
        per_source_register: Rate::OFF,
        per_account: Rate::OFF,
        lookups_per_account: Rate::OFF,
        lookups_per_homeserver: Rate::OFF,
        invites_per_account: Rate::OFF,
        invites_per_homeserver: Rate::OFF,
        global: Rate::OFF,
        per_address: Rate::OFF,
        per_session: Rate::OFF,
        code_tries_per_address: Rate::OFF,
        sms: Ceilings::OFF,
    };
}
