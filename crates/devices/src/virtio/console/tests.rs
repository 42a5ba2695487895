use super::*;
use crate::testing::Rng;
use crate::virtio::driver::{Buf, Guest, virtio_device_tests};
use std::sync::Mutex;

/// A sink that takes what it has room for.
#[derive(Default)]
struct Sink {
    got: Vec<u8>,
    room: usize,
    events: Vec<(PortEvent, usize)>,
}

struct Rig {
    g: Guest<Console>,
    hosts: Vec<HostPort>,
    sinks: Vec<Arc<Mutex<Sink>>>,
}

fn rig(capacity: usize) -> Rig {
    let sinks: Vec<Arc<Mutex<Sink>>> =
        (0..3).map(|_| Arc::new(Mutex::new(Sink { room: usize::MAX, ..Sink::default() }))).collect();
    let ports = sinks
        .iter()
        .zip(["", "agent", "io.stdin"])
        .enumerate()
        .map(|(i, (s, name))| {
            let (out, events) = (s.clone(), s.clone());
            PortConfig {
                name: name.into(),
                console: i == 0,
                sink: Box::new(move |data: &[u8]| {
                    let mut s = out.lock().unwrap();
                    let n = data.len().min(s.room);
                    s.got.extend(&data[..n]);
                    s.room -= n;
                    n
                }),
                on_event: Some(Box::new(move |e| {
                    let mut s = events.lock().unwrap();
                    let seen = s.got.len();
                    s.events.push((e, seen));
                })),
            }
        })
        .collect();
    let (console, hosts) = Console::new(ports, capacity, ResizeOrder::Specification);
    Rig { g: Guest::new(console), hosts, sinks }
}

virtio_device_tests!(every_device, || rig(4096).g);

impl Rig {
    fn started(capacity: usize) -> Self {
        let mut r = rig(capacity);
        connect(&r.g.f, &r.hosts, |kick| kick());
        r.g.start(F_SIZE | F_MULTIPORT);
        r
    }

    fn control(&mut self, id: u32, event: u16, value: u16) {
        let a = self.g.alloc(8);
        let mut m = id.to_le_bytes().to_vec();
        m.extend(event.to_le_bytes());
        m.extend(value.to_le_bytes());
        self.g.poke(a, &m);
        self.g.add(3, &[Buf::In(a, 8)]);
        self.g.notify(3);
    }

    /// Gives `n` buffers for control messages, returns their addresses.
    fn control_buffers(&mut self, n: usize) -> Vec<u64> {
        let at: Vec<u64> = (0..n).map(|_| self.g.alloc(64)).collect();
        for &a in &at {
            self.g.add(2, &[Buf::Out(a, 64)]);
        }
        self.g.notify(2);
        at
    }

    /// Messages received: id, event, value, rest.
    fn received(&mut self, at: &[u64]) -> Vec<(u32, u16, u16, Vec<u8>)> {
        let used = self.g.used(2);
        used.iter()
            .zip(at)
            .map(|(&(_, len), &a)| {
                let m = self.g.peek(a, len as usize);
                (
                    u32::from_le_bytes(m[..4].try_into().unwrap()),
                    u16::from_le_bytes([m[4], m[5]]),
                    u16::from_le_bytes([m[6], m[7]]),
                    m[8..].to_vec(),
                )
            })
            .collect()
    }

    fn open(&mut self, id: u32) {
        self.control(id, 3, 1);
        self.control(id, 6, 1);
    }
}

#[test]
fn handshake_adds_names_and_opens_the_ports() {
    let mut r = Rig::started(4096);
    assert_eq!(r.g.device_config(4, 4), 3);
    let at = r.control_buffers(16);
    r.control(0, 0, 1);
    let adds = r.received(&at);
    assert_eq!(adds, [(0, 1, 1, vec![]), (1, 1, 1, vec![]), (2, 1, 1, vec![])]);
    r.control(0, 3, 1);
    r.control(1, 3, 1);
    let expected = [
        (0, 4, 1, vec![]),
        (0, 5, 0, vec![80, 0, 25, 0]),
        (0, 6, 1, vec![]),
        (1, 7, 1, b"agent".to_vec()),
        (1, 6, 1, vec![]),
    ];
    assert_eq!(r.received(&at[3..]), expected);
    r.hosts[0].resize(132, 50);
    assert_eq!(r.received(&at[8..]), [(0, 5, 0, vec![132, 0, 50, 0])]);
    assert_eq!((r.g.device_config(0, 2), r.g.device_config(2, 2)), (132, 50));
}

#[test]
fn answers_wait_for_buffers_and_do_not_pile_up() {
    let mut r = Rig::started(4096);
    for _ in 0..100 {
        r.control(0, 0, 1);
        r.g.used(3);
    }
    let at = r.control_buffers(8);
    assert_eq!(r.received(&at).len(), 3);
}

#[test]
fn nonsense_on_the_control_queue_is_ignored() {
    let mut r = Rig::started(4096);
    for (id, event, value) in [(99, 3, 1), (u32::MAX, 6, 1), (0, 77, 9), (0, 0, 0)] {
        r.control(id, event, value);
    }
    let a = r.g.alloc(4);
    r.g.add(3, &[Buf::In(a, 4)]);
    r.g.add(3, &[Buf::Out(a, 4)]);
    r.g.notify(3);
    assert_eq!(r.g.used(3).len(), 6);
    assert!(!r.g.needs_reset());
}

