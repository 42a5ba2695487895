//! Multiboot images: where they go, what they are told, what is refused.
#![allow(clippy::single_range_in_vec_init)] // one RAM range is meant

mod common;

use boot::multiboot::{Entry, Module, is_image, load};
use common::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const MAGIC: u32 = 0x1bad_b002;
/// Where the images here are to be loaded.
const AT: u32 = 4 << 20;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(flags);
    words(&[&[MAGIC, flags, checksum], addresses].concat())
}

/// Code at [`AT`] behind 64 bytes of something else, its header at 16 there.
fn flat(load_end: u32, bss_end: u32, entry: u32) -> Vec<u8> {
    let mut file = vec![0xee; 64 + 0x1000];
    put(&mut file, 80, &header(1 << 16, &[AT + 16, AT, load_end, bss_end, entry]));
    file
}

fn elf32(machine: u16, entry: u32, vaddr: u32, flags: u32) -> Vec<u8> {
    let mut file = vec![0; 0x2000];
    put(&mut file, 0, b"\x7fELF\x01\x01\x01");
    put(&mut file, 16, &2u16.to_le_bytes());
    put(&mut file, 18, &machine.to_le_bytes());
    put(&mut file, 24, &words(&[entry, 52]));
    put(&mut file, 42, &[32, 0, 1, 0]);
    put(&mut file, 52, &words(&[1, 0x1000, vaddr, AT, 0x800, 0x3000]));
    put(&mut file, 0x1000, &header(flags, &[]));
    file
}

