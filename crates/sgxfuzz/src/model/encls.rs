//! ENCLS, the leaves that build, change and look at pages (*SDM vol. 3D*, each leaf's
//! own section). Each takes effect if its answer is success.

use super::leaf::Content;
use super::{Answer, Enclave, GP, Id, Kind, Model, Page, window};
use crate::layout::*;
use crate::template::{DEBUG, MODE64, SECINFO_TCS, Trace};

/// ATTRIBUTES that the model of processor has: DEBUG, MODE64BIT, PROVISIONKEY,
/// EINITTOKEN_KEY, KSS, AEXNOTIFY.
const ATTRIBUTES: u64 = DEBUG | MODE64 | 0x10 | 0x20 | 0x80 | 0x400;

fn pf(page: usize) -> Answer {
    Answer::PageFault(window(page), true)
}

impl Model {
    /// ECREATE.
    pub fn ecreate(&mut self, target: usize, base: u64, flags: u64, exinfo: bool) -> Answer {
        if self.pages[target].kind != Kind::Free {
            return pf(target);
        }
        if !base.is_multiple_of(ELRANGE) || flags & !ATTRIBUTES != 0 {
            return GP;
        }
        self.next_id += 1;
        let mut trace = Trace::default();
        trace.ecreate(ELRANGE);
        let enclave = Enclave { base, flags, exinfo, init: false, trace, secs: Some(target), cycle: 0 };
        self.enclaves.insert(self.next_id, enclave);
        self.pages[target] = Page { kind: Kind::Secs, owner: Some(self.next_id), ..Page::free() };
        Answer::Quiet
    }

    /// The enclave of a SECS operand, for a leaf that makes `target`.
    fn owner(&self, target: usize, secs: usize) -> Result<Id, Answer> {
        if self.pages[target].kind != Kind::Free {
            return Err(pf(target));
        }
        if target == secs {
            return Err(GP);
        }
        self.secs(secs).ok_or(pf(secs))
    }

