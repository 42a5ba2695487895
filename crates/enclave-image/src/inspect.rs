//! What an enclave is, from its files: of anybody's making.

use crate::encrypt;
use crate::sgxs::{Enclave, Page};
use enclave_abi::encrypted::{Payload, Piece};
use serde::Serialize;
use sgx::sigstruct::mrsigner;
use sgx_abi::{AttributeFlags, Attributes, MiscSelect, PAGE_SIZE, PageType, SecinfoFlags, Sigstruct, Tcs};
use std::fmt::Write;
use zerocopy::FromBytes;

const PAGE: u64 = PAGE_SIZE as u64;

/// What a stream says.
#[derive(Clone, Debug, Serialize)]
pub struct StreamReport {
    /// Hexadecimal.
    pub mrenclave: String,
    /// Bytes of the address range.
    pub size: u64,
    /// Pages of an SSA frame.
    pub ssa_frame_pages: u32,
    /// Bytes of the pages that are added: what it takes of the EPC, without its SECS.
    pub memory: u64,
    /// Pages that are added, in runs of one kind, by rising offset.
    pub ranges: Vec<RangeReport>,
    /// Of an encrypted enclave of Kluis's SDK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<EncryptedReport>,
    /// Threads, by rising offset of their TCS.
    pub threads: Vec<ThreadReport>,
    /// What to beware of.
    pub warnings: Vec<String>,
}

/// Consecutive pages of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RangeReport {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// The SDM's name of the type, e.g. `PT_REG`.
    pub page_type: &'static str,
    /// Rights, as `rwx` with dashes.
    pub rights: String,
    /// How much of the content is part of MRENCLAVE.
    pub measured: Measured,
    /// If it is ciphertext: the rights that it has once it is decrypted, on processors with
    /// SGX2; on others it keeps those above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decrypted: Option<String>,
}

/// What an enclave's loader in clear says of the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncryptedReport {
    /// Of the build, hexadecimal: what was encrypted with one key differs in it.
    pub id: String,
    /// Offset of the loader.
    pub loader: u64,
    /// Bytes that are ciphertext.
    pub ciphertext: u64,
}

/// How much of a page's content is part of MRENCLAVE. That the page is there, and with which
/// rights, always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measured {
    /// All of it.
    All,
    /// Some.
    Partly,
    /// None; the stream brings content all the same.
    Not,
    /// None; the stream brings no content.
    Empty,
}

/// A TCS.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadReport {
    /// Offset.
    pub tcs: u64,
    /// Offset of the entry point.
    pub entry: u64,
    /// Offset of the SSA frames.
    pub ssa: u64,
    /// Number of SSA frames.
    pub ssa_frames: u32,
    /// Offsets that become the FS and GS bases.
    pub fs: u64,
    /// See above.
    pub gs: u64,
}

/// What a SIGSTRUCT says.
#[derive(Clone, Debug, Serialize)]
pub struct SigstructReport {
    /// MRENCLAVE, hexadecimal.
    pub mrenclave: String,
    /// MRSIGNER, hexadecimal.
    pub mrsigner: String,
    /// ISVPRODID.
    pub product: u16,
    /// ISVSVN.
    pub svn: u16,
    /// ISVFAMILYID (KSS), hexadecimal.
    pub family_id: String,
    /// ISVEXTPRODID (KSS), hexadecimal.
    pub extended_product_id: String,
    /// Names of the attributes that are set.
    pub attributes: Vec<&'static str>,
    /// Names of attributes that the loader may choose.
    pub free_attributes: Vec<&'static str>,
    /// XFRM, and which of its bits are required.
    pub xfrm: [u64; 2],
    /// MISCSELECT, and which of its bits are required.
    pub miscselect: [u32; 2],
    /// Day of the build: `2026-01-31`.
    pub date: String,
    /// VENDOR.
    pub vendor: u32,
    /// What to beware of.
    pub warnings: Vec<String>,
}

