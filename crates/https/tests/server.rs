//! The server and clients that do not behave; rustls judges the certificates.

use http::{Method, Response, Uri};
use https::authority::Name;
use https::{Authority, Key, Leaves, Limits, Server};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

const DAY: Duration = Duration::from_secs(86_400);
/// So long that it passes only for what hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limits of which a test waits for one to pass.
fn short() -> Limits {
    let moment = Duration::from_millis(300);
    Limits { connections: 2, handshake: moment, head: moment, ..Limits::default() }
}

struct Service {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    log: Arc<Mutex<Vec<String>>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(limits: Limits, addresses: &[IpAddr]) -> Self {
        let pair = KeyPair::generate().unwrap();
        let public = pair.der_bytes().try_into().unwrap();
        let sign = move |message: &[u8]| rcgen::SigningKey::sign(&pair, message).unwrap();
        let now = SystemTime::now();
        let name = Name { common: "Test", organization: "Nobody" };
        let authority =
            Authority::new(name, Key { public, sign: Box::new(sign) }, now - DAY, now + 365 * DAY).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let leaves = Leaves::new(authority, addresses.to_vec()).unwrap();
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), limits).unwrap();
        let address = server.address().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let end = async { drop(ended.await) };
            let log = Box::new(move |line: &str| lines.lock().unwrap().push(line.to_owned()));
            server.run_until(end, leaves, Box::new(echo), log).unwrap();
        });
        Self { address, config: Arc::new(config), log, end: Some(end), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A TLS connection to the server by this name.
    fn tls(&self, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        StreamOwned::new(ClientConnection::new(self.config.clone(), name).unwrap(), self.connect())
    }

    /// All that the server says to these bytes until it closes.
    fn say(&self, bytes: &[u8]) -> io::Result<String> {
        let mut stream = self.tls("localhost");
        stream.write_all(bytes)?;
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            // a server that hangs up on what it does not read
            Err(e) if said.is_empty() => return Err(e),
            _ => {}
        }
        Ok(String::from_utf8(said).unwrap())
    }

    fn get(&self, target: &str) -> String {
        self.say(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap()
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// Says what was asked for; has a defect.
fn echo(method: &Method, target: &Uri) -> Response<Vec<u8>> {
    assert!(target.path() != "/defect", "as told");
    Response::new(format!("{method} {target}").into_bytes())
}

#[test]
fn requests_are_answered_and_told() {
    let service = Service::start(Limits::default(), &[]);
    let answer = service.get("/a?b=%41");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nGET /a?b=%41"),
        "{answer}"
    );
    // two on one connection, and one without a body
    let two = "HEAD /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = service.say(two.as_bytes()).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert!(!answer.contains("HEAD /1") && answer.ends_with("GET /2"), "{answer}");
    assert!(service.log().contains(" GET /a?b=%41 200 "), "{}", service.log());
}

#[test]
fn the_server_is_who_it_says_and_nobody_else() {
    let elsewhere = IpAddr::from([8, 8, 8, 8]);
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let service = Service::start(Limits::default(), &loopback);
    let greet = |service: &Service, name: &str| service.tls(name).write_all(b"x").map_err(|e| e.to_string());
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert_eq!(greet(&service, name), Ok(()), "{name}");
    }
    assert!(greet(&service, "example.org").unwrap_err().contains("not valid for name"));
    assert!(greet(&service, "8.8.8.8").unwrap_err().contains("not valid for name"));
    // what the authority may not say is not believed, whatever it says
    let service = Service::start(Limits::default(), &[elsewhere]);
    let refused = greet(&service, "8.8.8.8").unwrap_err();
    assert!(refused.contains("NameConstraintViolation"), "{refused}");
}

#[test]
fn heads_without_end_and_what_is_no_http() {
    let service = Service::start(Limits::default(), &[]);
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    for (bytes, status) in [
        (huge.as_str(), "431"),
        (&many, "431"),
        ("\0\x01\x02\x03\r\n\r\n", "400"),
        ("GET\r\n\r\n", "400"),
        ("GET /a b HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/9.9\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
    ] {
        let shown = &bytes[..bytes.len().min(40)];
        let answer = service.say(bytes.as_bytes()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{shown:?}: {answer}");
    }
    // a body that is announced is not waited for
    let post = "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n";
    assert!(service.say(post.as_bytes()).unwrap().ends_with("POST /p"));
    assert!(service.get("/after").ends_with("GET /after"));
}

#[test]
fn plain_http_is_told_so() {
    let service = Service::start(Limits::default(), &[]);
    let mut stream = service.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("https://\n"), "{answer}");
    let length = answer.split_once("\r\n\r\n").unwrap().1.len();
    assert!(answer.contains(&format!("Content-Length: {length}\r\n")), "{answer}");
    // the first byte of TLS, and then something else
    let mut stream = service.connect();
    stream.write_all(&[22, 3, 1, 0xff, 0xff, 0, 0]).unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    assert!(service.get("/after").ends_with("GET /after"));
    assert!(service.log().contains("speaks no TLS"));
}

#[test]
fn silence_holds_a_place_for_a_while_only() {
    let service = Service::start(short(), &[]);
    // all places there are, twice
    let silent: Vec<TcpStream> = (0..4).map(|_| service.connect()).collect();
    assert!(service.get("/after").ends_with("GET /after"));
    for mut stream in silent {
        let mut nothing = Vec::new();
        let _ = stream.read_to_end(&mut nothing);
        assert!(nothing.is_empty(), "{nothing:?}");
    }
    // half a handshake, and half a head
    let mut half = service.connect();
    half.write_all(&[22, 3, 1, 2, 0]).unwrap();
    let _ = half.read_to_end(&mut Vec::new());
    let said = service.say(b"GET / HTT").unwrap_or_default();
    assert!(!said.contains("200"), "{said}");
    let log = service.log();
    assert!(log.contains("said nothing in time") && log.contains("no handshake in time"), "{log}");
    assert!(service.get("/after").ends_with("GET /after"));
}

#[test]
fn a_connection_ends_in_its_time_whatever_it_does() {
    let limits = Limits { connection: Duration::from_millis(500), ..Limits::default() };
    let service = Service::start(limits, &[]);
    let mut stream = service.tls("localhost");
    // until it is cut off, and then an error
    while stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {
        let mut some = [0; 256];
        if !matches!(stream.read(&mut some), Ok(1..)) {
            break;
        }
    }
    assert!(service.get("/after").ends_with("GET /after"));
}

#[test]
fn a_defect_is_an_answer() {
    let service = Service::start(Limits::default(), &[]);
    let answer = service.get("/defect");
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("the service failed\n"), "{answer}");
    assert!(service.get("/after").ends_with("GET /after"));
}

#[test]
fn the_log_has_no_more_of_a_target_than_can_be_printed() {
    let service = Service::start(Limits::default(), &[]);
    service.get(&format!("/\u{9b}31m{}", "x".repeat(1000)));
    let log = service.log();
    assert!(log.is_ascii() || log.matches('…').count() == 1, "{log:?}");
    assert!(!log.contains('\u{9b}') && log.len() < 400, "{log:?}");
}

#[test]
fn the_end_waits_for_nobody_who_is_silent() {
    let service = Service::start(Limits::default(), &[]);
    let _silent = service.connect();
    let mut idle = service.tls("localhost");
    idle.write_all(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut some = [0; 512];
    assert!(idle.read(&mut some).unwrap() > 0);
    drop(service);
}
