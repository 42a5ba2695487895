//! All connections of a guest: which there are, whose turn it is.

use super::connection::{Connection, ToHost, Verdict};
use super::packet::{HOST_CID, Header, Pair, STREAM, op};
use super::{HostSide, HostStream};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// The most connections at a time, those included of which only the rest is on
/// its way to the host.
pub const MAX_CONNECTIONS: usize = 256;
/// Resets that wait for the guest to take them; no packet is read while there
/// are so many.
const MAX_RESETS: usize = 64;
/// Ports of the host's ends of connections that the host asked for.
const FIRST_PORT: u32 = 1 << 30;

pub(super) struct Mux {
    cid: u64,
    host: Box<dyn HostSide>,
    connections: BTreeMap<Pair, Connection>,
    /// What the guest left behind for slow readers on the host.
    rests: Vec<ToHost>,
    resets: VecDeque<Pair>,
    next_port: u32,
    /// Whose turn it was last.
    last: Option<Pair>,
}

impl Mux {
    pub(super) fn new(cid: u64, host: Box<dyn HostSide>) -> Self {
        Self {
            cid,
            host,
            connections: BTreeMap::new(),
            rests: Vec::new(),
            resets: VecDeque::new(),
            next_port: FIRST_PORT,
            last: None,
        }
    }

    /// Whether there are connections.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether a packet may be read: there is room for an answer.
    pub(super) fn is_ready(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Ends all connections; the guest will not hear of it.
    pub(super) fn clear(&mut self) {
        self.connections.clear();
        self.rests.clear();
        self.resets.clear();
    }

    fn is_full(&self) -> bool {
        self.connections.len() + self.rests.len() >= MAX_CONNECTIONS
    }

    /// A program on the host wants to talk to the guest's `port`. With too many
    /// connections it finds its own closed.
    pub(super) fn connect(&mut self, port: u32, stream: Box<dyn HostStream>) {
        if self.is_full() {
            return;
        }
        // there are fewer connections than ports
        let pair = loop {
            let pair = Pair { host: self.next_port, guest: port };
            self.next_port = self.next_port.checked_add(1).filter(|p| *p != u32::MAX).unwrap_or(FIRST_PORT);
            if !self.connections.contains_key(&pair) {
                break pair;
            }
        };
        self.connections.insert(pair, Connection::requested(stream));
    }

    /// Takes a packet of the guest's. Call only if [`Mux::is_ready`].
    pub(super) fn hear(&mut self, header: &Header, data: &[u8]) {
        // the spoofed and the misdirected get no answer: it would go elsewhere
        if header.src_cid.get() != self.cid || header.dst_cid.get() != HOST_CID {
            return;
        }
        let pair = header.pair();
        if header.kind.get() != STREAM {
            return self.refuse(pair, header);
        }
        if header.op.get() == op::REQUEST {
            return self.request(pair, header);
        }
        let Some(connection) = self.connections.get_mut(&pair) else {
            return self.refuse(pair, header);
        };
        match connection.hear(header, data) {
            Verdict::Keep => {}
            Verdict::Reset => {
                self.connections.remove(&pair);
                self.refuse(pair, header);
            }
            Verdict::Forget => self.forget(pair),
        }
    }

    fn request(&mut self, pair: Pair, header: &Header) {
        // asking for what is there already is an error of both
        if self.connections.remove(&pair).is_some() || self.is_full() {
            return self.refuse(pair, header);
        }
        match self.host.connect(pair.host) {
            Some(stream) => drop(self.connections.insert(pair, Connection::accepted(stream, header))),
            None => self.refuse(pair, header),
        }
    }

    /// Answers with a reset, unless it was one.
    fn refuse(&mut self, pair: Pair, header: &Header) {
        if header.op.get() != op::RST {
            self.resets.push_back(pair);
        }
    }

    /// The guest has left; the host still gets what it said.
    fn forget(&mut self, pair: Pair) {
        if let Some(connection) = self.connections.remove(&pair) {
            let mut rest = connection.into_rest();
            rest.flush();
            if !rest.is_done() {
                self.rests.push(rest);
            }
        }
    }

    /// Something may have become possible on the host's side.
    pub(super) fn wake(&mut self) {
        self.connections.values_mut().for_each(Connection::wake);
        self.rests.retain_mut(|rest| {
            rest.wake();
            rest.flush();
            !rest.is_done()
        });
    }

    /// The next packet for the guest with at most `room` bytes of payload in
    /// `buf`; connections take turns.
    pub(super) fn next(&mut self, room: usize, buf: &mut [u8]) -> Option<Header> {
        if let Some(pair) = self.resets.pop_front() {
            return Some(Header::to_guest(self.cid, pair, op::RST));
        }
        let mut turn = self.last;
        for _ in 0..self.connections.len() {
            let pair = self.after(turn)?;
            turn = Some(pair);
            let connection = self.connections.get_mut(&pair)?;
            if connection.is_over() {
                self.forget(pair);
                return Some(Header::to_guest(self.cid, pair, op::RST));
            }
            if let Some(next) = connection.next(room, buf) {
                self.last = Some(pair);
                let mut header = Header::to_guest(self.cid, pair, next.op);
                header.flags = next.flags.into();
                header.len = (next.len as u32).into();
                connection.say_credit(&mut header);
                return Some(header);
            }
        }
        None
    }

    /// The connection after this one, going round.
    fn after(&self, pair: Option<Pair>) -> Option<Pair> {
        let from = pair.map_or(Bound::Unbounded, Bound::Excluded);
        let mut turns = self.connections.range((from, Bound::Unbounded)).chain(&self.connections);
        turns.next().map(|(pair, _)| *pair)
    }
}
