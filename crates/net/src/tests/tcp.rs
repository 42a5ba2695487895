use super::world::{MTU, World, pattern};
use crate::tcp::{MAX_CONNECTING, MAX_FLOWS};
use crate::{Config, GATEWAY, Protocol, Publish, Published};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A server of the host for one connection.
fn serve(f: impl FnOnce(TcpStream) -> Vec<u8> + Send + 'static) -> (u16, JoinHandle<Vec<u8>>) {
    let (listener, port) = listener();
    (port, std::thread::spawn(move || f(listener.accept().unwrap().0)))
}

/// Sends all of `data` and closes, and reads until the end.
fn exchange(world: &mut World, handle: SocketHandle, data: &[u8]) -> Vec<u8> {
    let (mut sent, mut got) = (0, Vec::new());
    world.until("the exchange", |w| {
        let socket = w.tcp(handle);
        if sent < data.len() && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
            if sent == data.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        let over = matches!(socket.state(), State::TimeWait | State::Closed);
        (over && sent == data.len()).then_some(())
    });
    got
}

fn state(world: &mut World, handle: SocketHandle, wanted: State) {
    world.until(&format!("{wanted:?}"), |w| (w.tcp(handle).state() == wanted).then_some(()));
}

#[test]
fn megabytes_go_both_ways_whole() {
    for mtu in [MTU, 1500] {
        let data = pattern(5_000_000);
        let echo = data.clone();
        let (port, server) = serve(move |mut stream| {
            let mut writer = stream.try_clone().unwrap();
            let writer = std::thread::spawn(move || {
                writer.write_all(&echo).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            writer.join().unwrap();
            got
        });
        let mut w = World::with(&[port], Published::bind(&[]).unwrap(), &[], mtu);
        let handle = w.connect(GATEWAY, port);
        assert!(exchange(&mut w, handle, &data) == data, "to the guest, {mtu}");
        assert!(server.join().unwrap() == data, "from the guest, {mtu}");
        w.settle();
        assert_eq!(w.nat.tcp.len(), 0);
    }
}

#[test]
fn half_closed_connection_goes_on() {
    // the host answers only when the guest has said all
    let (port, server) = serve(|mut stream| {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        stream.write_all(&got).unwrap();
        got
    });
    let mut w = World::new(&[port]);
    let handle = w.connect(GATEWAY, port);
    assert_eq!(exchange(&mut w, handle, b"ask and listen"), b"ask and listen");
    assert_eq!(server.join().unwrap(), b"ask and listen");
    // the guest answers only when the host has said all
    let (port, server) = serve(|mut stream| {
        stream.write_all(b"first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let mut w = World::new(&[port]);
    let handle = w.connect(GATEWAY, port);
    state(&mut w, handle, State::CloseWait);
    assert_eq!(exchange(&mut w, handle, b"second"), b"first");
    assert_eq!(server.join().unwrap(), b"second");
}

#[test]
fn resets_cross() {
    // the host's
    let (listener, port) = listener();
    let mut w = World::new(&[port]);
    let handle = w.connect(GATEWAY, port);
    state(&mut w, handle, State::Established);
    let stream = listener.accept().unwrap().0;
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    state(&mut w, handle, State::Closed);
    // the guest's
    let handle = w.connect(GATEWAY, port);
    state(&mut w, handle, State::Established);
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(PATIENCE).unwrap();
    w.tcp(handle).abort();
    w.settle();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(w.nat.tcp.len(), 0);
}

#[test]
fn nobody_listening_is_a_reset() {
    let (listener, port) = listener();
    drop(listener);
    let mut w = World::new(&[port]);
    let handle = w.connect(GATEWAY, port);
    state(&mut w, handle, State::Closed);
    assert_eq!(w.nat.tcp.len(), 0);
}

#[test]
fn host_is_out_of_reach_unless_allowed() {
    let (listener, port) = listener();
    listener.set_nonblocking(true).unwrap();
    let mut w = World::new(&[port ^ 1]);
    let mut own = vec![GATEWAY, crate::DNS, LOOPBACK, [169, 254, 169, 254].into()];
    // its address on the way out, if it has one
    let out = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if out.connect("198.51.100.1:9").is_ok()
        && let Ok(SocketAddr::V4(address)) = out.local_addr()
    {
        own.push(*address.ip());
    }
    for ip in own {
        let handle = w.connect(ip, port);
        // the guest's own stack refuses to send to some of them
        w.until("the refusal", |w| matches!(w.tcp(handle).state(), State::Closed).then_some(()));
        assert_eq!(w.nat.tcp.len(), 0, "{ip}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn published_port_leads_to_the_guest_once_it_is_there() {
    let any = SocketAddr::new(LOOPBACK.into(), 0);
    let config = Config {
        publish: vec![Publish { protocol: Protocol::Tcp, host: any, guest: 22 }],
        ..Config::default()
    };
    let (mut w, ports) = World::published(&config);
    assert_ne!(ports[0].host.port(), 0);
    let data = pattern(1_000_000);
    let (host, sent) = (ports[0].host, data.clone());
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    // a guest without an address
    (0..50).for_each(|_| w.nat.turn(Some(Duration::from_millis(1))));
    assert_eq!(w.nat.tcp.len(), 0, "there is no guest yet");
    // one that has it, and says nothing by itself
    let handle = w.listen(22);
    let mut got = Vec::new();
    w.until("the transfer", |w| {
        let socket = w.tcp(handle);
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        (socket.state() == State::CloseWait).then_some(())
    });
    assert!(got == data);
    assert_eq!(exchange(&mut w, handle, b"thanks"), b"");
    assert_eq!(client.join().unwrap(), b"thanks");
}

#[test]
fn published_port_without_a_listener_in_the_guest_is_a_reset() {
    let any = SocketAddr::new(LOOPBACK.into(), 0);
    let publish = vec![Publish { protocol: Protocol::Tcp, host: any, guest: 22 }];
    let (mut w, ports) = World::published(&Config { publish, ..Config::default() });
    w.ping(GATEWAY, 1, b"");
    w.settle();
    let mut stream = TcpStream::connect(ports[0].host).unwrap();
    stream.set_nonblocking(true).unwrap();
    let end =
        w.until("the end", |_| stream.read(&mut [0; 1]).err().filter(|e| e.kind() != ErrorKind::WouldBlock));
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_port_in_use_is_told_with_the_remedy() {
    let (_listener, port) = listener();
    let host = SocketAddr::new(LOOPBACK.into(), port);
    let publish = vec![Publish { protocol: Protocol::Tcp, host, guest: 22 }];
    let e = crate::Network::new(&Config { publish, ..Config::default() }).err().unwrap().to_string();
    assert!(e.contains(&host.to_string()) && e.contains("in use; choose another"), "{e}");
    assert_eq!(e.lines().count(), 1);
}

#[test]
fn connections_are_bounded() {
    // a listener whose backlog nobody empties takes them all
    let (listener, port) = listener();
    listener.set_nonblocking(true).unwrap();
    let mut w = World::new(&[port]);
    let mut accepted = Vec::new();
    for i in 0..MAX_FLOWS + 40 {
        w.connect(GATEWAY, port);
        w.turn();
        accepted.extend(listener.accept());
        assert!(w.nat.tcp.len() <= MAX_FLOWS, "{i}");
    }
    w.until("a full table", |w| {
        accepted.extend(listener.accept());
        (w.nat.tcp.len() >= MAX_FLOWS).then_some(())
    });
    w.settle();
    assert_eq!(w.nat.tcp.len(), MAX_FLOWS);
}

#[test]
fn half_open_connections_are_bounded() {
    // a listener that is busy: the host's kernel lets further connections wait
    let (listener, port) = listener();
    rustix::net::listen(&listener, 0).unwrap();
    let mut w = World::new(&[port]);
    for i in 0..1000 {
        w.packet(&syn(GATEWAY, port, i));
        if i % 50 == 0 {
            w.nat.turn(Some(Duration::ZERO));
        }
    }
    w.nat.turn(Some(Duration::ZERO));
    // one or two stand
    assert!((MAX_CONNECTING..MAX_CONNECTING + 3).contains(&w.nat.tcp.len()), "{}", w.nat.tcp.len());
}

/// A first segment.
fn syn(to: Ipv4Addr, port: u16, from: u16) -> Vec<u8> {
    use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket};
    let header = Ipv4Repr {
        src_addr: crate::GUEST,
        dst_addr: to,
        next_header: IpProtocol::Tcp,
        payload_len: 20,
        hop_limit: 64,
    };
    let mut bytes = vec![0; 40];
    header.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &Default::default());
    let mut tcp = TcpPacket::new_unchecked(&mut bytes[20..]);
    tcp.set_src_port(1024 + from);
    tcp.set_dst_port(port);
    tcp.set_header_len(20);
    tcp.clear_flags();
    tcp.set_syn(true);
    tcp.set_window_len(1000);
    bytes
}
