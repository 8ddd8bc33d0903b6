//! What `[sms]` takes and refuses.

use super::{problem, problems, read, read_with};
use crate::{
    config::{Config, SmsTransport},
    courier::sms::SmsSettings,
    limits::Ceilings,
    rate::Rate,
    threepid::Medium,
    validation::{Validate, Validates},
};

/// A server whose links lead somewhere, and what stands in `[sms]` and below it.
fn public(sms: &str) -> String {
    format!(
        "[server]\npublic_url = 'https://example.org'\ntrusted_proxies = ['127.0.0.1']\n[sms]\n{sms}"
    )
}

const TWILIO: &str = "[sms.gateways.twilio]\nusername = 'AC1'\npassword = 'x'\n";

fn gateways(config: &Config) -> SmsSettings {
    match config.sms_transport() {
        Ok(SmsTransport::Gateways(settings)) => settings,
        other => panic!("no gateways: {other:?}"),
    }
}

#[test]
fn without_a_transport_texts_are_captured_on_this_machine_alone() {
    let captured = |file: &str| {
        let config = read(file).unwrap().config;
        matches!(config.sms_transport(), Ok(SmsTransport::Capture))
    };
    assert!(captured(""));
    assert!(captured("[server]\npublic_url = 'http://localhost:8090'"));
    assert!(captured(&public("transport = 'capture'")));
    assert!(!captured(&public("")));
    assert!(!captured("[email]\ntransport = 'file:mails'"));
    assert!(!captured("[sms]\ntransport = 'off'"));
}

#[test]
fn gateways_are_tried_in_the_order_that_is_written() {
    let modem = "[sms.gateways.modem]\nurl = 'http://127.0.0.1:9/send'\nform = { To = '{to}', text = '{text}' }\n";
    for names in ["['modem', 'twilio']", "'modem, twilio'"] {
        let file = public(&format!(
            "transport = {names}\nsender = 'Me'\n{TWILIO}{modem}"
        ));

        let config = read(&file).unwrap().config;

        let settings = gateways(&config);
        assert_eq!(config.sms_transport().unwrap().names(), ["modem", "twilio"]);
        assert_eq!(settings.gateways[1].preset.as_deref(), Some("twilio"));
        let form = settings.gateways[0].form.as_ref().unwrap();
        assert_eq!(form["To"], "{to}", "keys keep their case");
    }
}

#[test]
fn the_environment_describes_a_gateway_too() {
    let config = read_with(
        &public("[sms.senders]\nGB = 'Britain'\n'+49' = 'Germany'"),
        &[
            ("THREEPID__SMS__TRANSPORT", "twilio"),
            ("THREEPID__SMS__SENDER", "+447700900000"),
            ("THREEPID__SMS__SENDERS__GB", "England"),
            ("THREEPID__SMS__WORKERS", "2"),
            ("THREEPID__SMS__CEILINGS__TOTAL", "50/1h,100/24h"),
            ("THREEPID__SMS__GATEWAYS__TWILIO__USERNAME", "AC1"),
            ("THREEPID__SMS__GATEWAYS__TWILIO__PASSWORD", "007"),
            ("THREEPID__SMS__GATEWAYS__TWILIO__TIMEOUT", "5s"),
        ],
    );
    let config = config.unwrap().config;

    let settings = gateways(&config);
    assert_eq!(settings.gateways[0].username.as_deref(), Some("AC1"));
    assert_eq!(settings.senders["GB"], "England");
    assert_eq!(settings.senders["+49"], "Germany");
    assert_eq!(config.sms.workers, 2);
    assert_eq!(config.sms.ceilings.settings().total.len(), 2);
}

#[test]
fn each_purpose_may_be_validated_by_somebody_else() {
    let config = read(
        "[email]\nvalidate = 'off'\nvalidate_password = 'here'\n\
         [sms]\nvalidate = 'client-choice'\nvalidate_add = 'off'\n[identity_servers]\ntrusted = 'id.example.org'",
    );
    let config = config.unwrap().config;

    let email = Validates {
        password: Validate::Here,
        ..Validates::all(Validate::Off)
    };
    assert_eq!(config.validates(Medium::Email), email);
    let sms = Validates {
        register: Validate::ClientChoice,
        ..Validates::all(Validate::Off)
    };
    assert_eq!(config.validates(Medium::Msisdn), sms);
}

#[test]
fn ceilings_are_lists_of_limits_or_off() {
    let defaults = read("").unwrap().config.sms.ceilings.settings();
    assert_eq!(defaults, Ceilings::default());
    let file = "[sms.ceilings]\nper_number = 'off'\ntotal = ['3/1h']";

    let ceilings = read(file).unwrap().config.sms.ceilings.settings();

    assert_eq!(ceilings.per_number, []);
    assert_eq!(
        ceilings.total,
        [Rate::new(3, std::time::Duration::from_hours(1))]
    );
    assert_eq!(ceilings.per_calling_code, defaults.per_calling_code);
}

