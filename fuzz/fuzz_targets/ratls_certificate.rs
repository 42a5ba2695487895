#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| (fuzz_targets::target("ratls_certificate").unwrap().run)(data));
