use super::world::{MTU, NAME_SERVER, Received, World, pattern};
use crate::datagrams::MAX_FLOWS;
use crate::{Config, DNS, GATEWAY, Protocol, Publish, Published};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

fn server() -> (UdpSocket, SocketAddrV4) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!() };
    (socket, address)
}

#[test]
fn datagrams_of_any_length_come_and_go() {
    let (server, at) = server();
    let mut w = World::new(&[at.port()]);
    let to = SocketAddrV4::new(GATEWAY, at.port());
    let mut buffer = vec![0; 70_000];
    for len in [0, 1, 1472, 9000, MTU - 28] {
        let data = pattern(len);
        w.udp(5000, to, &data);
        w.turn();
        let (n, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..n] == data);
        server.send_to(&data, from).unwrap();
        assert_eq!(w.received(), Some(Received::Udp { from: to, port: 5000, data }), "{len}");
    }
    assert_eq!(w.nat.datagrams.len(), 1);
    // one that no packet holds is lost, and strangers are not let in
    let (_, from) = {
        w.udp(5000, to, b"x");
        w.turn();
        server.recv_from(&mut buffer).unwrap()
    };
    server.send_to(&pattern(65_507), from).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"stranger", from).unwrap();
    assert_eq!(w.received(), None);
}

#[test]
fn nobody_there_is_told() {
    let (server, at) = server();
    drop(server);
    let mut w = World::new(&[at.port()]);
    w.udp(5000, SocketAddrV4::new(GATEWAY, at.port()), b"x");
    assert_eq!(w.received(), Some(Received::Unreachable { code: 3, about: GATEWAY }));
}

#[test]
fn host_is_out_of_reach_unless_allowed() {
    let (server, at) = server();
    let mut w = World::new(&[]);
    for ip in [GATEWAY, DNS, Ipv4Addr::LOCALHOST, [169, 254, 169, 254].into(), [10, 0, 2, 255].into()] {
        w.udp(5000, SocketAddrV4::new(ip, at.port()), b"x");
        assert_eq!(w.received(), Some(Received::Unreachable { code: 3, about: ip }), "{ip}");
    }
    for ip in [Ipv4Addr::BROADCAST, [224, 0, 0, 251].into()] {
        w.udp(5000, SocketAddrV4::new(ip, at.port()), b"x");
        assert_eq!(w.received(), None, "{ip}");
    }
    server.set_nonblocking(true).unwrap();
    assert!(server.recv(&mut [0; 9]).is_err());
    assert_eq!(w.nat.datagrams.len(), 0);
}

#[test]
fn names_are_asked_of_the_hosts_server() {
    let (server, at) = server();
    let mut w = World::with(&[], Published::bind(&[]).unwrap(), &[at], MTU);
    w.udp(5353, NAME_SERVER, b"question");
    w.turn();
    let mut buffer = [0; 512];
    let (n, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"question");
    server.send_to(b"answer", from).unwrap();
    let answer = Received::Udp { from: NAME_SERVER, port: 5353, data: b"answer".to_vec() };
    assert_eq!(w.received(), Some(answer));
    // a host without servers
    let mut w = World::new(&[]);
    w.udp(5353, NAME_SERVER, b"question");
    assert_eq!(w.received(), Some(Received::Unreachable { code: 3, about: DNS }));
}

#[test]
fn pings_are_answered_or_refused() {
    let mut w = World::new(&[]);
    for ip in [GATEWAY, DNS] {
        let data = pattern(1400);
        w.ping(ip, 42, &data);
        assert_eq!(w.received(), Some(Received::Echo { from: ip, ident: 42, data }));
    }
    for ip in [Ipv4Addr::LOCALHOST, [10, 0, 2, 9].into(), [169, 254, 1, 1].into()] {
        w.ping(ip, 42, b"x");
        assert_eq!(w.received(), None, "{ip}");
    }
}

#[test]
fn conversations_are_bounded() {
    let (server, at) = server();
    let mut w = World::new(&[at.port()]);
    for port in 0..2000 {
        w.udp(1000 + port, SocketAddrV4::new(GATEWAY, at.port()), b"x");
        if port % 50 == 0 {
            w.nat.turn(Some(Duration::ZERO));
            assert!(w.nat.datagrams.len() <= MAX_FLOWS);
        }
    }
    w.turn();
    assert_eq!(w.nat.datagrams.len(), MAX_FLOWS);
    drop(server);
}

#[test]
fn published_datagrams_reach_the_guest_and_its_answers_the_sender() {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let publish = vec![Publish { protocol: Protocol::Udp, host: any, guest: 53 }];
    let (mut w, ports) = World::published(&Config { publish, ..Config::default() });
    w.ping(GATEWAY, 1, b"");
    assert!(w.received().is_some());
    let clients = [server().0, server().0];
    for client in &clients {
        client.send_to(b"question", ports[0].host).unwrap();
        let Some(Received::Udp { from, port: 53, data }) = w.received() else { panic!() };
        assert_eq!((*from.ip(), data.as_slice()), (GATEWAY, &b"question"[..]));
        // from another port it is not the answer
        w.udp(54, from, b"no answer");
        assert_eq!(w.received(), Some(Received::Unreachable { code: 3, about: GATEWAY }));
        w.udp(53, from, b"answer");
        w.turn();
        let mut buffer = [0; 32];
        let (n, who) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], who), (&b"answer"[..], ports[0].host));
    }
}
