//! One connection: bytes, credit and ends, both ways.

use super::HostStream;
use super::packet::{Header, MAX_PAYLOAD, NO_RECEIVE, NO_SEND, op};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};

/// Bytes of the guest's kept for a slow host: the credit it has (`buf_alloc`).
pub const BUFFER: usize = 256 << 10;
/// Room that is worth a packet to say so.
const WORTH_SAYING: u32 = BUFFER as u32 / 4;

/// What is to be done with a connection after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// The guest broke the rules: it gets a reset.
    Reset,
    /// The guest is done with it.
    Forget,
}

/// The next packet of a connection.
pub(super) struct Next {
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes of payload that were put into the buffer.
    pub(super) len: usize,
}

/// Bytes on their way to the host, and whether their end is.
pub(super) struct ToHost {
    stream: Box<dyn HostStream>,
    bytes: VecDeque<u8>,
    /// The guest sends no more.
    ended: bool,
    /// The host has been told.
    finished: bool,
    /// The host takes no more.
    broken: bool,
    /// The host may have room.
    writable: bool,
}

impl ToHost {
    /// Gives the host what it takes now; how many bytes that is.
    pub(super) fn flush(&mut self) -> u32 {
        let mut n = 0;
        while !self.bytes.is_empty() && self.writable && !self.broken {
            let (front, _) = self.bytes.as_slices();
            let k = write(&mut *self.stream, front, &mut self.writable, &mut self.broken);
            self.bytes.drain(..k);
            n += k as u32;
        }
        if self.broken {
            // nobody wants them: as if they had been taken
            n += self.bytes.len() as u32;
            self.bytes.clear();
        }
        if self.ended && self.bytes.is_empty() && !self.finished {
            self.finished = true;
            self.stream.finish();
        }
        n
    }

    /// The host may have room again.
    pub(super) fn wake(&mut self) {
        self.writable = true;
    }

    /// Whether the host has all that it will get.
    pub(super) fn is_done(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Writes what goes, notes why no more does.
fn write(stream: &mut dyn HostStream, data: &[u8], writable: &mut bool, broken: &mut bool) -> usize {
    loop {
        match stream.write(data) {
            Ok(n @ 1..) => return n.min(data.len()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                *writable = false;
                return 0;
            }
            Ok(0) | Err(_) => {
                *broken = true;
                return 0;
            }
        }
    }
}

pub(super) struct Connection {
    to_host: ToHost,
    /// The guest has agreed to it.
    established: bool,
    /// REQUEST or RESPONSE that is still to be sent.
    opening: Option<u16>,
    /// Bytes of the guest's given to the host, and what of that it knows.
    forwarded: u32,
    announced: u32,
    /// The guest asked for its credit.
    asked: bool,
    /// Bytes sent to the guest, how many of them its program has read, and how
    /// many may be under way.
    sent: u32,
    peer_forwarded: u32,
    peer_alloc: u32,
    /// The host may have bytes.
    readable: bool,
    /// The host sends no more.
    host_ended: bool,
    /// Flags of SHUTDOWN that the guest was told, and that it told.
    told: u32,
    heard: u32,
}

impl Connection {
    /// The guest asks for it.
    pub(super) fn accepted(stream: Box<dyn HostStream>, request: &Header) -> Self {
        let mut connection = Self::new(stream, op::RESPONSE);
        connection.established = true;
        connection.hear_credit(request);
        connection
    }

    /// The host asks for it.
    pub(super) fn requested(stream: Box<dyn HostStream>) -> Self {
        Self::new(stream, op::REQUEST)
    }

    fn new(stream: Box<dyn HostStream>, opening: u16) -> Self {
        let bytes = VecDeque::new();
        Self {
            to_host: ToHost { stream, bytes, ended: false, finished: false, broken: false, writable: true },
            established: false,
            opening: Some(opening),
            forwarded: 0,
            announced: 0,
            asked: false,
            sent: 0,
            peer_forwarded: 0,
            peer_alloc: 0,
            readable: true,
            host_ended: false,
            told: 0,
            heard: 0,
        }
    }

    fn hear_credit(&mut self, header: &Header) {
        self.peer_alloc = header.buf_alloc.get();
        self.peer_forwarded = header.fwd_cnt.get();
    }

    /// Bytes the guest takes now; its counters may be anything.
    fn credit(&self) -> usize {
        self.peer_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded)) as usize
    }