/// Bytes as hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Looks at a stream.
pub fn stream(enclave: &Enclave) -> StreamReport {
    let payload = encrypt::payload(enclave);
    let mut ranges: Vec<RangeReport> = Vec::new();
    for page in &enclave.pages {
        let next = range(page, payload.as_ref());
        match ranges.last_mut() {
            Some(last) if last.end == next.start && kind(last) == kind(&next) => last.end = next.end,
            _ => ranges.push(next),
        }
    }
    let tcs = |page: &Page| page.flags.page_type() == Some(PageType::Tcs);
    let threads: Vec<_> = enclave.pages.iter().filter(|page| tcs(page)).map(thread).collect();
    let mut warnings = Vec::new();
    for range in &ranges {
        warnings.extend(beware_range(range));
    }
    warnings.extend(threads.iter().filter_map(|thread| beware_thread(thread, enclave)));
    if threads.is_empty() {
        warnings.push("there is no thread (TCS): nothing can enter it".into());
    }
    StreamReport {
        mrenclave: hex(&enclave.measure()),
        size: enclave.size,
        ssa_frame_pages: enclave.ssa_frame_pages,
        memory: enclave.pages.len() as u64 * PAGE,
        ranges,
        encrypted: payload.map(|payload| EncryptedReport {
            id: hex(&payload.id),
            loader: payload.loader,
            ciphertext: payload.pieces().iter().map(|piece| piece.size).sum(),
        }),
        threads,
        warnings,
    }
}

fn rights(flags: SecinfoFlags) -> String {
    let right = |flag, letter| if flags.contains(flag) { letter } else { '-' };
    [right(SecinfoFlags::R, 'r'), right(SecinfoFlags::W, 'w'), right(SecinfoFlags::X, 'x')].iter().collect()
}

fn range(page: &Page, payload: Option<&Payload>) -> RangeReport {
    let holds = |piece: &&Piece| (piece.offset..piece.end()).contains(&page.offset);
    let piece = payload.and_then(|payload| payload.pieces().iter().find(holds));
    RangeReport {
        start: page.offset,
        end: page.offset + PAGE,
        page_type: page.flags.page_type().map_or("unknown", PageType::name),
        rights: rights(page.flags),
        measured: match (page.measured, &page.data) {
            (Page::MEASURED, _) => Measured::All,
            (0, None) => Measured::Empty,
            (0, Some(_)) => Measured::Not,
            _ => Measured::Partly,
        },
        decrypted: piece.map(|piece| rights(piece.rights())),
    }
}

fn kind(range: &RangeReport) -> (&'static str, &str, Measured, Option<&str>) {
    (range.page_type, &range.rights, range.measured, range.decrypted.as_deref())
}

fn thread(page: &Page) -> ThreadReport {
    let zeros = [0; PAGE_SIZE];
    let bytes = page.data.as_deref().unwrap_or(&zeros);
    let tcs = Tcs::read_from_bytes(bytes).expect("a page");
    ThreadReport {
        tcs: page.offset,
        entry: tcs.oentry,
        ssa: tcs.ossa,
        ssa_frames: tcs.nssa,
        fs: tcs.ofsbase,
        gs: tcs.ogsbase,
    }
}

fn beware_range(range: &RangeReport) -> Option<String> {
    let (start, end) = (range.start, range.end);
    if range.rights.ends_with("wx") && range.decrypted.as_deref() == Some("r-x") {
        return Some(format!(
            "{start:#x}-{end:#x} is encrypted code: without SGX2 it can still be written once it is decrypted, and a \
             mistake in the enclave that writes there runs as code; with SGX2 it runs as r-x alone"
        ));
    }
    if range.rights.ends_with("wx") {
        return Some(format!(
            "{start:#x}-{end:#x} can be written and executed: a mistake in the enclave that writes there runs as \
             code; only SGX2 can take that right away after the start"
        ));
    }
    let which = match range.measured {
        Measured::Not => "is content that is not measured",
        Measured::Partly => "is measured in part only",
        Measured::All | Measured::Empty => return None,
    };
    Some(format!("{start:#x}-{end:#x} {which}: the host can change it without another MRENCLAVE"))
}

