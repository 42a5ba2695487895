//! ENCLU, the leaves that enclaves execute on their pages (*SDM vol. 3D*, each leaf's
//! own section).

use mem::Ram;

use super::access::Access;
use super::{Answer, GP, Inside, Kind, Model, Page};
use crate::layout::*;

/// A leaf with its operands, linear addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Enclu {
    Ereport { target: u64, data: u64, output: u64 },
    Egetkey { request: u64, output: u64 },
    Eaccept { secinfo: u64, la: u64 },
    Emodpe { secinfo: u64, la: u64 },
    Eacceptcopy { secinfo: u64, la: u64, source: u64 },
    Edeccssa,
}

impl Enclu {
    /// Number in EAX, and RBX, RCX and RDX.
    pub fn registers(&self) -> [u64; 4] {
        match *self {
            Enclu::Ereport { target, data, output } => [0, target, data, output],
            Enclu::Egetkey { request, output } => [1, request, output, 0],
            Enclu::Eaccept { secinfo, la } => [5, secinfo, la, 0],
            Enclu::Emodpe { secinfo, la } => [6, secinfo, la, 0],
            Enclu::Eacceptcopy { secinfo, la, source } => [7, secinfo, la, source],
            Enclu::Edeccssa => [9, 0, 0, 0],
        }
    }

    /// Where and how many bytes the leaf writes in the enclave, that the model does
    /// not know the value of.
    pub fn output(&self) -> Option<(u64, usize)> {
        match *self {
            Enclu::Ereport { output, .. } => Some((output, 432)),
            Enclu::Egetkey { output, .. } => Some((output, 16)),
            _ => None,
        }
    }
}

/// A SECINFO in the enclave: its flags, if the rest is zero.
fn secinfo(page: &Page, la: u64) -> Option<u64> {
    let at = (la & 0xfff) as usize;
    let flags = page.word(at);
    let clear = page.content[at + 8..at + 64].iter().all(|&byte| byte == 0);
    (clear && flags & !0xff3f == 0).then_some(flags)
}

impl Page {
    /// A regular page of `inside`'s enclave, ready for use, in its place.
    fn usable(&self, inside: &Inside, la: u64) -> bool {
        self.kind == Kind::Reg
            && self.owner == Some(inside.enclave)
            && self.la == la & !0xfff
            && !self.unaccepted()
            && !self.blocked
    }
}

type Checked<T> = Result<T, Answer>;

impl Model {
    /// Executes a leaf inside.
    pub fn enclu(&mut self, ram: &Ram, lp: usize, leaf: Enclu) -> Answer {
        let Some(inside) = self.inside[lp].clone() else { return GP };
        let answer = match leaf {
            Enclu::Ereport { target, data, output } => self.ereport(ram, &inside, target, data, output),
            Enclu::Egetkey { request, output } => self.egetkey(ram, &inside, request, output),
            Enclu::Eaccept { secinfo, la } => self.eaccept(ram, &inside, secinfo, la),
            Enclu::Emodpe { secinfo, la } => self.emodpe(ram, &inside, secinfo, la),
            Enclu::Eacceptcopy { secinfo, la, source } => self.eacceptcopy(ram, &inside, secinfo, la, source),
            Enclu::Edeccssa => Ok(self.edeccssa(ram, lp)),
        };
        answer.unwrap_or_else(|answer| answer)
    }

    fn has(&self, inside: &Inside, la: u64, align: u64) -> Checked<()> {
        if la.is_multiple_of(align) && self.enclaves[&inside.enclave].has(la) { Ok(()) } else { Err(GP) }
    }

    /// An operand that the leaf reads or writes.
    fn buffer(&self, ram: &Ram, inside: &Inside, la: u64, align: u64, access: Access) -> Checked<usize> {
        self.has(inside, la, align)?;
        let number = self.operand(ram, la, access)?;
        let page = &self.pages[number];
        let permitted = if access == Access::Write { page.w } else { page.r };
        if page.usable(inside, la) && permitted { Ok(number) } else { Err(Answer::PageFault(la, true)) }
    }

    fn ereport(&self, ram: &Ram, inside: &Inside, target: u64, data: u64, output: u64) -> Checked<Answer> {
        let number = self.buffer(ram, inside, target, 512, Access::Read)?;
        let at = (target & 0xfff) as usize;
        let info = &self.pages[number].content[at..at + 512];
        // MEASUREMENT, ATTRIBUTES, CET_ATTRIBUTES, reserved, CONFIGSVN, MISCSELECT,
        // reserved, CONFIGID, reserved.
        let reserved = info[48..50].iter().chain(&info[56..64]).chain(&info[128..512]);
        if reserved.copied().any(|byte| byte != 0) {
            return Err(GP);
        }
        self.buffer(ram, inside, data, 128, Access::Read)?;
        self.buffer(ram, inside, output, 512, Access::Write)?;
        Ok(Answer::Quiet)
    }

