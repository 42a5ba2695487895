//! The guest's network, with Debian's kernel: all traffic is on the host's loopback.

mod common;

use common::session::Session;
use common::{kluis, output, text, turn};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

/// Longer than any test here takes on a slow host.
const TIMEOUT: &str = "500s";
const BYTES: usize = 64 << 20;

fn pattern() -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    std::iter::repeat_with(next).take(BYTES / 8).flatten().collect()
}

/// A server for one connection on a port of the host's loopback.
fn serve<T: Send + 'static>(f: impl FnOnce(TcpStream) -> T + Send + 'static) -> (u16, thread::JoinHandle<T>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, thread::spawn(move || f(listener.accept().unwrap().0)))
}

/// Visits the guest once it listens: gives it `data` while it sends, and what that was.
fn visit(published: &str, data: &[u8]) -> Vec<u8> {
    loop {
        let mut got = Vec::new();
        let Ok(mut stream) = TcpStream::connect(published) else {
            // the machine is gone
            return got;
        };
        let (mut out, data) = (stream.try_clone().unwrap(), data.to_vec());
        let sending = thread::spawn(move || out.write_all(&data));
        let done = stream.read_to_end(&mut got);
        // until the guest listens, it is a reset; its `nc` ends when the visitor does
        if sending.join().unwrap().and(done).is_ok() && !got.is_empty() {
            return got;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Megabytes both ways, to a port of the host and by one of the guest, and what is out of
/// reach: one boot.
#[test]
fn guest_and_host_reach_each_other_as_far_as_they_may() {
    let _turn = turn();
    let data = pattern();
    let sent = data.clone();
    let (down, _) = serve(move |mut stream| stream.write_all(&sent).unwrap());
    let (up, uploaded) = serve(|mut stream| {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    // on all addresses of the host, and not allowed
    let secret = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    secret.set_nonblocking(true).unwrap();
    let closed = secret.local_addr().unwrap().port();
    let mut own = vec![Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(169, 254, 169, 254)];
    let out = UdpSocket::bind("0.0.0.0:0").unwrap();
    if out.connect("198.51.100.1:9").is_ok()
        && let Ok(std::net::SocketAddr::V4(address)) = out.local_addr()
    {
        own.push(*address.ip());
    }
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    let script = format!(
        "ping -c 1 10.0.2.2 >/dev/null && echo pinged
         nc 10.0.2.2 {down} </dev/null >/tmp/data && wc -c </tmp/data
         nc 10.0.2.2 {up} </tmp/data && echo sent
         for ip in {}; do nc -w 60 $ip {closed} </dev/null 2>&1 | grep -o refused; done
         echo listening
         nc -l -p 80 </tmp/data >/tmp/back
         cmp /tmp/data /tmp/back && echo the same
         cat /etc/resolv.conf",
        own.join(" ")
    );
    let allowed = format!("{down},{up}");
    let mut machine = Session::start(
        kluis()
            .args(["run", "--timeout", TIMEOUT, "--allow-host", &allowed, "--publish", "0:80"])
            .args(["--", "sh", "-c", &script]),
    );
    let published = machine.published(80);
    assert!(published.starts_with("127.0.0.1:"), "{published}");
    machine.hear("listening");
    assert!(visit(&published, &data) == data, "a visitor gets what the guest was given");
    let (status, said, errors) = machine.end();
    let refused = "refused\n".repeat(own.len());
    let wanted = format!("pinged\n{BYTES}\nsent\n{refused}listening\nthe same\nnameserver 10.0.2.3\n");
    assert_eq!(said, wanted, "{errors}");
    assert!(uploaded.join().unwrap() == data, "what the guest sent back is what it got");
    assert!(secret.accept().is_err(), "nobody came");
    assert_eq!(status.code(), Some(0), "{errors}");
}

#[test]
fn without_a_network_there_is_no_device() {
    let _turn = turn();
    let mut command = kluis();
    command.args(["run", "--quiet", "--timeout", TIMEOUT, "--network", "none", "--", "ls", "/sys/class/net"]);
    let out = output(&mut command, b"");
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(0), "lo\n"), "{}", text(&out.stderr));
}

#[test]
fn a_port_in_use_is_told_before_the_boot() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let out = output(kluis().args(["run", "--publish", &format!("{port}:80"), "--", "true"]), b"");
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stderr);
    assert!(
        said.lines()
            .last()
            .unwrap()
            .contains(&format!("cannot publish 127.0.0.1:{port}: the port is in use"))
    );
}
