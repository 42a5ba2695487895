//! Files of enclaves, of anybody's making: [`enclave_image`].

use enclave_abi::Settings;
use enclave_image::elf::Program;
use enclave_image::sgxs::Enclave;
use enclave_image::{Config, PublicKey, SigningKey, inspect, layout, sigstruct, testing};

/// A file as each of the three that an enclave is made from and made of, and as a key.
pub fn enclave_files(data: &[u8]) {
    let one_line = |error: &dyn std::fmt::Display| assert!(!error.to_string().contains('\n'), "{error}");
    match Enclave::read(data) {
        Ok(enclave) => {
            assert_eq!(Enclave::read(&enclave.write()).as_ref(), Ok(&enclave));
            in_order(&enclave);
            inspect::stream(&enclave);
        }
        Err(error) => one_line(&error),
    }
    match Program::read(data) {
        Ok(program) => {
            let settings = Settings { heap: 1 << 16, threads: 1, ..Settings::default() };
            match layout::lay_out(&program, &settings) {
                // measuring and writing take as long as the zeros that a header claims
                Ok(enclave) => in_order(&enclave),
                Err(error) => one_line(&error),
            }
        }
        Err(error) => one_line(&error),
    }
    match sigstruct::read(data) {
        Ok(sig) => assert_eq!(sigstruct::write(&sig), data),
        Err(error) => one_line(&error),
    }
    if let Ok(sig) = sigstruct::of_digest(data) {
        inspect::sigstruct(&sig);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let errors = [SigningKey::from_pem(text).err(), PublicKey::from_pem(text).err()];
        errors.into_iter().flatten().for_each(|error| one_line(&error));
    }
}

fn in_order(enclave: &Enclave) {
    assert!(enclave.pages.is_sorted_by(|a, b| a.offset < b.offset));
    assert!(enclave.pages.iter().all(|page| page.offset < enclave.size && page.offset % 4096 == 0));
}

/// A program, the stream of a small enclave, and what is signed of it.
pub fn files() -> Vec<Vec<u8>> {
    let program = testing::program();
    let stream = Program::read(&program).ok().and_then(|read| {
        let mut enclave =
            layout::lay_out(&read, &Settings { heap: 4096, threads: 1, ..Settings::default() }).ok()?;
        // with few pages a mutation finds each
        enclave.pages.truncate(4);
        Some(enclave.write())
    });
    let digest = Config::default().statement([7; 32], 0x2026_0131).digest().to_vec();
    [Some(program), stream, Some(digest)].into_iter().flatten().collect()
}