    fn egetkey(&self, ram: &Ram, inside: &Inside, request: u64, output: u64) -> Checked<Answer> {
        let number = self.buffer(ram, inside, request, 512, Access::Read)?;
        self.buffer(ram, inside, output, 16, Access::Write)?;
        let at = (request & 0xfff) as usize;
        let bytes = &self.pages[number].content[at..at + 512];
        // Requests of the fuzzer are zero but for KEYNAME.
        if bytes[2..].iter().any(|&byte| byte != 0) {
            return Err(GP);
        }
        Ok(match u16::from_le_bytes([bytes[0], bytes[1]]) {
            // EINITTOKEN, PROVISION, PROVISION_SEAL: attributes that no enclave here has.
            0..=2 => Answer::Code(2),
            3 | 4 => Answer::Code(0),
            _ => Answer::Code(256),
        })
    }

    /// The SECINFO operand's flags.
    fn request(&self, ram: &Ram, inside: &Inside, la: u64) -> Checked<Option<u64>> {
        let number = self.operand(ram, la, Access::Read)?;
        self.request_of(inside, number, la)
    }

    fn request_of(&self, inside: &Inside, number: usize, la: u64) -> Checked<Option<u64>> {
        let page = &self.pages[number];
        if !page.usable(inside, la) || !page.r {
            return Err(Answer::PageFault(la, true));
        }
        Ok(secinfo(page, la))
    }

    fn eaccept(&mut self, ram: &Ram, inside: &Inside, info: u64, la: u64) -> Checked<Answer> {
        self.has(inside, info, 64)?;
        let flags = self.request(ram, inside, info)?.ok_or(GP)?;
        self.has(inside, la, PAGE)?;
        let number = self.operand(ram, la, Access::Read)?;
        let (pending, modified, restricted) = (flags & 8 != 0, flags & 16 != 0, flags & 32 != 0);
        let legal = match flags >> 8 & 0xff {
            2 => (pending || restricted) && !modified,
            1 | 4 => modified && !pending && !restricted,
            _ => false,
        };
        if !legal {
            return Err(GP);
        }
        let page = &self.pages[number];
        if !page.kind.is_child() || page.blocked || page.owner != Some(inside.enclave) {
            return Err(Answer::PageFault(la, true));
        }
        let same = page.la == la
            && page.kind.number() == flags >> 8 & 0xff
            && [page.r, page.w, page.x, page.pending, page.modified]
                .iter()
                .enumerate()
                .all(|(bit, &set)| set == (flags >> bit & 1 != 0));
        if !same {
            return Ok(Answer::Code(19));
        }
        if (page.modified || page.restricted) && !self.tracked(inside.enclave, page.cycle) {
            return Ok(Answer::Code(11));
        }
        if page.kind == Kind::Tcs {
            let (counts, flags) = (page.word(24), page.word(8));
            let fresh = page.word(0) == 0 && page.word(40) == 0 && flags & !2 == 0;
            let frames = counts & 0xffff_ffff < counts >> 32;
            if !fresh || !frames || page.content[72..].iter().any(|&byte| byte != 0) {
                return Err(GP);
            }
        }
        let page = &mut self.pages[number];
        (page.pending, page.modified, page.restricted) = (false, false, false);
        Ok(Answer::Code(0))
    }

    fn emodpe(&mut self, ram: &Ram, inside: &Inside, info: u64, la: u64) -> Checked<Answer> {
        self.has(inside, info, 64)?;
        self.has(inside, la, PAGE)?;
        let info_page = self.operand(ram, info, Access::Read)?;
        let number = self.operand(ram, la, Access::Read)?;
        let flags = self.request_of(inside, info_page, info)?.ok_or(GP)?;
        let page = &mut self.pages[number];
        if !page.usable(inside, la) {
            return Err(Answer::PageFault(la, true));
        }
        if flags & 3 == 2 && !page.r {
            return Err(GP);
        }
        page.r |= flags & 1 != 0;
        page.w |= flags & 2 != 0;
        page.x |= flags & 4 != 0;
        Ok(Answer::Quiet)
    }

    fn eacceptcopy(
        &mut self,
        ram: &Ram,
        inside: &Inside,
        info: u64,
        la: u64,
        source: u64,
    ) -> Checked<Answer> {
        self.has(inside, info, 64)?;
        self.has(inside, la, PAGE)?;
        self.has(inside, source, PAGE)?;
        let info_page = self.operand(ram, info, Access::Read)?;
        let number = self.operand(ram, la, Access::Write)?;
        let from = self.operand(ram, source, Access::Read)?;
        let flags = self.request_of(inside, info_page, info)?.ok_or(GP)?;
        if flags >> 8 & 0xff != 2 || flags & 3 == 2 {
            return Err(GP);
        }
        if !self.pages[from].usable(inside, source) || !self.pages[from].r {
            return Err(Answer::PageFault(source, true));
        }
        let page = &self.pages[number];
        let pending = page.kind == Kind::Reg
            && page.owner == Some(inside.enclave)
            && page.pending
            && !page.modified
            && !page.blocked
            && page.la == la
            && page.r
            && page.w
            && !page.x;
        if !pending {
            return Ok(Answer::Code(19));
        }
        let content = self.pages[from].content.clone();
        let page = &mut self.pages[number];
        (page.content, page.pending) = (content, false);
        (page.r, page.w, page.x) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        Ok(Answer::Code(0))
    }
}
