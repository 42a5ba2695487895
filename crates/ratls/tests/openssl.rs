//! OpenSSL as judge: it reads the certificate, and speaks TLS with the server.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Enclave;
use enclave_tls::Server;

fn openssl(args: &[&str]) -> (bool, String) {
    let out = Command::new("openssl").args(args).stdin(Stdio::null()).output().expect("openssl is installed");
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[test]
fn openssl_reads_the_certificate_and_takes_its_signature() {
    let enclave = Enclave::new(|_| ());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (der, pem) = (file("certificate.der"), file("certificate.pem"));
    std::fs::write(&der, enclave.server.certificate()).unwrap();
    let (done, text) = openssl(&["x509", "-inform", "DER", "-in", &der, "-noout", "-text"]);
    assert!(done, "{text}");
    for line in [
        "Version: 3 (0x2)",
        "Issuer: CN = SGX enclave",
        "Not After : Dec 31 23:59:59 9999 GMT",
        "ASN1 OID: prime256v1",
        "Signature Algorithm: ecdsa-with-SHA256",
        "CA:FALSE",
        "2.23.133.5.4.9:",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let (done, said) = openssl(&["x509", "-inform", "DER", "-in", &der, "-out", &pem]);
    assert!(done, "{said}");
    let strict = ["verify", "-x509_strict", "-check_ss_sig", "-partial_chain", "-trusted", &pem, &pem];
    let (done, said) = openssl(&strict);
    assert!(done && said.ends_with(": OK\n"), "{said}");
}

/// Answers with what it hears, in capitals, until the client ends.
fn serve(server: &Server, mut stream: TcpStream) -> std::io::Result<()> {
    let mut connection = server.accept().unwrap();
    let mut buffer = [0; 4096];
    while !connection.is_ended() {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let done = connection.receive(&buffer[..read]);
        let heard = connection.take_received();
        if !heard.is_empty() {
            connection.send(&heard.to_ascii_uppercase()).unwrap();
        }
        stream.write_all(&connection.take_outgoing())?;
        done.map_err(std::io::Error::other)?;
    }
    connection.close().unwrap();
    stream.write_all(&connection.take_outgoing())
}

#[test]
fn openssl_speaks_with_the_server() {
    let enclave = Enclave::new(|_| ());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = enclave.server.clone();
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        serve(&server, stream)
    });
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-tls1_3", "-nocommands"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"hello, enclave\n").unwrap();
    let mut heard = String::new();
    let mut output = client.stdout.take().unwrap();
    let mut buffer = [0; 4096];
    while !heard.contains("HELLO, ENCLAVE") {
        let read = output.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    // the end of its input is the end of what it says
    drop(input);
    output.read_to_string(&mut heard).unwrap();
    assert!(client.wait().unwrap().success());
    serving.join().unwrap().unwrap();
    for line in [
        "Cipher is TLS_AES_128_GCM_SHA256",
        "Peer signature type: ECDSA",
        "Server Temp Key: ECDH, prime256v1",
    ] {
        assert!(heard.contains(line), "{line} is not in {heard}");
    }
    // of nobody's, to those who do not look at the evidence
    assert!(heard.contains("self-signed certificate"), "{heard}");
}
