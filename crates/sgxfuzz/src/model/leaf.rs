//! ENCLS: the leaves with their operands.

use super::paging::Load;
use crate::layout::*;

/// What EADD copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A page of [`crate::template::pages`].
    Template(usize),
    /// One byte, after the spin.
    Fill(u8),
}

impl Content {
    /// The bytes.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Content::Template(n) => crate::template::pages()[n].content.clone(),
            Content::Fill(0) => vec![0; PAGE as usize],
            Content::Fill(byte) => {
                let mut bytes = vec![byte; PAGE as usize];
                bytes[..2].copy_from_slice(&SPIN);
                bytes
            }
        }
    }
}

/// A leaf with its operands; pages by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Encls {
    Ecreate { target: usize, base: u64, flags: u64, exinfo: bool },
    Eadd { target: usize, secs: usize, la: u64, secinfo: u64, content: Content },
    Eextend { secs: usize, page: usize, chunk: usize },
    Einit { secs: usize },
    Eremove { page: usize },
    Edbgrd { page: usize, offset: usize },
    Edbgwr { page: usize, offset: usize, value: u64 },
    Eblock { page: usize },
    Epa { page: usize },
    Ewb { page: usize, va: usize, slot: usize, place: u64 },
    Etrack { secs: usize },
    Etrackc { page: usize },
    Eaug { target: usize, secs: usize, la: u64 },
    Emodpr { page: usize, keep: u64 },
    Emodt { page: usize, to: u64 },
    Erdinfo { page: usize },
    Eld { load: Load },
    Eupdatesvn,
}

impl Encls {
    /// Number in EAX.
    pub fn number(&self) -> u64 {
        match self {
            Encls::Ecreate { .. } => 0,
            Encls::Eadd { .. } => 1,
            Encls::Einit { .. } => 2,
            Encls::Eremove { .. } => 3,
            Encls::Edbgrd { .. } => 4,
            Encls::Edbgwr { .. } => 5,
            Encls::Eextend { .. } => 6,
            Encls::Eld { load } => match (load.blocked, load.coded) {
                (true, false) => 7,
                (false, false) => 8,
                (true, true) => 0x12,
                (false, true) => 0x13,
            },
            Encls::Eblock { .. } => 9,
            Encls::Epa { .. } => 10,
            Encls::Ewb { .. } => 11,
            Encls::Etrack { .. } => 12,
            Encls::Eaug { .. } => 13,
            Encls::Emodpr { .. } => 14,
            Encls::Emodt { .. } => 15,
            Encls::Erdinfo { .. } => 16,
            Encls::Etrackc { .. } => 17,
            Encls::Eupdatesvn => 24,
        }
    }

    /// What RCX is: a page and an offset in it.
    pub fn rcx(&self) -> (usize, usize) {
        match *self {
            Encls::Ecreate { target, .. } | Encls::Eadd { target, .. } | Encls::Eaug { target, .. } => {
                (target, 0)
            }
            Encls::Eld { load } => (load.target, 0),
            Encls::Eextend { page, chunk, .. } => (page, chunk * 256),
            Encls::Edbgrd { page, offset } | Encls::Edbgwr { page, offset, .. } => (page, offset),
            Encls::Einit { secs } | Encls::Etrack { secs } => (secs, 0),
            Encls::Eremove { page }
            | Encls::Eblock { page }
            | Encls::Epa { page }
            | Encls::Ewb { page, .. }
            | Encls::Etrackc { page }
            | Encls::Emodpr { page, .. }
            | Encls::Emodt { page, .. }
            | Encls::Erdinfo { page } => (page, 0),
            Encls::Eupdatesvn => (0, 0),
        }
    }
}
