//! Loading kernels: what ends up where, and what is refused with which words.
#![allow(clippy::single_range_in_vec_init)] // one RAM range is meant

mod common;

use boot::{BOOT_CS, BOOT_DS, Form, Protocol, decompress::Format, load};
use common::*;
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;

fn error(kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str, ram: u64) -> String {
    let (mem, layout) = guest(&[0..ram]);
    let text = load(&mem, kernel, initrd, cmdline, &layout).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn elf_segments_land_and_bss_is_zeroed() {
    let (mem, layout) = guest(&[0..64 * MIB]);
    // Dirt where .bss goes.
    mem.write_slice(&[0xff; 0x6000], GuestAddress(KERNEL + 0x20_0000)).unwrap();
    let e = load(&mem, &vmlinux(), None, "console=ttyS0", &layout).unwrap();
    assert_eq!(e.form, Form::Elf);
    assert_eq!(e.rip, KERNEL + 0x10);
    assert_eq!(e.kernel, (KERNEL, KERNEL + 0x20_5000));
    let text = bytes(&mem, KERNEL, 0x3000);
    assert!(text.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
    let data = bytes(&mem, KERNEL + 0x20_0000, 0x5001);
    assert_eq!(&data[..4], b"data");
    assert!(data[4..0x5000].iter().all(|b| *b == 0));
    assert_eq!(data[0x5000], 0xff, "nothing past memsz is touched");
}

#[test]
fn zero_page_of_a_bzimage() {
    let (mem, layout) = guest(&[0..64 * MIB, 1 << 32..(1 << 32) + 16 * MIB]);
    let initrd: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
    let e = load(&mem, &bzimage(&gzip(&vmlinux())), Some(&initrd), "quiet", &layout).unwrap();
    assert_eq!(e.form, Form::Unpacked(Format::Gzip));
    assert_eq!(e.rip, KERNEL + 0x10);
    assert_eq!(e.kernel, (KERNEL, KERNEL + 0x20_5000));

    let zp = e.rsi;
    assert_eq!(bytes(&mem, zp + 0x202, 4), b"HdrS");
    assert_eq!(bytes(&mem, zp + 0x1fe, 2), [0x55, 0xaa]);
    assert_eq!(bytes(&mem, zp + 0x1ef, 1), [0], "sentinel");
    assert_eq!(bytes(&mem, zp + 0x210, 2), [0xff, 0x01], "loader type; no KASLR, no heap");
    assert_eq!(u64_at(&mem, zp + 0x250), 0, "setup_data is not taken from the file");
    assert_eq!(u64_at(&mem, zp + 0x258), KERNEL);
    assert_eq!(bytes(&mem, zp + 0x26c, 0x24), [0; 0x24], "nothing past the header's end");
    assert_eq!(bytes(&mem, zp, 0x40), [0; 0x40], "screen_info");
    assert_eq!(u64_at(&mem, zp + 0x70), layout.rsdp());

    let cmdline = u64::from(u32_at(&mem, zp + 0x228));
    assert_eq!(bytes(&mem, cmdline, 6), b"quiet\0");

    let (start, end) = e.initrd.unwrap();
    assert_eq!(end - start, 5000);
    assert_eq!(start, 64 * MIB - 0x2000, "as high as it goes, on a page");
    assert_eq!(u32_at(&mem, zp + 0x218), start as u32);
    assert_eq!(u32_at(&mem, zp + 0x21c), 5000);
    assert_eq!(bytes(&mem, start, 5000), initrd);

    let want = layout.e820();
    assert_eq!(bytes(&mem, zp + 0x1e8, 1), [want.len() as u8]);
    for (i, w) in want.iter().enumerate() {
        let at = zp + 0x2d0 + 20 * i as u64;
        assert_eq!(u64_at(&mem, at), w.range.start);
        assert_eq!(u64_at(&mem, at + 8), w.range.end - w.range.start);
        assert_eq!(u32_at(&mem, at + 16), w.kind as u32);
    }
}

#[test]
fn gdt_and_page_tables() {
    let (mem, layout) = guest(&[0..64 * MIB]);
    let e = load(&mem, &vmlinux(), None, "", &layout).unwrap();
    assert_eq!(e.gdt_limit, 0x1f);
    let code = u64_at(&mem, e.gdt_base + u64::from(BOOT_CS));
    let data = u64_at(&mem, e.gdt_base + u64::from(BOOT_DS));
    // P, S, code/data type; L for code, D/B for data.
    assert_eq!((code >> 40 & 0x9a, code >> 53 & 1, code >> 54 & 1), (0x9a, 1, 0));
    assert_eq!((data >> 40 & 0x9a, data >> 53 & 1, data >> 54 & 1), (0x92, 0, 1));

    let walk = |va: u64| {
        let l4 = u64_at(&mem, e.cr3 + (va >> 39 & 511) * 8);
        let l3 = u64_at(&mem, (l4 & !0xfff) + (va >> 30 & 511) * 8);
        assert_eq!((l4 & 3, l3 & 0x83), (3, 3));
        let l2 = u64_at(&mem, (l3 & !0xfff) + (va >> 21 & 511) * 8);
        assert_eq!(l2 & 0x83, 0x83);
        (l2 & !0x1f_ffff) + (va & 0x1f_ffff)
    };
    for va in [0, 0x7000, KERNEL, 0x3fff_ffff, 0x4000_0000, 0xbfff_f123, 0xffff_ffff] {
        assert_eq!(walk(va), va);
    }
    assert_eq!(u64_at(&mem, e.cr3 + 8), 0);
    assert_eq!(u64_at(&mem, e.cr3 + 0x1000 + 32), 0, "nothing above 4 GiB");
}

#[test]
fn unknown_compression_is_loaded_as_is() {
    let (mem, layout) = guest(&[0..64 * MIB]);
    let file = bzimage(b"BZh9 not known here");
    let e = load(&mem, &file, None, "", &layout).unwrap();
    assert_eq!(e.form, Form::Compressed);
    assert_eq!(e.rip, KERNEL + 0x200);
    let code = &file[3 * 512..];
    assert_eq!(bytes(&mem, KERNEL, code.len()), code);

    let mut fixed = file.clone();
    fixed[0x234] = 0; // not relocatable: at code32_start
    assert_eq!(load(&mem, &fixed, None, "", &layout).unwrap().rip, 0x10_0200);
    assert!(error(&file, None, "", 18 * MIB).contains("more memory"));
}

/// *boot.rst*, "32-bit Boot Protocol".
#[test]
fn a_kernel_without_a_64_bit_entry_is_entered_in_32_bit_mode() {
    let (mem, layout) = guest(&[0..64 * MIB]);
    let mut file = bzimage(b"BZh9 not known here");
    put(&mut file, 0x236, &0u16.to_le_bytes());
    let e = load(&mem, &file, None, "", &layout).unwrap();
    assert_eq!((e.protocol, e.form), (Protocol::Bits32, Form::Compressed));
    assert_eq!(e.rip, KERNEL, "the first byte of the protected-mode code");
    let code = u64_at(&mem, e.gdt_base + u64::from(BOOT_CS));
    assert_eq!((code >> 40 & 0x9a, code >> 53 & 1, code >> 54 & 1), (0x9a, 0, 1), "D, not L");
    assert_eq!(load(&mem, &vmlinux(), None, "", &layout).unwrap().protocol, Protocol::Bits64);
}

#[test]
fn initrd_respects_addr_max_and_the_kernel() {
    let (mem, layout) = guest(&[0..64 * MIB]);
    let mut file = bzimage(&gzip(&vmlinux()));
    put(&mut file, 0x22c, &(0x180_0000u32 - 1).to_le_bytes());
    let e = load(&mem, &file, Some(&[1; 0x1001]), "", &layout).unwrap();
    assert_eq!(e.initrd.unwrap().0, 0x180_0000 - 0x2000);
    // Too large for 20..24 MiB, so it goes below the kernel.
    let e = load(&mem, &file, Some(&vec![1; 8 << 20]), "", &layout).unwrap();
    assert_eq!(e.initrd.unwrap().1, KERNEL);
    // Nowhere.
    let text = error(&file, Some(&vec![1; 16 << 20]), "", 64 * MIB);
    assert!(text.contains("16777216") && text.contains("0x1800000"), "{text}");
    assert!(load(&mem, &file, Some(&[]), "", &layout).unwrap().initrd.is_none());
}

#[test]
fn command_line_limits() {
    let k = bzimage(&gzip(&vmlinux()));
    let (mem, layout) = guest(&[0..64 * MIB]);
    assert!(load(&mem, &k, None, &"x".repeat(2047), &layout).is_ok());
    let text = error(&k, None, &"x".repeat(2048), 64 * MIB);
    assert!(text.contains("2048") && text.contains("2047"), "{text}");
    let mut huge = k.clone();
    put(&mut huge, 0x238, &u32::MAX.to_le_bytes());
    assert!(error(&huge, None, &"x".repeat(0x1_0000), 64 * MIB).contains("shorten"));
    assert!(error(&k, None, "a\0b", 64 * MIB).contains("zero byte"));
}

#[test]
fn foreign_files_are_named() {
    let check = |file: &[u8], what: &str| {
        let text = error(file, None, "", 64 * MIB);
        assert!(text.contains(what), "{text}");
    };
    check(b"", "empty");
    check(b"#!/bin/sh\n", "script");
    check(b"hello", "5 bytes");
    check(&[0x20; 4096], "HdrS");
    check(&gzip(b"initrd"), "gzip data");
    check(b"070701000000", "cpio");
    check(&[b"MZ".as_slice(), &[0; 2000]].concat(), "EFI");
    let mut arm = vec![0; 4096];
    put(&mut arm, 0x38, b"ARMd");
    check(&arm, "arm64");

    let mut k = bzimage(&gzip(&vmlinux()));
    put(&mut k, 0x206, &0x20bu16.to_le_bytes());
    check(&k, "2.11");
    let mut k = bzimage(&gzip(&vmlinux()));
    put(&mut k, 0x236, &0u16.to_le_bytes());
    check(&k, "32 bits"); // an i386 bzImage around an x86-64 kernel
    let mut k = bzimage(&gzip(&vmlinux()));
    k[0x211] = 0;
    check(&k, "zImage");
}

#[test]
fn broken_files_are_named() {
    let k = bzimage(&gzip(&vmlinux()));
    assert!(error(&k[..k.len() - 100], None, "", 64 * MIB).contains("truncated"));
    assert!(error(&k[..0x210], None, "", 64 * MIB).contains("setup header"));
    assert!(error(&k[..0x600], None, "", 64 * MIB).contains("protected-mode"));
    let mut bad = k.clone();
    let at = 3 * 512 + 0x400 + 40;
    bad[at..at + 40].fill(0xaa);
    assert!(error(&bad, None, "", 64 * MIB).contains("corrupt"));

    let e = vmlinux();
    assert!(error(&e[..40], None, "", 64 * MIB).contains("truncated"));
    assert!(error(&e[..e.len() - 1], None, "", 64 * MIB).contains("segment"));
    let with = |at: usize, b: &[u8]| {
        let mut v = vmlinux();
        put(&mut v, at, b);
        error(&v, None, "", 64 * MIB)
    };
    assert!(with(4, &[1]).contains("64 bits"));
    assert!(with(18, &183u16.to_le_bytes()).contains("183"));
    assert!(with(16, &[1]).contains("object"));
    assert!(with(24, &0x1234u64.to_le_bytes()).contains("entry point"));
    assert!(with(56, &[0, 0]).contains("nothing to load"));
    assert!(with(56, &u16::MAX.to_le_bytes()).contains("too many"));
    assert!(with(32, &u64::MAX.to_le_bytes()).contains("truncated"));
    assert!(with(64 + 24, &0x1000u64.to_le_bytes()).contains("below 1 MiB"));
    assert!(with(64 + 24, &(u64::MAX - 5).to_le_bytes()).contains("wraps"));
    assert!(with(64 + 40, &1u64.to_le_bytes()).contains("more bytes in the file"));
    assert!(with(64 + 40, &(2u64 << 30).to_le_bytes()).contains("1 GiB"));
    assert!(with(64 + 40, &0x30_0000u64.to_le_bytes()).contains("overlap"));
    assert!(with(64 + 56 + 24, &(5u64 << 30).to_le_bytes()).contains("more memory"));
}

#[test]
fn too_little_memory_is_named() {
    for k in [vmlinux(), bzimage(&gzip(&vmlinux()))] {
        let text = error(&k, None, "", 18 * MIB);
        assert!(text.contains("0x1000000") || text.contains("0x1200000"), "{text}");
        assert!(text.contains("0x1200000") && text.contains("more memory"), "{text}");
    }
}

#[test]
fn memory_that_does_not_back_the_layout_is_an_error() {
    let (mem, _) = guest(&[0..2 * MIB]);
    let (_, layout) = guest(&[0..64 * MIB]);
    assert!(load(&mem, &vmlinux(), None, "", &layout).unwrap_err().to_string().contains("back"));
}

#[test]
fn files_are_checked_before_they_are_read() {
    let dir = std::env::temp_dir();
    assert!(boot::read_kernel(&dir).unwrap_err().to_string().contains("regular file"));
    let missing = dir.join("no-such-kernel-file");
    let text = boot::read_initrd(&missing).unwrap_err().to_string();
    assert!(text.contains("initrd") && text.contains("no-such-kernel-file"), "{text}");
    let file = dir.join(format!("boot-test-{}", std::process::id()));
    std::fs::write(&file, b"abc").unwrap();
    assert_eq!(boot::read_kernel(&file).unwrap(), b"abc");
    std::fs::remove_file(&file).unwrap();
}