fn beware_thread(thread: &ThreadReport, enclave: &Enclave) -> Option<String> {
    let rights = |offset: u64| {
        let page = offset / PAGE * PAGE;
        let found = enclave.pages.binary_search_by_key(&page, |p| p.offset).ok()?;
        Some(enclave.pages[found].flags)
    };
    let executable = rights(thread.entry).is_some_and(|f| f.contains(SecinfoFlags::X));
    if !executable {
        return Some(format!("thread {:#x} enters at {:#x}, which is no code", thread.tcs, thread.entry));
    }
    let frame = u64::from(enclave.ssa_frame_pages).saturating_mul(PAGE);
    // as many as could lie in the enclave; the first that does not is what counts
    let frames = u64::from(thread.ssa_frames).saturating_mul(frame).min(enclave.size) / PAGE;
    let writable = |n: u64| {
        let page = thread.ssa.checked_add(n * PAGE);
        page.and_then(rights).is_some_and(|f| f.contains(SecinfoFlags::R | SecinfoFlags::W))
    };
    if frames == 0 || !(0..frames).all(writable) {
        return Some(format!(
            "thread {:#x} has {} SSA frames at {:#x} that are not there or cannot be written: EENTER faults",
            thread.tcs, thread.ssa_frames, thread.ssa
        ));
    }
    None
}

/// Looks at a SIGSTRUCT.
pub fn sigstruct(sig: &Sigstruct) -> SigstructReport {
    let Attributes { flags, xfrm } = sig.attributes;
    let mask = sig.attributemask;
    let names = |flags: AttributeFlags| flags.iter_names().map(|(name, _)| name).collect::<Vec<_>>();
    let free = (AttributeFlags::all() - AttributeFlags::INIT).difference(mask.flags);
    SigstructReport {
        mrenclave: hex(&sig.enclavehash),
        mrsigner: hex(&mrsigner(sig)),
        product: sig.isvprodid,
        svn: sig.isvsvn,
        family_id: hex(&sig.isvfamilyid),
        extended_product_id: hex(&sig.isvextprodid),
        attributes: names(flags),
        free_attributes: names(free),
        xfrm: [xfrm, mask.xfrm],
        miscselect: [sig.miscselect.bits(), sig.miscmask],
        date: format!("{:04x}-{:02x}-{:02x}", sig.date >> 16, sig.date >> 8 & 0xff, sig.date & 0xff),
        vendor: sig.vendor,
        warnings: beware_sigstruct(sig),
    }
}

