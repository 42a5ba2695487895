//! `kluis attest quote`, through the built command: quotes of servers as enclaves have them,
//! over TCP and Unix sockets, which `kluis attest verify` then judges.

mod common;

use common::{Scratch, kluis, output, platform, text};
use dcap::Time;
use dcap::issue::sign;
use dcap::key::PrivateKey;
use enclave_tls::{Identity, Quotes, Server};
use manufacturer::Manufacturer;
use manufacturer::testing::{quote_of, report};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, version};
use serde_json::Value;
use sgx_abi::ReportBody;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Output;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// A user's folder, and quotes of their platform for servers that are no enclaves.
struct User {
    scratch: Scratch,
    maker: Manufacturer,
}

impl User {
    fn new() -> Self {
        let scratch = Scratch::new();
        let maker = Manufacturer::equip(platform()).unwrap();
        Self { scratch, maker }
    }

    fn quote(&self, report_data: [u8; 64]) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let report = ReportBody { reportdata: report_data, ..report() };
        quote_of(&self.maker, &report, Time::from_unix(now).unwrap()).unwrap().to_bytes().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = kluis();
        output(command.current_dir(self.scratch.path("")).arg("attest").args(args), b"")
    }

    #[track_caller]
    fn works(&self, args: &[&str]) -> Output {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        out
    }

    /// What is refused with a code, in one line with these words; no file is made of it.
    #[track_caller]
    fn refused(&self, code: i32, endpoint: &str, words: &[&str]) {
        let out = self.run(&["quote", endpoint, "-o", "none", "--timeout", "2s"]);
        let said = text(&out.stderr);
        assert_eq!((out.status.code(), out.stdout.len()), (Some(code), 0), "{endpoint}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words.iter().chain([&endpoint]) {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
        assert!(!self.scratch.path("none").exists());
    }

    /// A socket at which `talk` has each client.
    fn socket<F: Fn(&mut dyn ReadWrite) + Send + 'static>(&self, name: &str, talk: F) -> String {
        let path = self.scratch.at(name);
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || listener.incoming().for_each(|client| talk(&mut client.unwrap())));
        path
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// What an enclave's host does for a client: it passes bytes.
fn host(server: &Server, client: &mut dyn ReadWrite) {
    let mut connection = server.accept().unwrap();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = client.read(&mut piece) {
        let _ = connection.receive(&piece[..read]);
        if client.write_all(&connection.take_outgoing()).is_err() {
            return;
        }
    }
}