    /// EADD.
    pub fn eadd(&mut self, target: usize, secs: usize, la: u64, secinfo: u64, content: Content) -> Answer {
        let id = match self.owner(target, secs) {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let tcs = secinfo & 0xff00 == SECINFO_TCS;
        let enclave = self.enclaves.get_mut(&id).expect("a SECS has an enclave");
        let (r, w, x) = (secinfo & 1 != 0, secinfo & 2 != 0, secinfo & 4 != 0);
        let bytes = content.bytes();
        let bad_tcs = tcs && bytes[72..].iter().any(|&byte| byte != 0);
        if bad_tcs || !tcs && w && !r || !enclave.has(la) || enclave.init {
            return GP;
        }
        let secinfo = if tcs { secinfo & !7 } else { secinfo };
        enclave.trace.eadd(la - enclave.base, secinfo);
        self.pages[target] = Page {
            kind: if tcs { Kind::Tcs } else { Kind::Reg },
            owner: Some(id),
            la,
            r: r && !tcs,
            w: w && !tcs,
            x: x && !tcs,
            content: bytes,
            ..Page::free()
        };
        Answer::Quiet
    }

    /// EEXTEND.
    pub fn eextend(&mut self, secs: usize, number: usize, chunk: usize) -> Answer {
        let page = &self.pages[number];
        if !matches!(page.kind, Kind::Reg | Kind::Tcs) {
            return pf(number);
        }
        let Some(id) = page.owner.filter(|&id| self.secs(secs) == Some(id)) else { return GP };
        let enclave = self.enclaves.get_mut(&id).expect("a page has an enclave");
        if enclave.init {
            return GP;
        }
        let at = chunk * 256;
        enclave.trace.eextend(page.la - enclave.base + at as u64, &page.content[at..at + 256]);
        Answer::Quiet
    }

    /// EINIT, with the SIGSTRUCT of the template.
    pub fn einit(&mut self, secs: usize) -> Answer {
        let Some(id) = self.secs(secs) else { return pf(secs) };
        let enclave = self.enclaves.get_mut(&id).expect("a SECS has an enclave");
        if enclave.init {
            return GP;
        }
        if enclave.trace != *crate::template::measurement() {
            return Answer::Code(4);
        }
        if enclave.flags & !DEBUG != MODE64 {
            return Answer::Code(2);
        }
        enclave.init = true;
        Answer::Code(0)
    }

    /// EREMOVE.
    pub fn eremove(&mut self, number: usize) -> Answer {
        let page = &self.pages[number];
        match (page.kind, page.owner) {
            (Kind::Secs, Some(id)) => {
                if self.children(id) != 0 {
                    return Answer::Code(13);
                }
                self.enclaves.get_mut(&id).expect("a SECS has an enclave").secs = None;
            }
            (kind, Some(id)) if kind.is_child() => {
                let given_up = kind == Kind::Trim && !page.modified;
                if !given_up && self.threads(id).next().is_some() {
                    return Answer::Code(14);
                }
            }
            _ => {}
        }
        self.pages[number] = Page::free();
        Answer::Code(0)
    }

    /// EDBGRD: the answer, and what RBX is then.
    pub fn edbgrd(&self, number: usize, offset: usize) -> (Answer, Option<u64>) {
        let page = &self.pages[number];
        if !matches!(page.kind, Kind::Reg | Kind::Tcs | Kind::Va) {
            return (pf(number), None);
        }
        if page.unaccepted() {
            return (Answer::Code(21), None);
        }
        if page.kind == Kind::Tcs && offset >= 72 {
            return (GP, None);
        }
        if page.kind == Kind::Va {
            let used = page.slots[offset / 8] != 0;
            return (Answer::Code(0), Some(if used { u64::MAX } else { 0 }));
        }
        if !self.enclave_of(number).is_some_and(Enclave::debug) {
            return (GP, None);
        }
        (Answer::Code(0), Some(page.word(offset)))
    }

    /// EDBGWR.
    pub fn edbgwr(&mut self, number: usize, offset: usize, value: u64) -> Answer {
        let page = &self.pages[number];
        if !matches!(page.kind, Kind::Reg | Kind::Tcs) {
            return pf(number);
        }
        if page.unaccepted() {
            return Answer::Code(21);
        }
        if page.kind == Kind::Tcs && offset != 8 || !self.enclave_of(number).is_some_and(Enclave::debug) {
            return GP;
        }
        self.pages[number].set_word(offset, value);
        Answer::Code(0)
    }

    /// EPA.
    pub fn epa(&mut self, page: usize) -> Answer {
        if self.pages[page].kind != Kind::Free {
            return pf(page);
        }
        self.pages[page] = Page { kind: Kind::Va, slots: vec![0; 512], ..Page::free() };
        Answer::Quiet
    }

    /// EAUG.
    pub fn eaug(&mut self, target: usize, secs: usize, la: u64) -> Answer {
        let id = match self.owner(target, secs) {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let enclave = &self.enclaves[&id];
        if !enclave.init || !enclave.has(la) {
            return GP;
        }
        self.pages[target] = Page {
            kind: Kind::Reg,
            owner: Some(id),
            la,
            r: true,
            w: true,
            pending: true,
            content: vec![0; PAGE as usize],
            ..Page::free()
        };
        Answer::Quiet
    }

    /// The cycle of a page's enclave if that is initialized.
    fn running_cycle(&self, page: usize) -> Option<u64> {
        self.enclave_of(page).filter(|enclave| enclave.init).map(|enclave| enclave.cycle)
    }

    /// EMODPR.
    pub fn emodpr(&mut self, number: usize, keep: u64) -> Answer {
        if keep & 3 == 2 {
            return GP;
        }
        let page = &self.pages[number];
        if page.kind == Kind::Free {
            return pf(number);
        }
        if page.unaccepted() {
            return Answer::Code(20);
        }
        if page.kind != Kind::Reg {
            return pf(number);
        }
        let Some(cycle) = self.running_cycle(number) else { return GP };
        let page = &mut self.pages[number];
        page.r &= keep & 1 != 0;
        page.w &= keep & 2 != 0;
        page.x &= keep & 4 != 0;
        (page.restricted, page.cycle) = (true, cycle);
        Answer::Code(0)
    }

    /// EMODT, to PT_TCS or PT_TRIM.
    pub fn emodt(&mut self, number: usize, to: u64) -> Answer {
        let page = &self.pages[number];
        let to = if to == Kind::Tcs.number() { Kind::Tcs } else { Kind::Trim };
        match page.kind {
            Kind::Reg => {}
            Kind::Tcs if to == Kind::Trim => {}
            _ => return pf(number),
        }
        if page.unaccepted() {
            return Answer::Code(20);
        }
        let Some(cycle) = self.running_cycle(number) else { return GP };
        let page = &mut self.pages[number];
        (page.r, page.w, page.x, page.restricted) = (false, false, false, false);
        (page.kind, page.modified, page.cycle) = (to, true, cycle);
        Answer::Code(0)
    }

    /// ERDINFO: the answer, and RDINFO's FLAGS and ENCLAVECONTEXT.
    pub fn erdinfo(&self, number: usize) -> (Answer, [u64; 2]) {
        let page = &self.pages[number];
        if page.kind == Kind::Free {
            return (Answer::Code(6), [0; 2]);
        }
        let bits = [page.r, page.w, page.x, page.pending, page.modified, page.restricted];
        let mut flags = page.kind.number() << 8 | u64::from(page.blocked) << 63;
        for (bit, &set) in bits.iter().enumerate() {
            flags |= u64::from(set) << bit;
        }
        let secs = self.enclave_of(number).and_then(|enclave| enclave.secs);
        (Answer::Code(0), [flags, secs.map_or(0, window)])
    }
}
