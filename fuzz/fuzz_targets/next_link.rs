#![no_main]

#[expect(dead_code, reason = "each target runs one of these")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|text: &str| targets::next_link(text));