#[test]
fn quotes_of_servers_are_files_that_verify() {
    let user = User::new();
    let identity = Identity::with_nonce(Some(b"fresh")).unwrap();
    let quote = user.quote(identity.report_data());
    let server = identity.with_quotes(Quotes::new(quote.clone())).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tcp = server.clone();
    thread::spawn(move || listener.incoming().for_each(|client| host(&tcp, &mut client.unwrap())));
    let socket = user.socket("enclave", move |client| host(&server, client));

    user.scratch.file("quote", "what was there");
    let out = user.works(&["quote", &address, "-o", "quote"]);
    assert_eq!(fs::read(user.scratch.path("quote")).unwrap(), quote);
    let said = text(&out.stdout);
    for word in [&address, "binds", "not verified", "interoperable", "kluis attest verify quote", "3333333"] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    assert_eq!(text(&out.stderr), "");

    // without a file: the quote alone is on standard output, the words beside it
    let out = user.works(&["quote", &socket]);
    assert_eq!(out.stdout, quote);
    assert!(text(&out.stderr).contains("not verified"), "{}", text(&out.stderr));

    let json = |args: &[&str]| -> Value { serde_json::from_slice(&user.works(args).stdout).unwrap() };
    let told = json(&["quote", "./enclave", "--json"]);
    assert_eq!(told["quote"], dcap::hex::encode(&quote));
    assert_eq!((&told["verified"], &told["binds_server_key"]), (&false.into(), &true.into()));
    assert_eq!(told["nonce"], dcap::hex::encode(b"fresh"));
    let told = json(&["quote", "./enclave", "-o", "again", "--json"]);
    assert_eq!((&told["file"], &told["quote"]), (&"again".into(), &Value::Null));
    assert_eq!(told["report"]["report_data"], dcap::hex::encode(&identity.report_data()));
    assert_eq!(fs::read(user.scratch.path("again")).unwrap(), quote);

    // whose it is, is judged of the file: by one's own root, or by one that is named
    user.works(&["verify", "quote", "--accept-software-platform"]);
    user.scratch.file("root", user.maker.root().unwrap().certificate().der());
    user.works(&["verify", "quote", "--root", "root"]);
    let out = user.run(&["verify", "quote"]);
    assert_eq!(out.status.code(), Some(18), "{}", text(&out.stderr));

    // a quote of nobody is taken as it is, and refused by those who verify it
    let mut forged = quote;
    forged[200] ^= 1;
    let server = identity.with_quotes(Quotes::new(forged)).unwrap();
    let socket = user.socket("forger", move |client| host(&server, client));
    user.works(&["quote", &socket, "-o", "forged"]);
    let out = user.run(&["verify", "forged", "--root", "root"]);
    assert_eq!(out.status.code(), Some(14), "{}", text(&out.stderr));

    // a file that cannot be written is no success
    let out = user.run(&["quote", &socket, "-o", "no/such"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
}

#[test]
fn whoever_is_no_enclave_is_told_apart() {
    let user = User::new();
    // nobody
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    user.refused(2, &port, &["nobody can be reached", "--publish"]);
    user.refused(2, "./missing", &["nobody can be reached", "--vsock-listen"]);
    user.refused(2, "host:port", &["HOST:PORT"]);
    // somebody, who does not speak TLS, ends, or waits
    let http = user.socket("http", |client| {
        let _ = client.read(&mut [0; 2000]);
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    user.refused(23, &http, &["TLS 1.3"]);
    let shut = user.socket("shut", |client| drop(client.read(&mut [0; 2000])));
    user.refused(23, &shut, &["ended the connection"]);
    let mute = user.socket("mute", |client| while matches!(client.read(&mut [0; 2000]), Ok(1..)) {});
    user.refused(23, &mute, &["2s"]);
    // slowly, but for ever: bytes of a record that never ends
    let slow = user.socket("slow", |client| {
        let _ = client.write_all(&[22, 3, 3, 0x40, 0, 2, 0, 0xff, 0xff]);
        while client.write_all(&[0]).is_ok() {
            thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    user.refused(23, &slow, &["2s"]);
}

/// The private key of somebody who is no enclave.
const KEY: [u8; 32] = [9; 32];

/// A server outside of any enclave, with this certificate and [`KEY`].
fn serve(certificate: &[u8], client: &mut dyn ReadWrite) {
    // RFC 5958 and 5915: a key of P-256, and its public half
    let head = "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420";
    let hex = |text: &str| dcap::hex::decode(text, "hex").unwrap();
    let public = PrivateKey::from_bytes(&KEY).unwrap().public().sec1();
    let pkcs8 = [hex(head), KEY.to_vec(), hex("a144034200"), public.to_vec()].concat();
    let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8))).unwrap();
    let certified = CertifiedKey::new(vec![CertificateDer::from(certificate.to_vec())], key);
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
    let mut client = client;
    while connection.is_handshaking() && connection.complete_io(&mut client).is_ok() {}
}

/// Puts bytes of the same length in the place of those that are there once.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = bytes.windows(old.len()).enumerate().filter(|(_, there)| *there == old);
    let (place, again) = (at.next().unwrap().0, at.next().is_some());
    assert!(!again && old.len() == new.len());
    bytes[place..place + new.len()].copy_from_slice(new);
}

#[test]
fn evidence_that_speaks_for_no_key_makes_no_file() {
    let user = User::new();
    let identity = Identity::generate().unwrap();
    let server = identity.with_quotes(Quotes::new(user.quote(identity.report_data()))).unwrap();
    let enclaves = server.certificate();
    // RFC 5280 §4.1: what is signed is the first thing in a certificate
    let length = usize::from(u16::from_be_bytes([enclaves[6], enclaves[7]]));
    let key = PrivateKey::from_bytes(&KEY).unwrap();
    let old = identity.public_key();
    let spki = [&old[..old.len() - 65], &key.public().sec1()].concat();
    // the enclave's certificate with the forger's key, signed by that
    let forge = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut tbs = enclaves[4..8 + length].to_vec();
        replace(&mut tbs, old, &spki);
        change(&mut tbs);
        sign(&tbs, &key).unwrap()
    };
    let hashes = [old, &spki].map(|spki| Sha256::digest(spki).to_vec());
    let oid = [0x06, 0x06, 0x67, 0x81, 0x05, 0x05, 0x04, 0x09];
    let array = [0xd9, 0xea, 0x60, 0x82];
    for (name, code, words, certificate) in [
        ("stolen", 14, "[ratls-signature]", enclaves.to_vec()),
        ("claims", 22, "[key-hash]", forge(&|_| ())),
        ("quote", 22, "[report-data]", forge(&|tbs| replace(tbs, &hashes[0], &hashes[1]))),
        ("none", 23, "[evidence-missing]", forge(&|tbs| replace(tbs, &oid, &[&oid[..7], &[0x0a]].concat()))),
        ("cbor", 10, "[evidence-encoding]", forge(&|tbs| replace(tbs, &array, &[0xd9, 0xea, 0x60, 0x83]))),
        ("large", 12, "[oversized]", vec![0x30; 70_000]),
        ("noise", 10, "[encoding]", vec![0x30; 700]),
    ] {
        let socket = user.socket(&format!("{name}.socket"), move |client| serve(&certificate, client));
        user.refused(code, &socket, &[words]);
    }
}