    /// Takes a packet of the guest's, other than REQUEST, with its payload.
    pub(super) fn hear(&mut self, header: &Header, data: &[u8]) -> Verdict {
        self.hear_credit(header);
        match header.op.get() {
            op::RESPONSE if !self.established && self.opening.is_none() => self.established = true,
            op::RST => return Verdict::Forget,
            op::SHUTDOWN if self.established => {
                self.heard |= header.flags.get() & (NO_RECEIVE | NO_SEND);
                self.to_host.ended = self.heard & NO_SEND != 0;
            }
            op::RW if self.established && self.heard & NO_SEND == 0 => {
                if data.len() > BUFFER - self.to_host.bytes.len() {
                    return Verdict::Reset;
                }
                self.to_host.bytes.extend(data);
            }
            op::CREDIT_UPDATE if self.established => {}
            op::CREDIT_REQUEST if self.established => self.asked = true,
            _ => return Verdict::Reset,
        }
        self.flush();
        Verdict::Keep
    }

    /// Gives the host what it takes now.
    pub(super) fn flush(&mut self) {
        self.forwarded = self.forwarded.wrapping_add(self.to_host.flush());
    }

    /// Something may have become possible on the host's side.
    pub(super) fn wake(&mut self) {
        self.readable = true;
        self.to_host.wake();
        self.flush();
    }

    /// Whether both sides are done: a reset tells the guest so.
    pub(super) fn is_over(&self) -> bool {
        self.heard == NO_RECEIVE | NO_SEND && self.to_host.is_done()
    }

    /// What is left for the host once the guest has left.
    pub(super) fn into_rest(mut self) -> ToHost {
        self.to_host.ended = true;
        self.to_host
    }

    /// The next packet for the guest, its payload of at most `room` bytes in
    /// `buf`; none if there is nothing to say.
    pub(super) fn next(&mut self, room: usize, buf: &mut [u8]) -> Option<Next> {
        let plain = |op| Some(Next { op, flags: 0, len: 0 });
        if let Some(op) = self.opening.take() {
            return plain(op);
        }
        if !self.established {
            return None;
        }
        let wanted = self.heard & NO_RECEIVE == 0 && !self.host_ended;
        let room = room.min(self.credit()).min(MAX_PAYLOAD).min(buf.len());
        if wanted && self.readable && room > 0 {
            match self.read(&mut buf[..room]) {
                Ok(0) => self.host_ended = true,
                Ok(len) => {
                    self.sent = self.sent.wrapping_add(len as u32);
                    return Some(Next { op: op::RW, flags: 0, len });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(_) => self.host_ended = true,
            }
        }
        let mut flags = 0;
        if self.host_ended {
            flags |= NO_SEND;
        }
        if self.to_host.broken {
            flags |= NO_RECEIVE;
        }
        if flags != self.told {
            self.told = flags;
            return Some(Next { op: op::SHUTDOWN, flags, len: 0 });
        }
        if self.asked || self.forwarded.wrapping_sub(self.announced) >= WORTH_SAYING {
            return plain(op::CREDIT_UPDATE);
        }
        None
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.to_host.stream.read(buf) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Ok(n) => return Ok(n.min(buf.len())),
                other => return other,
            }
        }
    }

    /// Tells the guest's credit in a packet to it.
    pub(super) fn say_credit(&mut self, header: &mut Header) {
        header.buf_alloc = (BUFFER as u32).into();
        header.fwd_cnt = self.forwarded.into();
        self.announced = self.forwarded;
        self.asked = false;
    }
}
