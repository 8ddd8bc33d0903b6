//! `[identity]`.

use std::time::Duration;

use super::{problem, problems, read};
use crate::{session::Purpose, threepid::Medium, validation::Validate};

fn settings(lines: &str) -> crate::identity::Settings {
    let file = format!(
        "[server]\npublic_url = \"http://localhost:8090\"\n[identity]\nenabled = true\n{lines}"
    );
    read(&file).unwrap().config.identity().unwrap().unwrap()
}

#[test]
fn there_is_no_identity_server_unless_it_is_turned_on() {
    assert!(read("").unwrap().config.identity().unwrap().is_none());
    let on = settings("");
    assert_eq!(on.name.to_string(), "localhost:8090");
    assert!(on.aliases.is_empty() && on.terms.is_empty() && !on.plain_lookups);
    assert_eq!(on.pepper_lifetime, Some(Duration::from_hours(24)));
}

#[test]
fn an_identity_server_has_names_terms_and_lifetimes() {
    let on = settings(
        "name = \"id.example.org\"
         aliases = [\"old.example.org\"]
         homeservers = [\"example.org\", \"b.example:8448\"]
         lookup_algorithms = [\"none\", \"sha256\"]
         pepper_lifetime = \"off\"
         token_lifetime = \"7d\"
         [identity.terms.privacy]
         version = \"2\"
         en = { name = \"Privacy\", url = \"https://example.org/privacy-2-en\" }
         pt-BR = { name = \"Privacidade\", url = \"https://example.org/privacy-2-pt\" }",
    );
    let aliases: Vec<_> = on.aliases.iter().map(ToString::to_string).collect();
    assert_eq!(aliases, ["old.example.org", "localhost:8090"]);
    assert!(on.is_ours("id.example.org:443") && on.is_ours("OLD.example.org"));
    assert!(!on.is_ours("example.org") && !on.is_ours("https://id.example.org"));
    assert!(on.plain_lookups && on.pepper_lifetime.is_none());
    assert_eq!(on.token_lifetime, Duration::from_hours(7 * 24));
    assert_eq!(on.homeservers.len(), 2);
    assert_eq!(on.terms["privacy"].texts["pt-BR"].name, "Privacidade");
}

#[test]
fn what_does_not_work_is_refused_with_its_key() {
    for (lines, key) in [
        ("name = \"https://id.example.org\"", "identity.name"),
        ("homeservers = [\"@a:b.org\"]", "identity.homeservers"),
        (
            "lookup_algorithms = [\"none\"]",
            "identity.lookup_algorithms",
        ),
        (
            "lookup_algorithms = [\"sha256\", \"md5\"]",
            "identity.lookup_algorithms",
        ),
        ("lookup_addresses = 0", "identity.lookup_addresses"),
        ("pepper_lifetime = \"1s\"", "identity.pepper_lifetime"),
        ("pepper_lifetime = \"never\"", "identity.pepper_lifetime"),
        ("tokens_per_user = 0", "identity.tokens_per_user"),
        ("invites_per_address = 0", "identity.invites_per_address"),
        ("signing_key_file = \"\"", "identity.signing_key_file"),
        (
            "[identity.terms.privacy]\nversion = \"1\"",
            "identity.terms.privacy.en",
        ),
        (
            "[identity.terms.privacy]\nen = { name = \"P\", url = \"https://example.org/p\" }",
            "identity.terms.privacy.version",
        ),
        (
            "[identity.terms.privacy]\nversion = \"1\"\nen = { name = \"P\", url = \"javascript:1\" }",
            "identity.terms.privacy.en",
        ),
        (
            "[identity.terms.a]\nversion = \"1\"\nen = { name = \"P\", url = \"https://a.org/p\" }\n\
             [identity.terms.b]\nversion = \"1\"\nen = { name = \"P\", url = \"https://a.org/p\" }",
            "identity.terms.a.en",
        ),
    ] {
        let refused = problems(&format!("[identity]\nenabled = true\n{lines}"));
        assert!(
            refused.iter().any(|problem| problem.key == key),
            "{key}: {refused:?}"
        );
    }
}

#[test]
fn each_medium_of_the_identity_server_is_turned_off_by_itself() {
    let validates = |lines: &str, medium| {
        let config = read(lines).unwrap().config;
        let is_on = config.is_on(medium);
        (config.validates(medium).of(Purpose::Identity), is_on)
    };
    let on = "[identity]\nenabled = true\n";
    let off = "validate = 'off'\nvalidate_password = 'off'\n";
    for (section, medium) in [("email", Medium::Email), ("sms", Medium::Msisdn)] {
        let of_others = format!("{on}[{section}]\n{off}");
        let all = format!("{of_others}validate_identity = 'off'");
        let its_own = format!("{on}[{section}]\nvalidate_identity = 'off'");
        let without = format!("[{section}]\n{off}");
        assert_eq!(validates(on, medium), (Validate::Here, true));
        assert_eq!(validates(&of_others, medium), (Validate::Here, true));
        assert_eq!(validates(&all, medium), (Validate::Off, false));
        assert_eq!(validates(&its_own, medium), (Validate::Off, true));
        assert!(
            !validates(&without, medium).1,
            "there is no identity server"
        );
    }
}

#[test]
fn an_identity_server_passes_nothing_on() {
    for section in ["email", "sms"] {
        for other in ["client-choice", "identity-server"] {
            let refusal = problem(&format!("[{section}]\nvalidate_identity = '{other}'"));
            let wanted = format!(
                "{section}.validate_identity: whoever asks an identity server asks nobody else; write \"here\" or \"off\""
            );
            assert!(refusal.starts_with(&wanted), "{refusal}");
        }
    }
}

#[test]
fn our_own_identity_server_is_nobody_to_proxy_to() {
    let file = "[identity]\nenabled = true\nname = \"id.example.org\"";
    let ours = read(file).unwrap().config.identity_servers().unwrap().ours;
    assert!(ours.contains(&"id.example.org".parse().unwrap()));
}
