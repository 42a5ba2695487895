#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| (fuzz_targets::target("enclave_host_files").unwrap().run)(data));
