use super::packet::{NO_RECEIVE, NO_SEND, Pair, op};
use super::*;
use crate::device::Device;
use crate::virtio::driver::{Buf, Guest, virtio_device_tests};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

const CID: u64 = 3;
/// The port at which the host has somebody; elsewhere it has nobody.
const SERVICE: u32 = 5000;

/// What the host's program at the other end of a stream has and does.
#[derive(Default)]
struct Program {
    /// Bytes for the guest, and whether more may come.
    says: VecDeque<u8>,
    quiet: bool,
    /// Bytes from the guest, and how many more it takes for now.
    heard: Vec<u8>,
    room: usize,
    /// It reads no more.
    deaf: bool,
    /// It was told that the guest sends no more; its stream was closed.
    told: bool,
    closed: bool,
}

#[derive(Clone, Default)]
struct Far(Arc<Mutex<Program>>);

impl Far {
    fn new(room: usize) -> Self {
        let far = Self::default();
        far.get().room = room;
        far
    }
    fn get(&self) -> MutexGuard<'_, Program> {
        self.0.lock().unwrap()
    }
    /// Whether it was told that the guest sends no more; whether it is closed.
    fn ends(&self) -> (bool, bool) {
        let p = self.get();
        (p.told, p.closed)
    }
}

struct Near(Far);