fn beware_sigstruct(sig: &Sigstruct) -> Vec<String> {
    let (has, mask) = (sig.attributes.flags, sig.attributemask.flags);
    let mut warnings = Vec::new();
    if !mask.contains(AttributeFlags::DEBUG) {
        warnings.push("the host may load it as a debug enclave, which it can read and change".into());
    } else if has.contains(AttributeFlags::DEBUG) {
        warnings.push("it is a debug enclave: the host can read and change all of it".into());
    }
    if has.contains(AttributeFlags::PROVISIONKEY) {
        warnings
            .push("it may derive the provisioning keys, which identify the platform whoever owns it".into());
    }
    if has.contains(AttributeFlags::EINITTOKEN_KEY) {
        warnings.push("it may derive the launch key: only the platform's launch signer may start it".into());
    }
    let loose = sig.attributemask.xfrm != u64::MAX;
    if loose {
        warnings.push("the host chooses some of the processor's state components (XFRM)".into());
    }
    if sig.miscselect.contains(MiscSelect::EXINFO) && sig.miscmask & MiscSelect::EXINFO.bits() != 0 {
        warnings.push("it needs a processor with SGX2 (MISCSELECT.EXINFO)".into());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn page(offset: u64, page_type: PageType, rights: SecinfoFlags) -> Page {
        Page { offset, flags: SecinfoFlags::new(page_type, rights), measured: Page::MEASURED, data: None }
    }

    fn enclave() -> Enclave {
        let (r, w, x) = (SecinfoFlags::R, SecinfoFlags::W, SecinfoFlags::X);
        let mut tcs = Tcs::default();
        (tcs.oentry, tcs.ossa, tcs.nssa) = (0x1010, 0x3000, 2);
        let mut last = page(0x6000, PageType::Tcs, SecinfoFlags::empty());
        last.data = Some(Box::new(tcs.as_bytes().try_into().unwrap()));
        let pages = vec![
            page(0, PageType::Reg, r),
            page(0x1000, PageType::Reg, r | x),
            page(0x2000, PageType::Reg, r | x),
            page(0x3000, PageType::Reg, r | w),
            page(0x4000, PageType::Reg, r | w),
            last,
        ];
        Enclave { size: 0x8000, ssa_frame_pages: 1, pages }
    }

    #[test]
    fn pages_of_one_kind_are_one_range() {
        let report = stream(&enclave());
        let ranges: Vec<_> = report.ranges.iter().map(|r| (r.start, r.end, r.rights.as_str())).collect();
        let expected =
            [(0, 0x1000, "r--"), (0x1000, 0x3000, "r-x"), (0x3000, 0x5000, "rw-"), (0x6000, 0x7000, "---")];
        assert_eq!(ranges, expected);
        assert_eq!((report.threads[0].entry, report.threads[0].ssa_frames), (0x1010, 2));
        assert_eq!(report.warnings, [""; 0]);
        assert_eq!(report.memory, 6 * PAGE);
    }

    #[test]
    fn what_to_beware_of_is_told() {
        let warned = |change: &dyn Fn(&mut Enclave), word: &str| {
            let mut enclave = enclave();
            change(&mut enclave);
            let warnings = stream(&enclave).warnings;
            assert!(warnings.iter().any(|w| w.contains(word)), "{word}: {warnings:?}");
        };
        warned(&|e| e.pages[3].flags |= SecinfoFlags::X, "written and executed");
        warned(&|e| (e.pages[0].measured, e.pages[0].data) = (0, Some(Box::new([1; 4096]))), "not measured");
        warned(&|e| e.pages[1].measured = 1, "in part");
        warned(&|e| e.pages[1].flags -= SecinfoFlags::X, "no code");
        warned(&|e| drop(e.pages.remove(4)), "SSA");
        warned(&|e| drop(e.pages.pop()), "no thread");
        // a TCS of somebody's making takes no time
        let mut tcs = Tcs::default();
        (tcs.oentry, tcs.ossa, tcs.nssa) = (0x1010, u64::MAX - 0xfff, u32::MAX);
        warned(&|e| e.pages[5].data = Some(Box::new(tcs.as_bytes().try_into().unwrap())), "SSA");
    }

    #[test]
    fn warnings_of_a_sigstruct() {
        let full = Attributes { flags: AttributeFlags::from_bits_retain(!1), xfrm: u64::MAX };
        let strict = Sigstruct {
            attributes: Attributes { flags: AttributeFlags::MODE64BIT, xfrm: 3 },
            attributemask: full,
            miscmask: u32::MAX,
            date: 0x2026_0131,
            ..Sigstruct::default()
        };
        let report = sigstruct(&strict);
        assert_eq!(report.warnings, [""; 0]);
        assert_eq!((report.date.as_str(), &report.attributes[..]), ("2026-01-31", &["MODE64BIT"][..]));
        assert_eq!(report.free_attributes, [""; 0]);
        let warned = |change: &dyn Fn(&mut Sigstruct), word: &str| {
            let mut sig = strict.clone();
            change(&mut sig);
            let warnings = sigstruct(&sig).warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(word), "{word}: {warnings:?}");
        };
        warned(&|s| s.attributemask.flags -= AttributeFlags::DEBUG, "may load it as a debug enclave");
        warned(&|s| s.attributes.flags |= AttributeFlags::DEBUG, "is a debug enclave");
        warned(&|s| s.attributes.flags |= AttributeFlags::PROVISIONKEY, "provisioning");
        warned(&|s| s.attributes.flags |= AttributeFlags::EINITTOKEN_KEY, "launch");
        warned(&|s| s.attributemask.xfrm = 3, "XFRM");
        warned(&|s| s.miscselect = MiscSelect::EXINFO, "SGX2");
    }
}