/// What stands in `[sms]` and below it, and what is told of it.
const BAD_VALUES: &[(&str, &str)] = &[
    (
        "transport = []",
        "sms.transport: it names nothing; write \"off\"",
    ),
    (
        "transport = 'twilio'",
        "sms.transport: \"twilio\" needs its credentials; write them below [sms.gateways.twilio]",
    ),
    (
        "transport = 'pigeon'",
        "sms.transport: there is no gateway \"pigeon\"; write \"off\", \"capture\", or the NAME",
    ),
    (
        "transport = ['capture', 'off']",
        "sms.transport: \"capture\" stands beside others; write it alone",
    ),
    (
        "transport = ['twilio', 'twilio']\nsender = 'Me'\n[sms.gateways.twilio]\nusername = 'A'\npassword = 'x'",
        "sms.transport: two SMS gateways are called \"twilio\"",
    ),
    (
        "[sms.gateways.twilio]\nusername = 'A'",
        "sms.transport: there is a gateway, but it is not used; write transport = [\"twilio\"]",
    ),
    (
        "transport = 'off'\n[sms.gateways.Twilio]\nusername = 'A'",
        "sms.gateways.Twilio: a gateway can not have this name; write another one in lower case",
    ),
    (
        "transport = 'twilio'\nsender = 'Me'\n[sms.gateways.twilio]\nusername = 'A'",
        "sms.gateways.twilio.password: it is missing; write it (the auth token",
    ),
    (
        "transport = 'twilio'\n[sms.gateways.twilio]\nusername = 'A'\npassword = 'x'",
        "sms.sender: it is missing",
    ),
    (
        "transport = 'off'\n[sms.gateways.twilio]\npasswrod = 'x'",
        "sms.gateways.twilio.passwrod: there is no such key; did you mean sms.gateways.twilio.password?",
    ),
    (
        "transport = 'off'\n[sms.gatewys.twilio]\npassword = 'x'",
        "sms.gatewys: there is no such section; did you mean sms.gateways?",
    ),
    (
        "transport = 'off'\n[sms.gateways.x]\ntimeout = '0s'",
        "sms.gateways.x.timeout: \"0s\" is no time between nothing and five minutes",
    ),
    (
        "transport = 'off'\n[sms.gateways.x]\nmethod = 'DELETE'",
        "sms.gateways.x.method: \"DELETE\" is no method; write \"POST\"",
    ),
    (
        "transport = 'off'\n[sms.gateways.x]\nanswer = [{ pointer = '/x' }]",
        "sms.gateways.x.answer: ",
    ),
    (
        "transport = 'x'\n[sms.gateways.x]\nurl = 'https://example.org'\nform = { a = '{to}{text}', b = '{too}' }",
        "sms.gateways.x.form",
    ),
    (
        "transport = 'x'\n[sms.gateways.x]\nurl = 'https://example.org'\nform = { a = '{to}' }",
        "sms.gateways.x: it sends no number or no text; write {to}",
    ),
    (
        "transport = 'twilio'\nsender = 'Me'\n[sms.senders]\nGBR = 'x'\n[sms.gateways.twilio]\nusername = 'A'\npassword = 'x'",
        "sms.senders: \"GBR\" is neither a country nor a calling code; write \"GB\"",
    ),
    (
        "validate_password = 'perhaps'",
        "sms.validate_password: unknown value `perhaps`, write one of `here`",
    ),
    (
        "allowed_calling_codes = ['GB']",
        "sms.allowed_calling_codes: ",
    ),
    (
        "denied_number_types = ['dear']",
        "sms.denied_number_types: ",
    ),
    ("workers = 0", "sms.workers: 0 is not a number from 1 to 64"),
    (
        "[sms.ceilings]\ntotal = []",
        "sms.ceilings.total: there is no ceiling in it; write for example",
    ),
    (
        "[sms.ceilings]\nper_number = ['5/1h', 'off']",
        "sms.ceilings.per_number: \"off\" stands beside others; write it alone",
    ),
    (
        "[sms.ceilings]\nper_number = ['many']",
        "sms.ceilings.per_number: write it as \"burst/period\"",
    ),
];

#[test]
fn values_that_can_not_be_are_refused() {
    for (sms, told) in BAD_VALUES {
        let problem = problem(&public(sms));
        assert!(
            problem.starts_with(told),
            "{problem}\nshould begin with\n{told}"
        );
    }
}

#[test]
fn of_every_gateway_it_is_told_what_is_wrong() {
    let file = public(
        "transport = ['twilio', 'vonage']\nsender = 'Me'\n[sms.gateways.twilio]\n[sms.gateways.vonage]",
    );
    let told = problems(&file);
    let keys: Vec<_> = told.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "sms.gateways.twilio.username",
            "sms.gateways.vonage.username"
        ]
    );
}

#[test]
fn texts_that_are_really_sent_need_a_public_url() {
    let sms = format!("[sms]\ntransport = 'twilio'\nsender = 'Me'\n{TWILIO}");
    let told = problem(&sms);
    assert!(
        told.starts_with("server.public_url: text messages are really sent, but"),
        "{told}"
    );
    let off = sms.replace("[sms]\n", "[sms]\nvalidate = 'off'\n");
    assert!(read(&off).is_ok());
}

#[test]
fn what_may_cost_money_or_accounts_is_warned_of() {
    let warnings = |file: &str| read(file).unwrap().warnings.join("\n");
    for (file, told) in [
        (
            public(&format!(
                "transport = 'twilio'\nsender = 'Me'\n{TWILIO}[sms.gateways.vonage]\nusername = 'x'"
            )),
            "sms.gateways.vonage is described, but not used",
        ),
        (
            "[sms]\nvalidate_password = 'here'".to_owned(),
            "sms.validate_password is on",
        ),
        (
            "[limits]\nenabled = false".to_owned(),
            "a bill for text messages",
        ),
    ] {
        let warned = warnings(&file);
        assert!(warned.contains(told), "{warned}");
    }
}
