#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| (fuzz_targets::target("aesm_messages").unwrap().run)(data));