impl Read for Near {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut p = self.0.get();
        match p.says.read(buf)? {
            0 if !p.quiet => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}
impl Write for Near {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut p = self.0.get();
        let n = data.len().min(p.room);
        if p.deaf {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        p.room -= n;
        p.heard.extend(&data[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl HostStream for Near {
    fn finish(&mut self) {
        self.0.get().told = true;
    }
}
impl Drop for Near {
    fn drop(&mut self) {
        self.0.get().closed = true;
    }
}

/// A host with this program at its port, for as many connections as there are.
struct Host(Far);
impl HostSide for Host {
    fn connect(&mut self, port: u32) -> Option<Box<dyn HostStream>> {
        (port == SERVICE).then(|| Box::new(Near(self.0.clone())) as Box<dyn HostStream>)
    }
}

virtio_device_tests!(every_device, || Guest::new(Vsock::new(CID, Box::new(Host(Far::new(100))))));

/// What the guest's program would see in a packet.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    op: u16,
    pair: (u32, u32),
    flags: u32,
    data: Vec<u8>,
}

/// A multiplexer with a guest's end of the talk.
struct Talk {
    mux: Mux,
    far: Far,
    alloc: u32,
    forwarded: u32,
}

impl Talk {
    fn new() -> Self {
        let far = Far::new(usize::MAX);
        Self { mux: Mux::new(CID, Box::new(Host(far.clone()))), far, alloc: 1 << 16, forwarded: 0 }
    }

    fn header(&self, host: u32, guest: u32, op: u16) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: HOST_CID.into(),
            src_port: guest.into(),
            dst_port: host.into(),
            kind: 1.into(),
            op: op.into(),
            buf_alloc: self.alloc.into(),
            fwd_cnt: self.forwarded.into(),
            ..Header::default()
        }
    }

    fn say(&mut self, op: u16, flags: u32, data: &[u8]) {
        let mut header = self.header(SERVICE, 77, op);
        header.flags = flags.into();
        header.len = (data.len() as u32).into();
        self.mux.hear(&header, data);
    }

    fn next(&mut self, room: usize) -> Option<(Seen, u32, u32)> {
        let mut buf = vec![0; MAX_PAYLOAD];
        let h = self.mux.next(room, &mut buf)?;
        assert_eq!((h.src_cid.get(), h.dst_cid.get(), h.kind.get()), (HOST_CID, CID, 1));
        buf.truncate(h.len.get() as usize);
        let pair = (h.src_port.get(), h.dst_port.get());
        let seen = Seen { op: h.op.get(), pair, flags: h.flags.get(), data: buf };
        Some((seen, h.buf_alloc.get(), h.fwd_cnt.get()))
    }

    /// The next packet, which there must be, of this kind, of our connection.
    fn expect(&mut self, op: u16) -> Seen {
        let (seen, ..) = self.next(4096).expect("a packet");
        assert_eq!((seen.op, seen.pair), (op, (SERVICE, 77)), "{seen:?}");
        seen
    }

    fn silent(&mut self) {
        assert_eq!(self.next(4096).map(|n| n.0), None);
    }

    fn open(&mut self) {
        self.say(op::REQUEST, 0, b"");
        self.expect(op::RESPONSE);
    }
}

#[test]
fn a_conversation_with_both_its_ends() {
    let mut t = Talk::new();
    t.open();
    t.say(op::RW, 0, b"hello");
    assert_eq!(t.far.get().heard, b"hello");
    t.far.get().says.extend(b"hi");
    t.mux.wake();
    assert_eq!(t.expect(op::RW).data, b"hi");
    t.silent();
    // the guest ends its direction and still hears
    t.say(op::SHUTDOWN, NO_SEND, b"");
    assert_eq!(t.far.ends(), (true, false));
    t.far.get().says.extend(b"bye");
    t.far.get().quiet = true;
    t.mux.wake();
    assert_eq!(t.expect(op::RW).data, b"bye");
    assert_eq!(t.expect(op::SHUTDOWN).flags, NO_SEND);
    t.silent();
    t.say(op::SHUTDOWN, NO_SEND | NO_RECEIVE, b"");
    t.expect(op::RST);
    assert!(t.far.ends().1 && t.mux.is_empty());
    t.silent();
}

#[test]
fn the_host_ends_first() {
    let mut t = Talk::new();
    t.open();
    t.far.get().quiet = true;
    t.mux.wake();
    assert_eq!(t.expect(op::SHUTDOWN).flags, NO_SEND);
    t.say(op::RW, 0, b"still here");
    assert_eq!(t.far.get().heard, b"still here");
    // then it is gone altogether: what is sent to it counts as taken
    t.far.get().deaf = true;
    t.say(op::RW, 0, &[7; 1000]);
    let (seen, _, forwarded) = t.next(4096).unwrap();
    assert_eq!((seen.op, seen.flags, forwarded), (op::SHUTDOWN, NO_SEND | NO_RECEIVE, 1010));
    t.say(op::RST, 0, b"");
    assert!(t.mux.is_empty() && t.far.ends().1);
    t.silent();
}

#[test]
fn nobody_there_is_a_reset() {
    let mut t = Talk::new();
    t.mux.hear(&t.header(SERVICE + 1, 9, op::REQUEST), b"");
    let (seen, ..) = t.next(0).unwrap();
    assert_eq!((seen.op, seen.pair), (op::RST, (SERVICE + 1, 9)));
    // so is everything without a connection, but never a reset
    for op in [op::RESPONSE, op::SHUTDOWN, op::RW, op::CREDIT_UPDATE, op::CREDIT_REQUEST, 0, 99] {
        t.say(op, 0, b"");
        t.expect(op::RST);
    }
    t.say(op::RST, 0, b"");
    t.silent();
    // seqpacket is not offered
    let mut header = t.header(SERVICE, 77, op::REQUEST);
    header.kind = 2.into();
    t.mux.hear(&header, b"");
    t.expect(op::RST);
    // of others, and to others, nothing is heard
    for (src, dst) in [(CID + 1, HOST_CID), (CID, 1), (0, 0)] {
        let mut header = t.header(SERVICE, 77, op::REQUEST);
        (header.src_cid, header.dst_cid) = (src.into(), dst.into());
        t.mux.hear(&header, b"");
        t.silent();
    }
    assert!(t.mux.is_empty());
}

#[test]
fn the_host_calls_the_guest() {
    let mut t = Talk::new();
    t.far.get().says.extend(b"early");
    t.mux.connect(22, Box::new(Near(t.far.clone())));
    let (seen, alloc, _) = t.next(4096).unwrap();
    assert_eq!((seen.op, seen.pair.1, alloc), (op::REQUEST, 22, BUFFER as u32));
    t.silent();
    let host = seen.pair.0;
    // no data before the answer, and one answer only
    t.mux.hear(&t.header(host, 22, op::RESPONSE), b"");
    let (seen, ..) = t.next(4096).unwrap();
    assert_eq!((seen.op, seen.data), (op::RW, b"early".to_vec()));
    t.mux.hear(&t.header(host, 22, op::RESPONSE), b"");
    assert_eq!(t.next(0).unwrap().0.op, op::RST);
    assert!(t.far.ends().1);

    let refused = Far::new(0);
    t.mux.connect(23, Box::new(Near(refused.clone())));
    let port = t.next(0).unwrap().0.pair.0;
    assert_ne!(port, host);
    t.mux.hear(&t.header(port, 23, op::RST), b"");
    assert!(refused.ends().1 && t.mux.is_empty());
}

#[test]
fn credit_bounds_both_directions() {
    let mut t = Talk::new();
    t.alloc = 10;
    t.open();
    t.far.get().says.extend([1; 30]);
    t.mux.wake();
    assert_eq!(t.expect(op::RW).data.len(), 10);
    t.silent();
    t.forwarded = 4;
    t.say(op::CREDIT_UPDATE, 0, b"");
    assert_eq!(t.expect(op::RW).data.len(), 4);
    // counters that cannot be give no credit
    t.forwarded = 1000;
    t.say(op::CREDIT_UPDATE, 0, b"");
    t.silent();

    // the other way, the host being slow
    t.far.get().room = 0;
    for _ in 0..BUFFER / MAX_PAYLOAD {
        t.say(op::RW, 0, &vec![2; MAX_PAYLOAD]);
    }
    t.silent();
    t.say(op::CREDIT_REQUEST, 0, b"");
    let (seen, alloc, forwarded) = t.next(0).unwrap();
    assert_eq!((seen.op, alloc, forwarded), (op::CREDIT_UPDATE, BUFFER as u32, 0));
    t.far.get().room = BUFFER / 4;
    t.mux.wake();
    assert_eq!(t.next(0).unwrap().2, BUFFER as u32 / 4, "room enough to say so");
    t.silent();
    t.say(op::RW, 0, &[3; BUFFER / 4]);
    t.say(op::RW, 0, &[4]);
    t.expect(op::RST);
    assert!(t.far.ends().1, "more than its credit");
}

#[test]
fn a_slow_reader_gets_the_rest_after_the_guest_has_left() {
    for goodbye in [op::SHUTDOWN, op::RST] {
        let mut t = Talk::new();
        t.open();
        t.far.get().room = 1;
        t.say(op::RW, 0, b"abc");
        t.say(goodbye, NO_SEND | NO_RECEIVE, b"");
        t.silent();
        assert_eq!(t.far.get().heard.len(), 1);
        assert!(!t.far.ends().1);
        t.far.get().room = 100;
        t.mux.wake();
        assert_eq!(t.far.get().heard, b"abc");
        if goodbye == op::SHUTDOWN {
            t.expect(op::RST);
        }
        assert_eq!(t.far.ends(), (true, true));
        t.silent();
    }
}

#[test]
fn connections_are_bounded_and_take_turns() {
    let mut t = Talk::new();
    for guest in 0..MAX_CONNECTIONS as u32 {
        t.mux.hear(&t.header(SERVICE, guest, op::REQUEST), b"");
        assert_eq!(t.next(0).unwrap().0.op, op::RESPONSE);
    }
    t.mux.hear(&t.header(SERVICE, 9999, op::REQUEST), b"");
    assert_eq!(t.next(0).unwrap().0.op, op::RST);
    let late = Far::new(0);
    t.mux.connect(1, Box::new(Near(late.clone())));
    assert!(late.ends().1);
    // each has its turn before one has its second
    t.far.get().says.extend(vec![1; 2 * MAX_CONNECTIONS]);
    t.mux.wake();
    let turns: Vec<u32> = (0..MAX_CONNECTIONS).map(|_| t.next(1).unwrap().0.pair.1).collect();
    let mut each = turns.clone();
    each.sort_unstable();
    assert_eq!(each, (0..MAX_CONNECTIONS as u32).collect::<Vec<_>>(), "{turns:?}");
    // asking twice ends the first
    t.mux.hear(&t.header(SERVICE, 5, op::REQUEST), b"");
    let seen = t.next(0).unwrap().0;
    assert_eq!((seen.op, seen.pair), (op::RST, (SERVICE, 5)));
}

#[test]
fn ports_of_the_host_go_round_and_skip_what_is_used() {
    let mut t = Talk::new();
    let ports: Vec<u32> = (0..10)
        .map(|_| {
            t.mux.connect(1, Box::new(Near(Far::new(0))));
            t.next(0).unwrap().0.pair.0
        })
        .collect();
    assert!(ports.windows(2).all(|p| p[0] != p[1]));
    assert!(Pair { host: ports[0], guest: 1 } < Pair { host: ports[1], guest: 1 });
}

// -- through the rings

fn send(g: &mut Guest<Vsock>, header: &Header, data: &[u8]) {
    let at = g.alloc((HEADER + data.len()) as u64);
    g.poke(at, header.as_bytes());
    g.poke(at + HEADER as u64, data);
    let mut bufs = vec![Buf::In(at, HEADER as u32)];
    if !data.is_empty() {
        bufs.push(Buf::In(at + HEADER as u64, data.len() as u32));
    }
    g.add(TRANSMIT, &bufs);
    g.notify(TRANSMIT);
}

fn guest(far: &Far) -> Guest<Vsock> {
    let mut g = Guest::new(Vsock::new(CID, Box::new(Host(far.clone()))));
    g.start(0);
    g
}

#[test]
fn packets_come_through_the_rings() {
    let far = Far::new(usize::MAX);
    let mut g = guest(&far);
    assert_eq!(g.device_config(0, 8), CID);
    let buffers: Vec<u64> = (0..3).map(|_| g.alloc(4096)).collect();
    for at in &buffers {
        g.add(RECEIVE, &[Buf::Out(*at, 4096)]);
    }
    g.notify(RECEIVE);
    assert_eq!(g.used(RECEIVE), []);
    let talk = Talk::new();
    send(&mut g, &talk.header(SERVICE, 77, op::REQUEST), b"");
    assert_eq!(g.used(RECEIVE), [(0, 44)]);
    let mut rw = talk.header(SERVICE, 77, op::RW);
    rw.len = 5.into();
    send(&mut g, &rw, b"hello");
    assert_eq!(far.get().heard, b"hello");
    far.get().says.extend(b"world");
    g.f().kick();
    assert_eq!(g.used(RECEIVE), [(1, 49)]);
    assert_eq!(g.peek(buffers[1] + 44, 5), b"world");
    // a length beyond the chain, or beyond reason, is no packet
    for len in [6, MAX_PAYLOAD as u32 + 1, u32::MAX] {
        rw.len = len.into();
        send(&mut g, &rw, b"again");
    }
    assert_eq!(far.get().heard, b"hello");
    assert_eq!(g.used(TRANSMIT).len(), 5);
    // a buffer too small for a header comes back empty, and nothing is lost
    let small = g.alloc(16);
    g.add(RECEIVE, &[Buf::Out(small, 16)]);
    let last = g.alloc(4096);
    g.add(RECEIVE, &[Buf::Out(last, 4096)]);
    far.get().quiet = true;
    g.f().kick();
    assert_eq!(g.used(RECEIVE), [(2, 44), (3, 0)], "the end");
    far.get().deaf = true;
    rw.len = 1.into();
    send(&mut g, &rw, b"x");
    assert_eq!(g.used(RECEIVE), [(4, 44)], "the other end");
}

#[test]
fn answers_wait_for_buffers_and_hold_up_questions() {
    let far = Far::new(0);
    let mut g = guest(&far);
    let talk = Talk::new();
    for guest in 0..100 {
        send(&mut g, &talk.header(SERVICE + 1, guest, op::REQUEST), b"");
    }
    assert_eq!(g.used(TRANSMIT).len(), 64);
    for _ in 0..100 {
        let at = g.alloc(64);
        g.add(RECEIVE, &[Buf::Out(at, 64)]);
    }
    g.notify(RECEIVE);
    assert_eq!(g.used(TRANSMIT).len(), 36);
    assert_eq!(g.used(RECEIVE).len(), 100);
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_gone() {
    let far = Far::new(0);
    let mut g = guest(&far);
    let at = g.alloc(4);
    g.poke(at, &[9; 4]);
    g.add(EVENT, &[Buf::Out(at, 4)]);
    g.notify(EVENT);
    let state = g.f().save();
    g.f().load(state).unwrap();
    g.f().kick();
    assert_eq!(g.used(EVENT), [], "there were none");
    send(&mut g, &Talk::new().header(SERVICE, 77, op::REQUEST), b"");
    let state = g.f().save();
    g.f().load(state).unwrap();
    assert!(far.ends().1);
    g.f().kick();
    assert_eq!(g.used(EVENT), [(0, 4)]);
    assert_eq!(g.peek(at, 4), [0; 4]);
}
