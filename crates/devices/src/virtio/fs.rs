//! File system device (*virtio 1.2 §5.11*): carries FUSE messages between the
//! guest and a server on the host.
//!
//! The server ([`FileServer`]) works at its own pace, in a thread of its own:
//! the device copies a request out of the guest's memory, remembers where its
//! reply goes, and copies that back when it has come. Whoever has answers calls
//! [`VirtioPci::kick`](super::VirtioPci::kick).
//!
//! | threat | guard |
//! |---|---|
//! | requests faster than the server | at most [`MAX_PENDING`] are taken, the others wait in the ring |
//! | huge requests, huge rooms for replies | more than [`MAX_MESSAGE`] bytes: completed unread; not used |
//! | a request that changes while it is read | the server has a copy |
//! | buffers for the reply outside RAM | the reply ends there |
//! | a reply to what was before a reset | a ticket is used once; answers to none are dropped |

use super::{QueueError, Queues, VirtioDevice};
use crate::bytes::read_image;
use crate::device::StateError;
use crate::pci::Class;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

/// The longest message either way, in bytes: 1 MiB of data with its headers.
pub const MAX_MESSAGE: usize = (1 << 20) + 4096;
/// The most requests with the server at a time.
pub const MAX_PENDING: usize = 16;
/// Length of a tag in bytes.
pub const TAG_LEN: usize = 36;

const QUEUE_SIZE: u16 = 256;
/// Requests that must not wait behind others, and one queue of all the others.
const QUEUES: usize = 2;
/// ESTALE: the file is not known any more.
const STALE: i32 = 116;

/// A request for the server.
#[derive(Debug)]
pub struct Request {
    /// Names it.
    pub ticket: u64,
    /// The FUSE message.
    pub message: Vec<u8>,
    /// The most bytes its reply may have.
    pub room: usize,
}

/// What the server answers.
#[derive(Debug)]
pub struct Answer {
    /// The request's.
    pub ticket: u64,
    /// The FUSE message; empty if the request asks for none.
    pub reply: Vec<u8>,
}

/// The server. Called with the device locked: nothing of it may wait.
pub trait FileServer: Send {
    /// Takes a request; its answer comes later.
    fn submit(&mut self, request: Request);
    /// An answer that is ready.
    fn answer(&mut self) -> Option<Answer>;
    /// The guest was reset: what it knew is forgotten.
    fn forget(&mut self);
}

/// A request that waits for its answer; also what a snapshot keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    queue: u8,
    head: u16,
    /// The number that FUSE gave it.
    unique: u64,
    /// Where its reply goes: addresses and lengths.
    buffers: Vec<(u64, u32)>,
}

/// What a snapshot keeps of the device: the requests without an answer. After
/// its restoration there is a new server, which does not know the guest: they
/// are answered with ESTALE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsState {
    pending: Vec<Pending>,
}

/// The file system device.
pub struct Fs {
    tag: [u8; TAG_LEN],
    server: Box<dyn FileServer>,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// Requests of before a snapshot.
    lost: Vec<Pending>,
}

impl Fs {
    /// The file system of `server`, which the guest mounts by its `tag` (cut
    /// at [`TAG_LEN`] bytes).
    pub fn new(tag: &str, server: Box<dyn FileServer>) -> Self {
        let mut bytes = [0; TAG_LEN];
        bytes.iter_mut().zip(tag.bytes()).for_each(|(to, from)| *to = from);
        Self { tag: bytes, server, next: 0, pending: BTreeMap::new(), lost: Vec::new() }
    }

    /// Takes requests as long as the server may have more.
    fn take<M: GuestMemory>(&mut self, q: usize, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        for _ in 0..queues.available(q)? {
            if self.pending.len() >= MAX_PENDING {
                break;
            }
            let Some(chain) = queues.pop(q)? else { break };
            let head = chain.head_index();
            let buffers: Vec<_> = chain.clone().writable().map(|d| (d.addr().raw_value(), d.len())).collect();
            let mut message = Vec::new();
            if let Ok(mut reader) = chain.reader(queues.mem())
                && reader.available_bytes() <= MAX_MESSAGE
            {
                message.resize(reader.available_bytes(), 0);
                if reader.read_exact(&mut message).is_err() {
                    message.clear();
                }
            }
            let Some(unique) = message.get(8..16).and_then(|b| b.try_into().ok()) else {
                queues.complete(q, head, 0)?;
                continue;
            };
            let room: u64 = buffers.iter().map(|(_, len)| u64::from(*len)).sum();
            let room = room.min(MAX_MESSAGE as u64) as usize;
            let ticket = self.next;
            self.next += 1;
            let pending = Pending { queue: q as u8, head, unique: u64::from_le_bytes(unique), buffers };
            self.pending.insert(ticket, pending);
            self.server.submit(Request { ticket, message, room });
        }
        Ok(())
    }

