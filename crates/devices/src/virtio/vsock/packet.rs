//! The header of a packet (*virtio 1.2 §5.10.6*), and a connection's name.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The host's address (*§5.10.4*).
pub const HOST_CID: u64 = 2;
/// Bytes of a header.
pub(super) const HEADER: usize = size_of::<Header>();
/// The most payload a packet has; Linux sends no more.
pub(super) const MAX_PAYLOAD: usize = 64 << 10;

/// VIRTIO_VSOCK_TYPE_STREAM.
pub(super) const STREAM: u16 = 1;

/// What a packet is for (*§5.10.6*).
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of SHUTDOWN: its sender will receive no more.
pub(super) const NO_RECEIVE: u32 = 1;
/// Its sender will send no more.
pub(super) const NO_SEND: u32 = 2;

/// struct virtio_vsock_hdr.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) src_cid: U64,
    pub(super) dst_cid: U64,
    pub(super) src_port: U32,
    pub(super) dst_port: U32,
    pub(super) len: U32,
    pub(super) kind: U16,
    pub(super) op: U16,
    pub(super) flags: U32,
    pub(super) buf_alloc: U32,
    pub(super) fwd_cnt: U32,
}

/// The two ports that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) host: u32,
    pub(super) guest: u32,
}

impl Header {
    /// The connection that a packet from the guest belongs to.
    pub(super) fn pair(&self) -> Pair {
        Pair { host: self.dst_port.get(), guest: self.src_port.get() }
    }

    /// A packet without payload to the guest.
    pub(super) fn to_guest(cid: u64, pair: Pair, op: u16) -> Self {
        Self {
            src_cid: HOST_CID.into(),
            dst_cid: cid.into(),
            src_port: pair.host.into(),
            dst_port: pair.guest.into(),
            kind: STREAM.into(),
            op: op.into(),
            ..Self::default()
        }
    }
}
