use super::*;
use crate::virtio::driver::{Buf, Guest, virtio_device_tests};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

virtio_device_tests!(every_device, || Guest::new(Net::new(MAC).0));

fn started(features: u64) -> (Guest<Net>, HostLink) {
    let (device, link) = Net::new(MAC);
    let mut g = Guest::new(device);
    connect(&g.f);
    g.start(features);
    (g, link)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// Sends `bytes`, header included, as one chain of two buffers.
fn send(g: &mut Guest<Net>, bytes: &[u8]) {
    let at = g.alloc(bytes.len() as u64);
    g.poke(at, bytes);
    let (a, b) = (bytes.len() / 2, bytes.len() - bytes.len() / 2);
    g.add(TRANSMIT, &[Buf::In(at, a as u32), Buf::In(at + a as u64, b as u32)]);
    g.notify(TRANSMIT);
}

fn with_header(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADER][..], frame].concat()
}

#[test]
fn configuration_has_address_and_mtu() {
    let (g, _link) = started(0);
    assert_eq!(g.device_config(0, 4) as u32, 2);
    assert_eq!(g.device_config(4, 2), 0x0100);
    assert_eq!(g.device_config(10, 2), 65_520);
    assert_eq!(g.device_config(12, 4), 0xffff_ffff);
}

#[test]
fn guest_frames_arrive_whole_and_others_not_at_all() {
    let (mut g, link) = started(F_CSUM);
    for len in [MIN_FRAME, 60, 1514, MAX_FRAME] {
        send(&mut g, &with_header(&frame(len)));
        assert_eq!(link.receive(), Some(frame(len)), "{len}");
    }
    for len in [0, 1, MIN_FRAME - 1, MAX_FRAME + 1, 100_000] {
        send(&mut g, &with_header(&frame(len)));
    }
    send(&mut g, &[0; HEADER - 1]);
    // segmentation was not negotiated
    let mut gso = with_header(&frame(100));
    gso[1] = 1;
    send(&mut g, &gso);
    g.add(TRANSMIT, &[Buf::In(1 << 40, 100)]);
    g.notify(TRANSMIT);
    assert_eq!(link.receive(), None);
    assert_eq!(g.used(TRANSMIT).len(), 12, "all came back");
    assert!(!g.needs_reset());
}

#[test]
fn full_host_leaves_frames_in_the_ring() {
    let (mut g, link) = started(0);
    let at = g.alloc(100);
    for _ in 0..QUEUE_FRAMES + 10 {
        g.add(TRANSMIT, &[Buf::In(at, 100)]);
    }
    g.notify(TRANSMIT);
    assert_eq!(g.used(TRANSMIT).len(), QUEUE_FRAMES);
    link.flush();
    assert_eq!(g.used(TRANSMIT).len(), 0);
    for _ in 0..QUEUE_FRAMES {
        assert!(link.receive().is_some());
    }
    link.flush();
    assert_eq!(g.used(TRANSMIT).len(), 10);
    assert_eq!((0..20).filter_map(|_| link.receive()).count(), 10);
}

#[test]
fn host_is_woken_for_frames_and_for_room() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (mut g, link) = started(0);
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    link.on_wake(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    send(&mut g, &with_header(&frame(60)));
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    for _ in 0..QUEUE_FRAMES {
        assert!(link.send(frame(60)));
    }
    assert!(!link.send(frame(60)), "full");
    assert_eq!(link.room(), 0);
    let at = g.alloc(2048);
    g.add(RECEIVE, &[Buf::Out(at, 2048)]);
    g.notify(RECEIVE);
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    assert_eq!(link.room(), 1);
}

#[test]
fn frames_are_spread_over_mergeable_buffers() {
    let (mut g, link) = started(F_MRG_RXBUF | F_GUEST_CSUM);
    let buffers: Vec<u64> = (0..18).map(|_| g.alloc(4096)).collect();
    let sent = frame(MAX_FRAME);
    link.send(sent.clone());
    // one short: all wait
    for &b in &buffers[..16] {
        g.add(RECEIVE, &[Buf::Out(b, 2048), Buf::Out(b + 2048, 2048)]);
    }
    link.flush();
    assert!(g.used(RECEIVE).is_empty());
    for &b in &buffers[16..] {
        g.add(RECEIVE, &[Buf::Out(b, 4096)]);
    }
    g.notify(RECEIVE);
    let used = g.used(RECEIVE);
    assert_eq!(used.len(), 17);
    let mut got = Vec::new();
    for ((_, len), &b) in used.iter().zip(&buffers) {
        got.extend(g.peek(b, *len as usize));
    }
    assert_eq!(got[..HEADER], [DATA_VALID, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0]);
    assert_eq!(got[HEADER..], sent);
    // the one that is left serves the next
    link.send(frame(60));
    link.flush();
    assert_eq!(g.used(RECEIVE).len(), 1);
}

#[test]
fn frame_no_buffer_fits_is_dropped() {
    let (mut g, link) = started(0);
    let at = g.alloc(2048);
    g.add(RECEIVE, &[Buf::Out(at, 1024)]);
    link.send(frame(2000));
    link.send(frame(60));
    link.flush();
    assert_eq!(g.used(RECEIVE), [(0, 72)]);
    assert_eq!(g.peek(at, HEADER), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(g.peek(at + HEADER as u64, 60), frame(60));
    // a whole ring of buffers outside memory
    g.start(F_MRG_RXBUF);
    for _ in 0..QUEUE_SIZE {
        g.add(RECEIVE, &[Buf::Out(1 << 40, 4096)]);
    }
    link.send(frame(60));
    link.flush();
    assert_eq!(link.room(), QUEUE_FRAMES);
    assert!(!g.needs_reset());
}

#[test]
fn reset_forgets_frames() {
    let (mut g, link) = started(0);
    send(&mut g, &with_header(&frame(60)));
    link.send(frame(60));
    g.start(0);
    assert_eq!((link.receive(), link.room()), (None, QUEUE_FRAMES));
}
