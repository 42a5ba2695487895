//! A hostile guest for the fuzzer. Whatever it asks for stays within the guest's
//! network and one listener on the host's loopback.

use crate::addresses::{GUEST_MAC, OUR_MAC};
use crate::budget::BURST;
use crate::cable::Cable;
use crate::nat::{Bell, Nat};
use crate::policy::Policy;
use crate::publish::Published;
use crate::resolver::Resolver;
use crate::{DNS, GATEWAY, GUEST, datagrams, tcp};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Frames to the guest that the wire holds: few, so that it is often full.
const ROOM: usize = 8;

thread_local! {
    /// One for all inputs of a thread: a new one each time would use up ports.
    static LISTENER: RefCell<Option<(TcpListener, u16)>> = const { RefCell::new(None) };
}

fn listener() -> Option<(TcpListener, u16)> {
    LISTENER.with_borrow_mut(|kept| {
        if kept.is_none() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
            listener.set_nonblocking(true).ok()?;
            let SocketAddr::V4(at) = listener.local_addr().ok()? else { return None };
            *kept = Some((listener, at.port()));
        }
        let (listener, port) = kept.as_ref()?;
        Some((listener.try_clone().ok()?, *port))
    })
}

/// Carries out the steps that `data` describes; how many frames the guest got.
///
/// # Panics
/// If a table grows beyond its bound.
pub(crate) fn run(mut data: &[u8]) -> usize {
    let Some((listener, port)) = listener() else { return 0 };
    let Ok(bell) = Bell::new() else { return 0 };
    let Ok(published) = Published::bind(&[]) else { return 0 };
    let cable = Cable::new(ROOM);
    let resolver = Resolver::new(vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)]);
    let policy = Policy::new([port].into(), resolver);
    let mut nat = Nat::new(Box::new(cable.clone()), Arc::new(bell), policy, published);
    let (mut streams, mut got, mut sequence) = (Vec::<TcpStream>::new(), 0, 0u32);
    let mut take = |n: usize| {
        let (head, rest) = data.split_at(n.min(data.len()));
        data = rest;
        (!head.is_empty()).then(|| head.to_vec())
    };
    for _ in 0..BURST as usize {
        let Some(step) = take(1) else { break };
        let len = take(1).map_or(0, |n| usize::from(n[0]) * 3);
        match step[0] & 7 {
            // any frame
            0 => cable.lock().from_guest.push_back(tamed(take(len).unwrap_or_default())),
            // a packet of any protocol to us
            1 => {
                let body = take(len).unwrap_or_default();
                cable.lock().from_guest.push_back(packet(step[0] >> 3, &body));
            }
            // a segment of a connection
            2..=4 => {
                let body = take(24).unwrap_or_default();
                cable.lock().from_guest.push_back(segment(step[0] >> 3, &body, len, port, sequence));
            }
            5 => streams.truncate(streams.len() / 2),
            6 => {
                for stream in &mut streams {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write(&vec![0x55; len]);
                }
            }
            // the guest takes what is there
            _ => {
                for frame in cable.lock().to_guest.drain(..) {
                    got += 1;
                    if let Some([a, b, c, d]) = frame.get(38..42) {
                        sequence = u32::from_be_bytes([*a, *b, *c, *d]);
                    }
                }
            }
        }
        nat.turn(Some(Duration::ZERO));
        if let Ok((stream, _)) = listener.accept() {
            let _ = stream.set_nonblocking(true);
            streams.push(stream);
        }
        assert!(nat.tcp.len() <= tcp::MAX_FLOWS && nat.datagrams.len() <= datagrams::MAX_FLOWS);
    }
    got + cable.lock().to_guest.len()
}

/// A frame that leads nowhere outside the guest's network.
fn tamed(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(network) = frame.get_mut(30..33) {
        network.copy_from_slice(&GATEWAY.octets()[..3]);
    }
    frame
}

fn packet(protocol: u8, body: &[u8]) -> Vec<u8> {
    let to = if protocol & 1 == 0 { GATEWAY } else { DNS };
    let protocol = [1, 6, 17, 17][usize::from(protocol >> 1 & 3)];
    let mut frame = [&OUR_MAC.0[..], &GUEST_MAC, &[8, 0, 0x45, 0]].concat();
    frame.extend((20 + body.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(GUEST.octets());
    frame.extend(to.octets());
    frame.extend(body);
    frame
}

/// A TCP segment of one of two connections, near what the other end expects.
fn segment(how: u8, body: &[u8], len: usize, port: u16, sequence: u32) -> Vec<u8> {
    let at = |i: usize| body.get(i).copied().unwrap_or(0);
    let mut tcp = Vec::new();
    tcp.extend((1000 + u16::from(how & 1)).to_be_bytes());
    tcp.extend(port.to_be_bytes());
    tcp.extend(u32::from_be_bytes([0, 0, at(0) & 3, at(1)]).to_be_bytes());
    tcp.extend(sequence.wrapping_add(u32::from(at(2))).to_be_bytes());
    let options = usize::from(at(3) & 3) * 4;
    tcp.extend([((5 + options / 4) << 4) as u8, at(4)]);
    tcp.extend([at(5), at(6), 0, 0, 0, 0]);
    tcp.extend((0..options).map(|i| at(8 + i)));
    tcp.resize(tcp.len() + len, 0xaa);
    // among them TCP to the gateway
    packet(2, &tcp)
}
