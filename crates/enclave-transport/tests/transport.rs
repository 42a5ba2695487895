//! Clients and servers, good ones and others.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use enclave_interface::{CallError, Caller, DispatchError, interface};
use enclave_transport::{Client, Endpoint, Error, Limits, Server, frame};

#[interface]
trait Turn {
    /// The text, turned round.
    fn turn(&self, text: &str) -> String;
    /// So many bytes.
    fn bytes(&self, count: u32) -> Vec<u8>;
}

struct Turner;

impl Turn for Turner {
    fn turn(&self, text: &str) -> String {
        text.chars().rev().collect()
    }

    fn bytes(&self, count: u32) -> Vec<u8> {
        vec![7; count as usize]
    }
}

/// A server of the test's, which serves as long as its process lives.
struct Served {
    _folder: tempfile::TempDir,
    path: PathBuf,
    endpoint: Endpoint,
}

fn serve(limits: Limits) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let endpoint = Endpoint::Unix(path.clone());
    let server = Server::bind(&endpoint, limits).unwrap();
    thread::spawn(move || server.serve(|function, arguments| Turner.dispatch(function, arguments)));
    Served { _folder: folder, path, endpoint }
}

const SHORT: Limits = Limits { message: 1000, connections: 2, patience: Duration::from_millis(300) };

#[test]
fn calls_and_results_of_any_size_within_the_limit() {
    let server = Server::bind(&"tcp:127.0.0.1:0".parse().unwrap(), Limits::default()).unwrap();
    let endpoint = server.endpoint().unwrap();
    thread::spawn(move || server.serve(|function, arguments| Turner.dispatch(function, arguments)));
    let client = TurnClient(Client::connect(&endpoint, Limits::default()).unwrap());
    assert_eq!(client.turn("abc").unwrap(), "cba");
    assert_eq!(client.turn("").unwrap(), "");
    assert_eq!(client.turn(&"x".repeat(900_000)).unwrap().len(), 900_000);
    for count in [0, 1, 1000, 1_000_000] {
        assert_eq!(client.bytes(count).unwrap(), vec![7; count as usize]);
    }
    // what the server refuses costs the call, not the connection
    let refused = client.0.call(9, &[]);
    assert!(matches!(refused, Err(Error::Refused(DispatchError::NoFunction))), "{refused:?}");
    let refused = client.0.call(0, &[255]);
    assert!(matches!(refused, Err(Error::Refused(DispatchError::Arguments))), "{refused:?}");
    assert_eq!(client.turn("still").unwrap(), "llits");
    // what exceeds a limit costs the connection
    let Err(CallError::Call(Error::Stream(e))) = client.bytes(2_000_000) else { panic!("too long") };
    assert_eq!(e.kind(), ErrorKind::InvalidData);
    assert!(matches!(client.turn("x"), Err(CallError::Call(Error::Broken))));

    let taken = Server::bind(&endpoint, Limits::default()).unwrap_err().to_string();
    assert!(taken.starts_with(&format!("cannot listen on {endpoint}: ")), "{taken}");
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(folder.path().join("socket"));
    let waiting = {
        let endpoint = endpoint.clone();
        thread::spawn(move || Client::connect(&endpoint, Limits::default()))
    };
    thread::sleep(Duration::from_millis(150));
    let server = Server::bind(&endpoint, Limits::default()).unwrap();
    assert_eq!(server.endpoint().unwrap(), endpoint);
    thread::spawn(move || server.serve(|function, arguments| Turner.dispatch(function, arguments)));
    assert_eq!(TurnClient(waiting.join().unwrap().unwrap()).turn("abc").unwrap(), "cba");
}

