//! What servers show to somebody who believes nobody: over sockets, as a whole handshake.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use common::{Enclave, quoted, software};
use dcap::key::PrivateKey;
use enclave_tls::evidence::LEGACY_QUOTE;
use enclave_tls::{Quotes, Server};
use ratls::certificate::{Format, Speaks};
use ratls::{NotShown, evidence_of};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, version};

/// What a client takes from whoever has the other end of its socket.
fn shown(other: impl FnOnce(UnixStream) + Send + 'static) -> Result<Speaks, NotShown> {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || other(theirs));
    let speaks = evidence_of(&mut ours);
    drop(ours);
    server.join().unwrap();
    speaks
}

/// An enclave's host: it passes bytes, until the client says that it has ended.
fn host(server: &Server, mut socket: UnixStream) -> bool {
    let mut connection = server.accept().unwrap();
    let mut piece = [0; 500];
    loop {
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => return connection.is_ended(),
            Ok(read) => {
                let _ = connection.receive(&piece[..read]);
                let _ = socket.write_all(&connection.take_outgoing());
            }
        }
    }
}

/// A server outside of any enclave, with what certificate and key it likes.
fn serve(certified: CertifiedKey, mut socket: UnixStream) {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
    while connection.is_handshaking() && connection.complete_io(&mut socket).is_ok() {}
}

#[track_caller]
fn refused(shown: Result<Speaks, NotShown>, rule: &str) {
    match shown.unwrap_err() {
        NotShown::Refused(refusal) => assert_eq!(refusal.rule(), rule, "{refusal}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_quote_is_taken_as_it_is_and_the_connection_ended() {
    let enclave = Enclave::new(|_| ());
    let server = enclave.server.clone();
    let speaks = shown(move |socket| assert!(host(&server, socket), "the end was told")).unwrap();
    assert_eq!((speaks.format, speaks.nonce.as_deref()), (Format::Interoperable, Some(&b"nonce"[..])));
    assert_eq!(speaks.quote, enclave.bundle.quote);
    assert_eq!(speaks.quote().unwrap().to_bytes().unwrap(), enclave.bundle.quote);

    // nobody asks whose it is: not even the platform's signature
    let mut forged = enclave.bundle.quote.clone();
    forged[200] ^= 1;
    let server = enclave.identity.with_quotes(Quotes::new(forged.clone())).unwrap();
    assert!(enclave.verifier(software()).verify(server.certificate(), enclave.bundle.at).is_err());
    assert_eq!(shown(move |socket| _ = host(&server, socket)).unwrap().quote, forged);
}

#[test]
fn the_interoperable_quote_goes_before_the_older_one() {
    let enclave = Enclave::new(|_| ());
    let old = quoted(&|_| (), enclave.identity.legacy_report_data()).quote;
    let both = Quotes::new(enclave.bundle.quote.clone()).legacy(old.clone());
    let server = enclave.identity.with_quotes(both).unwrap();
    let oid = der::Encode::to_der(&LEGACY_QUOTE).unwrap();
    assert!(server.certificate().windows(oid.len()).any(|bytes| bytes == oid), "both are there");
    let speaks = shown(move |socket| _ = host(&server, socket)).unwrap();
    assert_eq!(speaks.quote, enclave.bundle.quote);
    assert_ne!(speaks.quote, old);
}

#[test]
fn who_has_the_certificate_but_not_its_key_shows_nothing() {
    let enclave = Enclave::new(|_| ());
    let certificate = CertificateDer::from(enclave.server.certificate().to_vec());
    // RFC 5958 and 5915: a key of P-256, here 09 09 …, and its public half
    let head = "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420";
    let hex = |text: &str| dcap::hex::decode(text, "hex").unwrap();
    let public = PrivateKey::from_bytes(&[9; 32]).unwrap().public().sec1();
    let pkcs8 = [hex(head), vec![9; 32], hex("a144034200"), public.to_vec()].concat();
    let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8))).unwrap();
    let stolen = CertifiedKey::new(vec![certificate.clone()], key.clone());
    refused(shown(move |socket| serve(stolen, socket)), "ratls-signature");
    let chain = CertifiedKey::new(vec![certificate; 2], key.clone());
    refused(shown(move |socket| serve(chain, socket)), "ratls-chain");
    let none = CertifiedKey::new(vec![CertificateDer::from(vec![0x30, 0])], key.clone());
    refused(shown(move |socket| serve(none, socket)), "encoding");
    let large = CertifiedKey::new(vec![CertificateDer::from(vec![0x30; 70_000])], key);
    refused(shown(move |socket| serve(large, socket)), "oversized");
}

#[test]
fn what_is_no_tls_is_no_evidence() {
    let tls = shown(|mut socket| {
        let _ = socket.read(&mut [0; 1000]);
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    assert!(matches!(tls, Err(NotShown::Tls(_))), "{tls:?}");
    let mute = shown(|mut socket| drop(socket.read(&mut [0; 1000])));
    assert!(matches!(mute, Err(NotShown::Io(_))), "{mute:?}");
    assert!(mute.unwrap_err().to_string().contains("ended the connection"));
}
