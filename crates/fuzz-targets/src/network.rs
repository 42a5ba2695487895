//! A hostile guest's frames at the NAT, with a peer on the host's loopback.

/// See `net::fuzz`.
pub(crate) fn run(data: &[u8]) {
    net::fuzz(data);
}

/// What a step's first byte means; its upper bits say more.
const FRAME: u8 = 0;
const PACKET: u8 = 1;
const SEGMENT: u8 = 2;
const HANG_UP: u8 = 5;
const HOST: u8 = 6;
const TAKE: u8 = 7;

/// Steps that begin a connection and use it, a ping, an address asked for.
pub fn seeds() -> Vec<Vec<u8>> {
    // sequence, acknowledged, options, flags, window, padding
    let segment = |length: u8, sequence: u8, ack: u8, flags: u8| {
        let mut step = vec![SEGMENT, length, 0, sequence, ack, 0, flags, 0xff, 0xff];
        step.resize(2 + 24, 0);
        step
    };
    let (syn, ack, fin) = (2, 16, 17);
    let open = [segment(0, 0, 0, syn), vec![TAKE, 0], segment(0, 1, 1, ack)].concat();
    let talk = [segment(20, 1, 1, ack), vec![HOST, 200, TAKE, 0], segment(0, 61, 90, ack)].concat();
    let close = [segment(0, 61, 90, fin), vec![HANG_UP, 0, TAKE, 0]].concat();
    let mut ping = vec![PACKET, 4, 8, 0, 0, 0, 0, 1, 0, 1, b'p', b'i', b'n', b'g'];
    ping.extend([TAKE, 0, TAKE, 0]);
    // ARP: who has the gateway's address?
    let mut arp = vec![FRAME, 14];
    arp.extend([0xff; 6]);
    arp.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    arp.extend([TAKE, 0]);
    vec![
        [&open[..], &talk, &close].concat(),
        [&arp[..], &ping, &open, &talk, &talk, &close, &open].concat(),
        [&ping[..], &ping, &ping].concat(),
    ]
}