#[test]
fn many_clients_at_a_time() {
    let served = serve(Limits { connections: 4, ..Limits::default() });
    let clients: Vec<_> = (0..12)
        .map(|n| {
            let endpoint = served.endpoint.clone();
            thread::spawn(move || {
                let client = TurnClient(Client::connect(&endpoint, Limits::default()).unwrap());
                (0..50)
                    .all(|round| client.turn(&format!("{n}-{round}")).unwrap().ends_with(&n.to_string()[..1]))
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
}

#[test]
fn bad_clients_are_closed_and_keep_no_place() {
    let served = serve(SHORT);
    let visit = |says: &[u8]| {
        let mut stream = UnixStream::connect(&served.path).unwrap();
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, frame::GREETING);
        stream.write_all(says).unwrap();
        stream
    };
    let closed = |mut stream: UnixStream| {
        let mut rest = Vec::new();
        // closed with bytes unread, it is a reset
        let _ = stream.read_to_end(&mut rest);
        rest
    };
    // each takes a place of two, and gives it back
    for _ in 0..3 {
        // silent, within the head, within the frame
        for says in [&b""[..], &[10, 0], &[10, 0, 0, 0, 1]] {
            let start = Instant::now();
            assert_eq!(closed(visit(says)), b"");
            assert!(start.elapsed() >= SHORT.patience);
        }
        // no request, a request beyond the limit
        assert_eq!(closed(visit(&[2, 0, 0, 0, 1, 1])), b"");
        assert_eq!(closed(visit(&[0, 0, 1, 0, 1, 1])), b"");
    }
    // drop by drop is not in time either
    let mut slow = visit(&[100, 0, 0, 0]);
    let start = Instant::now();
    while slow.write_all(&[0]).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(50));
    }
    let client = TurnClient(Client::connect(&served.endpoint, Limits::default()).unwrap());
    assert_eq!(client.turn("abc").unwrap(), "cba");
}

#[test]
fn a_client_that_finds_no_place_waits_for_one() {
    let served = serve(Limits { connections: 1, ..Limits::default() });
    let first = TurnClient(Client::connect(&served.endpoint, Limits::default()).unwrap());
    let (tell, told) = mpsc::channel();
    let endpoint = served.endpoint.clone();
    thread::spawn(move || {
        let second = TurnClient(Client::connect(&endpoint, Limits::default()).unwrap());
        tell.send(second.turn("abc").unwrap()).unwrap();
    });
    assert_eq!(told.recv_timeout(Duration::from_millis(200)), Err(mpsc::RecvTimeoutError::Timeout));
    assert_eq!(first.turn("one").unwrap(), "eno");
    drop(first);
    assert_eq!(told.recv().unwrap(), "cba");
}

/// A server that says this on each connection, and then takes what it is given.
fn bad_server(says: Vec<u8>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let says = says.clone();
            thread::spawn(move || swallow(stream, &says));
        }
    });
    endpoint
}

fn swallow(mut stream: TcpStream, says: &[u8]) {
    let _ = stream.write_all(says);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

#[test]
fn bad_servers_are_errors() {
    let limits = Limits { patience: Duration::from_millis(300), ..SHORT };
    let connect = |says: &[u8]| Client::connect(&bad_server(says.to_vec()), limits);
    let other = connect(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidData);
    assert!(other.to_string().contains("there is no server at tcp:127.0.0.1:"), "{other}");
    assert_eq!(connect(b"encl").unwrap_err().kind(), ErrorKind::TimedOut);
    let absent: Endpoint = "unix:/no/such/socket".parse().unwrap();
    let start = Instant::now();
    assert_eq!(Client::connect(&absent, limits).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(start.elapsed() >= Duration::from_millis(150), "it may be there yet");

    let answers = |frame: &[u8]| {
        let client = connect(&[&frame::GREETING, frame].concat()).unwrap();
        let result = client.call(0, &[]);
        let again = client.call(0, &[]);
        assert!(matches!(again, Err(Error::Broken)), "{again:?}");
        result.unwrap_err()
    };
    // none, none in time, too long, no response
    assert!(matches!(answers(&[]), Error::Stream(e) if e.kind() == ErrorKind::TimedOut));
    assert!(matches!(answers(&[5, 0, 0, 0, 0]), Error::Stream(e) if e.kind() == ErrorKind::TimedOut));
    assert!(matches!(answers(&[0, 0, 0, 1, 0]), Error::Stream(e) if e.kind() == ErrorKind::InvalidData));
    assert!(matches!(answers(&[1, 0, 0, 0, 9]), Error::Response));
    assert!(matches!(answers(&[0, 0, 0, 0]), Error::Response));
}
