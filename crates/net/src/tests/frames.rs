use super::world::{Received, World};
use crate::guest::udp;
use crate::{GATEWAY, GUEST};
use std::net::{Ipv4Addr, SocketAddrV4};

#[test]
fn address_is_leased_to_one_that_has_none() {
    // a DISCOVER as a client sends it: 240 bytes of BOOTP, then options
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&[1, 2, 3, 4]);
    message[28..34].copy_from_slice(&crate::GUEST_MAC);
    message[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message.extend([53, 1, 1, 255]);
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let mut w = World::new(&[]);
    w.packet(&udp(from, to, &message).unwrap());
    let Some(Received::Udp { from, port: 68, data }) = w.received() else { panic!() };
    assert_eq!(from, SocketAddrV4::new(GATEWAY, 67));
    assert_eq!((data[0], &data[4..8], &data[16..20]), (2, &[1, 2, 3, 4][..], &GUEST.octets()[..]));
}

#[test]
fn forged_sources_are_dropped() {
    let mut w = World::new(&[]);
    for ip in [[10, 0, 2, 16], [10, 0, 2, 2], [192, 0, 2, 1], [127, 0, 0, 1]] {
        let from = SocketAddrV4::new(ip.into(), 99);
        w.packet(&udp(from, SocketAddrV4::new(GATEWAY, 9), b"x").unwrap());
        assert_eq!(w.received(), None);
    }
}

#[test]
fn noise_is_survived() {
    crate::fuzz(&noise(1));
    for seed in 2..200 {
        crate::fuzz(&noise(seed));
    }
}

fn noise(seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(2000).collect()
}