#[test]
fn input_waits_for_the_guest_to_open() {
    let mut r = Rig::started(8);
    assert_eq!(r.hosts[1].write(b"0123456789"), 8, "bounded");
    assert_eq!((r.hosts[1].room(), r.hosts[1].write(b"x")), (0, 0));
    let a = r.g.alloc(64);
    r.g.add(4, &[Buf::Out(a, 5)]);
    r.g.notify(4);
    assert!(r.g.used(4).is_empty(), "Linux would throw it away");
    r.open(1);
    assert_eq!(r.g.used(4), [(0, 5)]);
    assert_eq!(r.g.peek(a, 5), b"01234");
    assert!(r.hosts[1].guest_open());
    assert_eq!(r.hosts[1].wait_room(Duration::ZERO), 5);
}
use std::time::Duration;

#[test]
fn close_follows_the_data_to_the_guest() {
    let mut r = Rig::started(64);
    r.open(2);
    let at = r.control_buffers(4);
    assert_eq!(r.received(&at).len(), 2, "name and open");
    r.hosts[2].write(b"last");
    r.hosts[2].close();
    assert_eq!(r.hosts[2].write(b"more"), 0);
    assert!(r.received(&at[2..]).is_empty(), "data first");
    let a = r.g.alloc(16);
    r.g.add(6, &[Buf::Out(a, 16)]);
    r.g.notify(6);
    assert_eq!(r.g.used(6), [(0, 4)]);
    assert_eq!(r.received(&at[2..]), [(2, 6, 0, vec![])]);
}

#[test]
fn close_follows_the_data_to_the_host() {
    let mut r = Rig::started(64);
    r.open(1);
    r.sinks[1].lock().unwrap().room = 3;
    let a = r.g.alloc(16);
    r.g.poke(a, b"output");
    r.g.add(5, &[Buf::In(a, 6)]);
    r.g.notify(5);
    r.control(1, 6, 0);
    assert!(r.g.used(5).is_empty());
    assert_eq!(r.sinks[1].lock().unwrap().events, [(PortEvent::Opened, 0)]);
    r.sinks[1].lock().unwrap().room = 100;
    r.hosts[1].kick();
    assert_eq!(r.g.used(5).len(), 1);
    let s = r.sinks[1].lock().unwrap();
    assert_eq!(s.got, b"output");
    assert_eq!(s.events, [(PortEvent::Opened, 0), (PortEvent::Closed, 6)]);
}

#[test]
fn a_reset_closes_and_keeps_input() {
    let mut r = Rig::started(64);
    r.hosts[1].write(b"early");
    r.open(1);
    r.g.start(F_MULTIPORT);
    assert_eq!(r.sinks[1].lock().unwrap().events.len(), 2);
    assert_eq!(r.hosts[1].undelivered(), 5);
}

#[test]
fn without_multiport_port_0_is_a_plain_console() {
    let mut r = rig(64);
    connect(&r.g.f, &r.hosts, |kick| kick());
    r.g.start(F_SIZE);
    r.hosts[0].write(b"in");
    let a = r.g.alloc(16);
    r.g.add(0, &[Buf::Out(a, 16)]);
    r.g.notify(0);
    assert_eq!(r.g.used(0), [(0, 2)]);
    r.g.rd(0x1000, 1);
    r.hosts[0].resize(100, 40);
    assert_eq!(r.g.rd(0x1000, 1), 2, "configuration interrupt");
}

#[test]
fn sixteen_mebibytes_each_way_arrive_whole() {
    const TOTAL: usize = 16 << 20;
    let mut data = vec![0; TOTAL];
    Rng::new(7).fill(&mut data);
    let mut r = Rig::started(64 * 1024);
    r.open(1);

    // to the guest, from a thread that waits for room
    let (host, copy) = (r.hosts[1].clone(), data.clone());
    let writer = std::thread::spawn(move || {
        let mut at = 0;
        while at < TOTAL {
            at += host.write(&copy[at..]);
            if at < TOTAL {
                host.wait_room(Duration::from_secs(1));
            }
        }
    });
    let bufs: Vec<u64> = (0..64).map(|_| r.g.alloc(4096)).collect();
    let mut by_head = std::collections::HashMap::new();
    for &a in &bufs {
        let head = r.g.add(4, &[Buf::Out(a, 4096)]);
        by_head.insert(u32::from(head), a);
    }
    r.g.notify(4);
    let mut got = Vec::with_capacity(TOTAL);
    while got.len() < TOTAL {
        let used = r.g.used(4);
        if used.is_empty() {
            std::thread::yield_now();
        }
        for (head, len) in used {
            let a = by_head[&head];
            got.extend(r.g.peek(a, len as usize));
            r.g.desc(4, head as u16, a, 4096, 2, 0);
            r.g.offer(4, head as u16);
        }
        r.g.notify(4);
    }
    writer.join().unwrap();
    assert!(got == data);

    // to the host, through a sink that is full most of the time
    let a = r.g.alloc(0x1_0000);
    let mut rng = Rng::new(3);
    for piece in data.chunks(50_000) {
        r.g.poke(a, piece);
        let n = piece.len() as u32;
        r.g.add(5, &[Buf::In(a, n / 3), Buf::In(a + u64::from(n / 3), n - n / 3)]);
        r.sinks[1].lock().unwrap().room = rng.below(40_000) as usize;
        r.g.notify(5);
        while r.g.used(5).is_empty() {
            r.sinks[1].lock().unwrap().room = rng.below(40_000) as usize;
            r.hosts[1].kick();
        }
    }
    assert!(r.sinks[1].lock().unwrap().got == data);
}