fn boots(file: &[u8], modules: &[Module<'_>], cmdline: &[u8]) -> Result<(Mem, Entry), String> {
    let (mem, layout) = guest(&[0..64 * MIB]);
    // what was there before
    mem_fill(&mem);
    load(&mem, file, modules, cmdline, &layout).map(|e| (mem, e)).map_err(|e| {
        let text = e.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    })
}

fn mem_fill(mem: &Mem) {
    use vm_memory::{Bytes, GuestAddress};
    mem.write_slice(&[0xaa; 0x1_0000], GuestAddress(u64::from(AT))).unwrap();
}

#[test]
fn header_says_what_goes_where() {
    let file = flat(AT + 0x800, AT + 0x2000, AT + 0x123);
    assert!(is_image(&file));
    let (mem, e) = boots(&file, &[], b"").unwrap();
    assert_eq!((e.eip, e.kernel), (AT + 0x123, (u64::from(AT), u64::from(AT) + 0x2000)));
    let at = u64::from(AT);
    assert_eq!(bytes(&mem, at, 0x800), file[64..64 + 0x800]);
    assert!(bytes(&mem, at + 0x800, 0x1800).iter().all(|b| *b == 0), ".bss");
    assert_eq!(bytes(&mem, at + 0x2000, 1), [0xaa], "and no more");
    // zeros mean: to the end of the file, and no .bss
    let (mem, e) = boots(&flat(0, 0, AT), &[], b"").unwrap();
    assert_eq!(e.kernel.1, at + 0x1000);
    assert_eq!(bytes(&mem, at + 0xfff, 2), [0xee, 0xaa]);
}

#[test]
fn elf_goes_to_its_physical_addresses() {
    for vaddr in [AT, 0xc040_0000] {
        let file = elf32(3, vaddr + 0x20, vaddr, 3);
        let (mem, e) = boots(&file, &[], b"").unwrap();
        let at = u64::from(AT);
        assert_eq!((e.eip, e.kernel), (AT + 0x20, (at, at + 0x3000)));
        assert_eq!(bytes(&mem, at, 0x800), file[0x1000..0x1800]);
        assert!(bytes(&mem, at + 0x800, 0x2800).iter().all(|b| *b == 0));
    }
}

#[test]
fn image_is_told_of_memory_modules_and_texts() {
    let file = flat(0, 0, AT);
    let modules = [
        Module { data: &[1; 0x1001], text: b"one with arguments" },
        Module { data: &[], text: b"" },
        Module { data: b"3", text: b"three" },
    ];
    let (mem, e) = boots(&file, &modules, b"image a=b").unwrap();
    let info = u64::from(e.ebx);
    let word = |at: u64| u64::from(u32_at(&mem, at));
    let text = |at: u64| {
        let all = bytes(&mem, at, 100);
        all[..all.iter().position(|b| *b == 0).unwrap()].to_vec()
    };
    assert_eq!(word(info), 0b10_0100_1101);
    assert_eq!((word(info + 4), word(info + 8)), (639, 63 << 10));
    assert_eq!(text(word(info + 16)), b"image a=b");
    assert_eq!(text(word(info + 64)), b"Kluis");

    let (count, list) = (word(info + 20), word(info + 24));
    assert_eq!((count, list % 4), (3, 0));
    let mut told = Vec::new();
    for n in 0..count {
        let [start, end, string] = [0, 4, 8].map(|field| word(list + 16 * n + field));
        assert_eq!(bytes(&mem, start, (end - start) as usize), modules[n as usize].data);
        assert_eq!(text(string), modules[n as usize].text);
        told.push((start, end));
    }
    let at = u64::from(AT) + 0x1000;
    assert_eq!(told, [(at, at + 0x1001), (at + 0x2000, at + 0x2000), (at + 0x2000, at + 0x2001)]);
    assert_eq!(told, e.modules);

    let (length, map) = (word(info + 44), word(info + 48));
    let mut entries = Vec::new();
    let mut offset = 0;
    while offset < length {
        let entry = map + offset;
        entries.push((u64_at(&mem, entry + 4), u64_at(&mem, entry + 12), word(entry + 20)));
        offset += word(entry) + 4;
    }
    assert_eq!(offset, length);
    let (_, layout) = guest(&[0..64 * MIB]);
    let want = layout.e820().into_iter().map(|r| (r.range.start, r.range.end - r.range.start, r.kind as u64));
    assert_eq!(entries, want.collect::<Vec<_>>());
    let bios = [0x400, 0x40e, 0x413].map(|at| word(at) & 0xffff);
    assert_eq!(bios, [0x3f8, 0x9fc0, 639], "where a BIOS leaves them");
    assert!(info >= 0x9000 && list + 16 * count < 0x9_fc00 && u64::from(e.esp) <= info);
}

#[test]
fn header_is_found_where_the_specification_allows_it() {
    let with = |at: usize, len: usize| {
        let mut file = vec![0; len];
        put(&mut file, at, &header(0, &[]));
        is_image(&file)
    };
    assert!(with(0, 12) && with(8180, 9000) && with(4, 16));
    assert!(!with(2, 64), "at a multiple of 4");
    assert!(!with(8184, 9000), "within 8 KiB");
    let mut wrong = header(0, &[]);
    wrong[8] ^= 1;
    assert!(!is_image(&wrong), "checksum");
    // a Linux kernel is one, whatever its payload looks like
    let mut kernel = bzimage(&gzip(&vmlinux()));
    put(&mut kernel, 0, &header(0, &[]));
    assert!(!is_image(&kernel));
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |file: &[u8], what: &str| {
        let text = boots(file, &[], b"").unwrap_err();
        assert!(text.contains(what), "{text}");
    };
    refused(&vmlinux(), "no multiboot header");
    refused(&header(0, &[]), "no ELF file");
    refused(&header(1 << 7, &[]), "0.6.96");
    refused(&elf32(62, AT, AT, 0), "objcopy -O elf32-i386");
    refused(&elf32(3, AT + 0x3000, AT, 0), "entry point");
    refused(&flat(AT + 0x1001, 0, AT), "truncated");
    refused(&flat(AT - 1, 0, AT), "load_end_addr");
    refused(&flat(0, AT + 0xfff, AT), "bss_end_addr");
    refused(&flat(0, 0, AT + 0x1000), "entry_addr");
    refused(&flat(0, u32::MAX, AT), "more memory");
    refused(&header(1 << 16, &[AT, AT]), "truncated");
    let mut low = flat(0, 0, AT);
    put(&mut low, 80 + 12, &words(&[0x8010, 0x8000, 0, 0, 0x8000]));
    refused(&low, "usable RAM");
    let mut elsewhere = flat(0, 0, AT);
    put(&mut elsewhere, 80 + 12, &words(&[AT - 1]));
    refused(&elsewhere, "address fields");
    put(&mut elsewhere, 80 + 12, &words(&[AT + 81]));
    refused(&elsewhere, "address fields");

    let file = flat(0, 0, AT);
    let with = |modules: &[Module<'_>], cmdline: &[u8]| boots(&file, modules, cmdline).unwrap_err();
    assert!(with(&[], b"a\0b").contains("zero byte"));
    assert!(with(&[Module { data: &[], text: &[0] }], b"").contains("zero byte"));
    assert!(with(&[], &vec![b'x'; 700_000]).contains("617472"), "room below the reserved area");
    let large = vec![0; 61 << 20];
    assert!(with(&[Module { data: &large, text: b"" }], b"").contains("module needs memory"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn mutated_images(
        which in any::<bool>(),
        edits in prop::collection::vec((0..0x1100usize, any::<u32>(), 0..4u32), 1..6),
        cut in prop::option::weighted(0.2, 0..0x1100usize),
    ) {
        let mut file = if which { flat(0, AT + 0x3000, AT) } else { elf32(3, AT, AT, 0) };
        for (at, value, kind) in edits {
            // near the headers, values that are nearly right
            let at = match kind { 0 => at, 1 => 64 + at % 64, _ => at % 96 };
            let value = if kind == 3 { AT.wrapping_add(value % 0x4000) } else { value };
            put(&mut file, at.min(0x1000), &value.to_le_bytes());
        }
        if let Some(cut) = cut {
            file.truncate(cut);
        }
        thread_local!(static GUEST: (Mem, boot::Layout) = guest(&[0..64 << 20]));
        GUEST.with(|(mem, layout)| {
            let modules = [Module { data: &[7; 100], text: b"m" }];
            if let Ok(e) = load(mem, &file, &modules, b"c", layout) {
                let entry = u64::from(e.eip);
                prop_assert!(e.kernel.0 >= MIB && e.kernel.0 <= entry && entry < e.kernel.1);
                prop_assert!(e.modules[0].0 >= e.kernel.1 && e.modules[0].1 <= 64 * MIB);
            }
            Ok(())
        })?;
    }
}