    /// Gives the guest the answers that are ready.
    fn give<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        for lost in std::mem::take(&mut self.lost) {
            let mut reply = [0; 16];
            reply[0] = 16;
            reply[4..8].copy_from_slice(&(-STALE).to_le_bytes());
            reply[8..].copy_from_slice(&lost.unique.to_le_bytes());
            lost.complete(&reply, queues)?;
        }
        while let Some(answer) = self.server.answer() {
            if let Some(pending) = self.pending.remove(&answer.ticket) {
                pending.complete(&answer.reply, queues)?;
            }
        }
        Ok(())
    }
}

impl Pending {
    fn complete<M: GuestMemory>(&self, reply: &[u8], queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        let mut written = 0;
        for (address, len) in &self.buffers {
            let piece = &reply[written..];
            let piece = &piece[..piece.len().min(*len as usize)];
            if queues.mem().write_slice(piece, GuestAddress(*address)).is_err() {
                break;
            }
            written += piece.len();
        }
        queues.complete(usize::from(self.queue), self.head, written as u32)
    }
}

impl VirtioDevice for Fs {
    type State = FsState;

    fn device_type(&self) -> u16 {
        26
    }

    fn class(&self) -> Class {
        Class { base: 1, sub: 0x80, interface: 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn features(&self) -> u64 {
        0
    }

    fn activate(&mut self, _features: u64) {}

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_fs_config: tag, num_request_queues
        let mut config = [0; TAG_LEN + 4];
        config[..TAG_LEN].copy_from_slice(&self.tag);
        config[TAG_LEN] = QUEUES as u8 - 1;
        read_image(&config, offset, data, 0xff);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process<M: GuestMemory>(
        &mut self,
        queue: usize,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        self.give(queues)?;
        self.take(queue, queues)?;
        self.give(queues)
    }

    fn poll<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        self.give(queues)?;
        for queue in 0..QUEUES {
            self.take(queue, queues)?;
        }
        self.give(queues)
    }

    fn reset(&mut self) {
        self.pending.clear();
        self.lost.clear();
        self.server.forget();
    }

    fn save(&self) -> FsState {
        FsState { pending: self.lost.iter().chain(self.pending.values()).cloned().collect() }
    }

    fn load(&mut self, state: FsState) -> Result<(), StateError> {
        if state.pending.iter().any(|p| usize::from(p.queue) >= QUEUES) {
            return Err(StateError::new("virtio-fs", "queue", "does not exist"));
        }
        self.pending.clear();
        self.lost = state.pending;
        self.server.forget();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::virtio::driver::{Buf, Guest, virtio_device_tests};
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    /// Gives each request back, when it is let go on.
    #[derive(Default)]
    struct Echo {
        held: VecDeque<Request>,
        go: usize,
        forgot: usize,
    }
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Echo>>);

    impl FileServer for Server {
        fn submit(&mut self, request: Request) {
            self.0.lock().unwrap().held.push_back(request);
        }
        fn answer(&mut self) -> Option<Answer> {
            let mut echo = self.0.lock().unwrap();
            echo.go = echo.go.checked_sub(1)?;
            let request = echo.held.pop_front()?;
            let mut reply = request.message;
            reply.truncate(request.room);
            Some(Answer { ticket: request.ticket, reply })
        }
        fn forget(&mut self) {
            let mut echo = self.0.lock().unwrap();
            echo.held.clear();
            echo.forgot += 1;
        }
    }

    virtio_device_tests!(every_device, || Guest::new(Fs::new("tag", Box::new(Server::default()))));

    fn guest(server: &Server) -> Guest<Fs> {
        let mut g = Guest::new(Fs::new("share0", Box::new(server.clone())));
        g.start(0);
        g
    }

    /// A request of `len` bytes with a number, and two buffers for its reply.
    fn ask(g: &mut Guest<Fs>, unique: u64, len: usize, room: (u32, u32)) -> (u64, u64) {
        let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let (at, a, b) = (g.alloc(len as u64), g.alloc(room.0.into()), g.alloc(room.1.into()));
        g.poke(at, &message);
        g.poke(at + 8, &unique.to_le_bytes());
        g.add(1, &[Buf::In(at, len as u32), Buf::Out(a, room.0), Buf::Out(b, room.1)]);
        g.notify(1);
        (a, b)
    }

    fn let_go(g: &Guest<Fs>, server: &Server, n: usize) {
        server.0.lock().unwrap().go += n;
        g.f().kick();
    }

    #[test]
    fn configuration_tells_tag_and_queues() {
        let g = guest(&Server::default());
        assert_eq!(g.device_config(0, 8), u64::from_le_bytes(*b"share0\0\0"));
        assert_eq!(g.device_config(36, 4), 1);
        let long = Guest::new(Fs::new(&"x".repeat(50), Box::new(Server::default())));
        assert_eq!(long.device_config(35, 2), 0x0178);
    }

    #[test]
    fn replies_come_when_they_are_ready_in_any_room() {
        let server = Server::default();
        let mut g = guest(&server);
        let (a, b) = ask(&mut g, 5, 100, (60, 60));
        let (c, _) = ask(&mut g, 6, 100, (16, 1));
        assert_eq!(g.used(1), []);
        let_go(&g, &server, 2);
        assert_eq!(g.used(1), [(0, 100), (3, 17)]);
        assert_eq!(g.peek(a + 50, 10), (50..60).collect::<Vec<u8>>());
        assert_eq!(g.peek(b, 40), (60..100).collect::<Vec<u8>>());
        assert_eq!(g.peek(c + 8, 1), [6]);
    }

    #[test]
    fn only_so_many_are_taken_and_the_others_wait() {
        let server = Server::default();
        let mut g = guest(&server);
        for unique in 0..40 {
            ask(&mut g, unique, 40, (16, 16));
        }
        let held = || server.0.lock().unwrap().held.len();
        assert_eq!(held(), MAX_PENDING);
        let_go(&g, &server, 10);
        assert_eq!((g.used(1).len(), held()), (10, MAX_PENDING));
        let_go(&g, &server, 100);
        let_go(&g, &server, 0);
        g.f().kick();
        assert_eq!((g.used(1).len(), held()), (30, 0));
    }

    #[test]
    fn what_is_no_message_comes_back_empty() {
        let server = Server::default();
        let mut g = guest(&server);
        ask(&mut g, 0, 15 + 1, (16, 16));
        let small = g.alloc(15);
        g.add(1, &[Buf::In(small, 15), Buf::Out(small, 15)]);
        let big = g.alloc(MAX_MESSAGE as u64 + 1);
        g.add(1, &[Buf::In(big, MAX_MESSAGE as u32 + 1)]);
        g.add(1, &[Buf::In(1 << 40, 100)]);
        g.notify(1);
        assert_eq!(g.used(1), [(3, 0), (5, 0), (6, 0)]);
        assert_eq!(server.0.lock().unwrap().held.len(), 1);
        // a room that is nowhere gets nothing
        g.add(1, &[Buf::In(small, 40), Buf::Out(1 << 40, 100)]);
        g.notify(1);
        let_go(&g, &server, 2);
        assert_eq!(g.used(1), [(0, 16), (7, 0)]);
    }

    #[test]
    fn answers_of_before_a_reset_are_dropped() {
        let server = Server::default();
        let mut g = guest(&server);
        ask(&mut g, 1, 40, (16, 16));
        let late = server.0.lock().unwrap().held.pop_front().unwrap();
        g.start(0);
        assert!(server.0.lock().unwrap().forgot > 0);
        ask(&mut g, 2, 40, (16, 16));
        server.0.lock().unwrap().held.push_front(late);
        let_go(&g, &server, 1);
        assert_eq!(g.used(1), []);
        let_go(&g, &server, 1);
        assert_eq!(g.used(1).len(), 1);
    }

    #[test]
    fn a_restored_guest_hears_that_its_requests_are_stale() {
        let server = Server::default();
        let mut g = guest(&server);
        let (a, _) = ask(&mut g, 77, 40, (16, 16));
        let state = g.f().save();
        let mut bad = serde_json::to_value(&state).unwrap();
        bad["device"]["pending"][0]["queue"] = 2.into();
        g.f().load(serde_json::from_value(bad).unwrap()).unwrap_err();
        g.f().load(state.clone()).unwrap();
        assert_eq!(g.f().save(), state);
        g.f().kick();
        assert_eq!(g.used(1), [(0, 16)]);
        assert_eq!(g.peek(a, 16), [16, 0, 0, 0, 0x8c, 0xff, 0xff, 0xff, 77, 0, 0, 0, 0, 0, 0, 0]);
    }
}
