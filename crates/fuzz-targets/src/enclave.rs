//! Files of enclaves, of anybody's making: [`enclave_image`], [`enclave_host`]. Messages of
//! their clients, and of those who pretend to be servers: [`enclave_transport`].

use enclave_abi::Settings;
use enclave_abi::layout::{MAX_SIZE, MAX_THREADS};
use enclave_host::Files;
use enclave_image::elf::Program;
use enclave_image::sgxs::Enclave;
use enclave_image::{CodeKey, Config, PublicKey, SigningKey, encrypt, inspect, layout, sigstruct, testing};
use enclave_interface::{Deserialize, Serialize, interface};
use enclave_transport::frame;

/// Bytes of a SIGSTRUCT.
const SIGSTRUCT: usize = 1808;

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
            let (loader, key) = (testing::loader(), CodeKey::from_text(&"5a".repeat(32)).expect("64 digits"));
            let loader = Program::read(&loader).expect("a loader");
            match encrypt::lay_out(&program, &loader, &settings, &key) {
                Ok(enclave) => {
                    in_order(&enclave);
                    assert!(encrypt::payload(&enclave).is_some());
                }
                Err(error) => one_line(&error),
            }
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

/// A file as each of the two that a host program loads: what is taken lies within the
/// enclave.
pub fn enclave_host_files(data: &[u8]) {
    let files = files();
    let [_, stream, ..] = &files[..] else { panic!("a program and a stream") };
    for (stream, signature) in [(data, &[0; SIGSTRUCT][..]), (&stream[..], data)] {
        match Files::new(stream, signature) {
            Ok(files) => {
                let (size, threads) = (files.size(), files.tcs_offsets());
                assert!(size.is_power_of_two() && size <= MAX_SIZE);
                assert!(!threads.is_empty() && threads.len() <= MAX_THREADS as usize);
                assert!(threads.iter().all(|tcs| tcs + 4096 <= size && tcs % 4096 == 0));
                files.mrsigner();
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
}

/// A stream with a thread, and a SIGSTRUCT.
pub fn loaded() -> Vec<Vec<u8>> {
    let stream = files().swap_remove(1);
    let mut signature = vec![0; SIGSTRUCT];
    signature[..4].copy_from_slice(&[6, 0, 0, 0]);
    vec![stream, signature]
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
    let (loader, key) = (testing::loader(), CodeKey::from_text(&"5a".repeat(32)));
    let encrypted = key.zip(Program::read(&loader).ok()).and_then(|(key, loader)| {
        let settings = Settings { heap: 4096, threads: 1, ..Settings::default() };
        let mut enclave = encrypt::lay_out(&Program::read(&program).ok()?, &loader, &settings, &key).ok()?;
        // as far as the description of the payload
        enclave.pages.truncate(7);
        Some(enclave.write())
    });
    let digest = Config::default().statement([7; 32], 0x2026_0131).digest().to_vec();
    [Some(program), stream, Some(digest), encrypted, Some(loader)].into_iter().flatten().collect()
}

/// An interface with arguments of all kinds.
#[interface]
trait Talk {
    fn bytes(&self, of: &[u8]) -> Vec<u8>;
    fn many(&self, of: Vec<(String, Option<i64>)>) -> u64;
    fn either(&self, which: Which, times: u16) -> Result<Vec<Which>, String>;
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
enum Which {
    One,
    Other { name: String, code: [u8; 4] },
}

struct Talker;

impl Talk for Talker {
    fn bytes(&self, of: &[u8]) -> Vec<u8> {
        of.to_vec()
    }

    fn many(&self, of: Vec<(String, Option<i64>)>) -> u64 {
        of.iter().map(|(name, number)| name.len() as u64 + u64::from(number.is_some())).sum()
    }

    fn either(&self, which: Which, times: u16) -> Result<Vec<Which>, String> {
        match which {
            Which::One => Err("one".into()),
            Which::Other { .. } => Ok(vec![which; usize::from(times)]),
        }
    }
}

/// A stream that says this, at a server and at a client.
pub fn enclave_messages(data: &[u8]) {
    talk(data);
}

/// Messages beyond this are refused.
const LIMIT: usize = 1000;

/// The same; how many requests were answered, and responses read.
pub fn talk(data: &[u8]) -> usize {
    let mut stream = data;
    let mut good = 0;
    while let Ok(Some(frame)) = frame::read(&mut stream, LIMIT) {
        assert!(frame.len() <= LIMIT);
        if let Some((function, arguments)) = frame::of_request(&frame) {
            assert_eq!(frame::request(function, arguments), frame);
            let result = Talker.dispatch(function, arguments);
            good += usize::from(result.is_ok());
            let response = frame::response(result.clone());
            assert_eq!(frame::of_response(&response).map(|r| r.map(<[u8]>::to_vec)), Some(result));
        }
        if let Some(result) = frame::of_response(&frame) {
            assert_eq!(frame::response(result.map(<[u8]>::to_vec)), frame);
            good += usize::from(result.is_ok());
        }
    }
    good
}

/// Three requests and three responses, in five frames.
pub fn messages() -> Vec<Vec<u8>> {
    let frames = [
        &[0u8, 0, 0, 0, 3, 1, 2, 3][..],
        &[1, 0, 0, 0, 1, 2, b'h', b'i', 1, 5],
        &[2, 0, 0, 0, 1, 1, b'x', 1, 2, 3, 4, 2],
        &[0, 1, 2],
        &[0],
    ];
    let mut stream = Vec::new();
    // as the first begins with 0, it is a response as well
    for frame in frames {
        stream.extend((frame.len() as u32).to_le_bytes());
        stream.extend(frame);
    }
    vec![stream]
}
