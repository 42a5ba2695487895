//! A server in an enclave and a client that verifies its quote: data both ways, and what the
//! server does with bytes that are none of TLS.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;

use common::{Enclave, config_at, connect, exchange, handshake, software};
use enclave_tls::TlsError;
use ratls::Policy;
use ratls::certificate::Format;
use rustls::client::Resumption;
use rustls::{CipherSuite, ClientConfig, HandshakeKind, ProtocolVersion};

fn good() -> (Enclave, Arc<ClientConfig>) {
    let enclave = Enclave::new(|_| ());
    let config = config_at(enclave.verifier(software()).nonce(b"nonce"), enclave.bundle.at);
    (enclave, Arc::new(config))
}

#[test]
fn data_goes_both_ways_and_ends_are_told() {
    let (enclave, config) = good();
    let (mut client, mut server) = handshake(&config, &enclave.server).unwrap();
    assert!(server.is_open() && !client.is_handshaking());
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(client.peer_certificates().unwrap()[0].as_ref(), enclave.server.certificate());

    for length in [0, 1, 16_384, 16_385, 60_000] {
        let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        client.writer().write_all(&data).unwrap();
        server.send(&data).unwrap();
        assert_eq!(exchange(&mut client, &mut server).unwrap(), data);
        assert_eq!(server.take_received(), data);
    }

    // new keys while data goes on
    for number in 0..3u8 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[number]).unwrap();
        server.send(&[number, number]).unwrap();
        assert_eq!(exchange(&mut client, &mut server).unwrap(), [number; 2]);
        assert_eq!(server.take_received(), [number]);
    }

    // the client ends, and the server still answers
    assert!(!server.is_ended());
    client.writer().write_all(b"last").unwrap();
    client.send_close_notify();
    exchange(&mut client, &mut server).unwrap();
    assert!(server.is_ended() && server.is_open());
    assert_eq!(server.take_received(), b"last");
    server.send(b"yes").unwrap();
    server.close().unwrap();
    assert_eq!(exchange(&mut client, &mut server).unwrap(), b"yes");
    assert_eq!(client.reader().read(&mut [0]).unwrap(), 0, "the end, as it was told");
    assert_eq!(server.send(b"more"), Err(TlsError::Over));
    assert_eq!(server.receive(b"more"), Err(TlsError::Over));
}

#[test]
fn every_connection_is_a_whole_handshake() {
    let (enclave, config) = good();
    let mut config = ClientConfig::clone(&config);
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let config = Arc::new(config);
    // P-256 is not the client's first choice, until it has learned that it is the server's
    for kind in [HandshakeKind::FullWithHelloRetryRequest, HandshakeKind::Full, HandshakeKind::Full] {
        let (client, _) = handshake(&config, &enclave.server).unwrap();
        assert_eq!(client.handshake_kind(), Some(kind));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_client_of_the_older_format_has_a_quote_of_its_own() {
    let enclave = Enclave::new(|_| ());
    let old = common::quoted(&|_| (), enclave.identity.legacy_report_data()).quote;
    let quotes = enclave_tls::Quotes::new(enclave.bundle.quote.clone()).legacy(old);
    let server = enclave.identity.with_quotes(quotes).unwrap();
    let verifier = enclave.verifier(software());
    let at = enclave.bundle.at;
    let attested = verifier.verify(server.certificate(), at).unwrap();
    assert_eq!((attested.format, attested.nonce.as_deref()), (Format::Interoperable, Some(&b"nonce"[..])));
    assert_eq!(attested.verdict.report.mrenclave, [0x33; 32]);
    handshake(&Arc::new(config_at(verifier, at)), &server).unwrap();
}

#[test]
fn nothing_is_sent_before_the_handshake_is_finished() {
    let (enclave, config) = good();
    let mut server = enclave.server.accept().unwrap();
    assert_eq!(server.send(b"early"), Err(TlsError::Handshake));
    assert_eq!(server.close(), Err(TlsError::Handshake));
    let mut client = connect(&config);
    exchange(&mut client, &mut server).unwrap();
    server.send(b"now").unwrap();
    assert!(!server.take_outgoing().windows(3).any(|bytes| bytes == b"now"));
}

/// What is no TLS, or was, ends the connection with an alert: no panic, no endless memory.
#[test]
fn garbage_is_an_error_and_no_panic() {
    let (enclave, config) = good();
    let hello = {
        let mut bytes = Vec::new();
        connect(&config).write_tls(&mut bytes).unwrap();
        bytes
    };
    let mut errors = 0;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    // each byte of a hello, changed
    for at in 0..hello.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = hello.clone();
            bytes[at] ^= change;
            errors += usize::from(enclave.server.accept().unwrap().receive(&bytes).is_err());
        }
        let _ = enclave.server.accept().unwrap().receive(&hello[..at]);
    }
    // some have a meaning, some are random
    assert!((1..3 * hello.len()).contains(&errors), "{errors} of {}", 3 * hello.len());

    // random bytes, in records of each type
    for _ in 0..2000 {
        let length = (random() % 400) as usize;
        let body: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        let head = [20 + (random() % 5) as u8, 3, 3, (length >> 8) as u8, length as u8];
        let mut server = enclave.server.accept().unwrap();
        let _ = server.receive(&body);
        let _ = enclave.server.accept().unwrap().receive(&[&head[..], &body].concat());
    }

    // after the handshake: a record that is not the client's
    let (mut client, mut server) = handshake(&config, &enclave.server).unwrap();
    client.writer().write_all(b"data").unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(matches!(server.receive(&bytes), Err(TlsError::Tls(_))));
    assert!(server.take_received().is_empty());
    let alert = server.take_outgoing();
    assert!(client.read_tls(&mut &alert[..]).is_ok() && client.process_new_packets().is_err());
    assert_eq!(server.receive(&[]), Err(TlsError::Over));

    // a handshake message without end
    let mut server = enclave.server.accept().unwrap();
    let piece = [&[22, 3, 1, 0x40, 0][..], &[1, 0, 0xff, 0xff], &vec![0; 0x4000 - 4]].concat();
    assert!((0..100).any(|_| server.receive(&piece).is_err()));
}

#[test]
fn clients_of_tls_1_2_are_told_so() {
    let (enclave, config) = good();
    let mut bytes = Vec::new();
    connect(&config).write_tls(&mut bytes).unwrap();
    // supported_versions becomes an extension that nobody knows
    let at = bytes.windows(7).position(|w| w == [0, 0x2b, 0, 3, 2, 3, 4]).unwrap();
    bytes[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
    let mut server = enclave.server.accept().unwrap();
    assert!(matches!(server.receive(&bytes), Err(TlsError::Tls(_))));
    // a fatal alert: protocol_version
    assert_eq!(server.take_outgoing()[5..], [2, 70]);
}

#[test]
fn silicon_alone_is_believed_by_default() {
    let enclave = Enclave::new(|_| ());
    let refusal = enclave.verifier(Policy::default()).verify(enclave.server.certificate(), enclave.bundle.at);
    assert_eq!(refusal.unwrap_err().rule(), "software-platform");
}
