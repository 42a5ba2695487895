//! The socket, and clients that are none.

mod support;

use aesm::{CLIENTS, ListenError, frame};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use support::Service;

/// How many keys there are: the shortest request.
const REQUEST: [u8; 7] = [3, 0, 0, 0, 0xaa, 1, 0];

/// The answer: code 0, one.
const RESPONSE: [u8; 7] = [0xaa, 1, 4, 8, 0, 16, 1];

fn connect(service: &Service) -> UnixStream {
    UnixStream::connect(service.socket()).expect("it listens")
}

fn is_served(service: &Service) {
    let mut client = connect(service);
    client.write_all(&REQUEST).expect("sent");
    assert_eq!(frame::read(&mut client, 100).expect("answered"), RESPONSE);
    // one request, one response
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn clients_that_are_none_do_no_harm() {
    let service = Service::start();
    for bytes in [
        &[][..],
        &REQUEST[..2],
        &REQUEST[..6],
        // a length that is not taken
        &[0xff; 4],
        &[0, 0, 0x11, 0, 1],
    ] {
        // more often than there are clients at a time
        for _ in 0..2 * CLIENTS {
            let mut client = connect(&service);
            client.write_all(bytes).expect("sent");
            client.shutdown(std::net::Shutdown::Write).expect("open");
            let mut rest = Vec::new();
            // reset or ended, but nothing said
            let _ = client.read_to_end(&mut rest);
            assert!(rest.is_empty(), "{bytes:?}: {rest:?}");
        }
        is_served(&service);
    }
    // one that does not wait for its answer
    for _ in 0..2 * CLIENTS {
        connect(&service).write_all(&REQUEST).expect("sent");
    }
    is_served(&service);
}

#[test]
fn clients_beyond_the_bound_wait_their_turn() {
    let service = Service::start();
    let mut silent: Vec<_> = (0..CLIENTS - 1).map(|_| connect(&service)).collect();
    is_served(&service);
    silent.push(connect(&service));
    let mut last = connect(&service);
    last.write_all(&REQUEST).expect("it is taken from the queue later");
    drop(silent.pop());
    assert_eq!(frame::read(&mut last, 100).expect("answered"), RESPONSE);
}

#[test]
fn the_socket_is_for_everybody_and_its_place_is_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("aesmd/aesm.socket");
    let first = aesm::listen(&socket).expect("nothing is there");
    assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o666);
    assert!(matches!(aesm::listen(&socket), Err(ListenError::InUse(at)) if at == socket));
    // a service that ended leaves its socket behind
    drop(first);
    drop(aesm::listen(&socket).expect("nobody listens"));

    fs::remove_file(&socket).expect("there");
    fs::write(&socket, "mine").expect("a file");
    assert!(matches!(aesm::listen(&socket), Err(ListenError::NoSocket(at)) if at == socket));
    assert_eq!(fs::read(&socket).expect("still there"), b"mine");
    let below = socket.join("aesm.socket");
    assert!(matches!(aesm::listen(&below), Err(ListenError::Io { .. })));
}
