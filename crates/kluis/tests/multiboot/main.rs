//! A multiboot image, assembled here (`image.s`), that looks at all that images made
//! for QEMU look for, and the ways in which it can end.

#[path = "../common/mod.rs"]
mod common;

use common::{Scratch, kluis, output, text};
use std::process::Output;

std::arch::global_asm!(include_str!("image.s"), options(att_syntax));

/// The image, as its address fields describe it.
fn image() -> &'static [u8] {
    unsafe extern "C" {
        static multiboot_image_start: u8;
        static multiboot_image_end: u8;
    }
    let (start, end) = (&raw const multiboot_image_start, &raw const multiboot_image_end);
    // SAFETY: the two labels are the bounds of one section's read-only content.
    unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) }
}

/// The same as an ELF file of 32 bits without address fields; its code believes to
/// be where it is, its entry to be 3 GiB above.
fn elf32() -> Vec<u8> {
    const ADDRESSES: u32 = 1 << 16;
    let mut code = image().to_vec();
    let word = |at: usize| u32::from_le_bytes(image()[at..at + 4].try_into().unwrap());
    let flags = word(4) & !ADDRESSES;
    code[4..8].copy_from_slice(&flags.to_le_bytes());
    code[8..12].copy_from_slice(&0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags).to_le_bytes());
    let [load, bss_end, entry] = [16, 24, 28].map(word);
    let high = 3 << 30;

    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
    for field in [entry + high, 52, 0, 0] {
        elf.extend(field.to_le_bytes()); // entry, program headers, sections, flags
    }
    elf.extend([52, 0, 32, 0, 1, 0, 40, 0, 0, 0, 0, 0]);
    for field in [1, 84, load + high, load, code.len() as u32, bss_end - load, 7, 4] {
        elf.extend(field.to_le_bytes());
    }
    assert_eq!(elf.len(), 84);
    elf.extend(code);
    elf
}

fn run(s: &Scratch, args: &[&str]) -> Output {
    let file = s.file("image", image());
    output(kluis().args(["run", "--memory", "64M", "--kernel", &file]).args(args), b"")
}

#[test]
fn image_finds_what_qemu_gives_it_and_exits_with_its_status() {
    let s = Scratch::new();
    let one = s.file("one", "first module");
    let two = s.file("two,x", "");
    let modules = format!("{one} with arguments,{}", two.replace(',', ",,"));
    let args = ["--cpus", "3", "--debug-exit", "--test-device", "--initrd", &modules];
    let out = run(&s, &[&args[..], &["--append", "some words", "--append", "end=x42"]].concat());
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(42 << 1 | 1), "{said}{}", text(&out.stderr));
    assert!(!said.contains("FAILED"), "{said}");
    assert!(said.ends_with("interrupts of edges: ok\n"), "no instruction follows the exit\n{said}");
    for line in [
        "magic: ok".to_owned(),
        "protected mode without paging: ok".to_owned(),
        format!("cmdline: {} some words end=x42", s.at("image")),
        format!("module: {one} with arguments = first module"),
        format!("module: {two} = "),
        "module in whole pages: ok".to_owned(),
        format!("upper memory: {}", 63 << 10),
        "fw_cfg: ok".to_owned(),
        "processors: 3".to_owned(),
        format!("memory: {}", 64 << 10),
        "RSDP: ok".to_owned(),
        "processors in the MADT: ok".to_owned(),
        "PM timer: ok".to_owned(),
        "other processors: ok".to_owned(),
        "test memory: ok".to_owned(),
        "interrupt of a level: ok".to_owned(),
        "interrupts of edges: ok".to_owned(),
    ] {
        assert!(said.lines().any(|l| l == line), "no {line:?} in\n{said}");
    }
}

#[test]
fn without_options_there_is_neither_port() {
    let s = Scratch::new();
    let out = run(&s, &["--append", "end=x3"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "the image switches off\n{said}");
    assert!(said.ends_with("no test device\nno debug exit\n") && !said.contains("FAILED"), "{said}");
}

#[test]
fn elf_of_32_bits_is_taken_to_its_physical_addresses() {
    let s = Scratch::new();
    let file = s.file("elf", elf32());
    let out = output(kluis().args(["run", "--memory", "64M", "--debug-exit", "--kernel", &file]), b"");
    assert_eq!(out.status.code(), Some(1), "{}{}", text(&out.stdout), text(&out.stderr));
}

#[test]
fn image_ends_at_the_ports_that_people_know() {
    let s = Scratch::new();
    for end in ["s", "p", "r", "k", "f"] {
        let out = run(&s, &["--quiet", "--append", &format!("end={end}")]);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()), "{end}");
    }
    let out = run(&s, &["--quiet", "--append", "end=t"]);
    let said = text(&out.stderr);
    assert!(out.status.code() == Some(125) && said.contains("triple fault"), "{said}");
}

#[test]
fn what_cannot_be_booted_is_told_in_one_line() {
    let s = Scratch::new();
    let good = s.file("good", image());
    let mut elf = elf32();
    elf[18] = 62;
    let elf64 = s.file("elf64", elf);
    for (args, what) in [
        (&["--kernel", &elf64][..], "objcopy -O elf32-i386"),
        (&["--kernel", &good, "--", "true"], "no agent"),
        (&["--kernel", &good, "--initrd", "no-such-file x"], "cannot read module no-such-file"),
        (&["--debug-exit", "--", "true"], "cannot be used with"),
    ] {
        let out = output(kluis().args(["run", "--memory", "64M"]).args(args), b"");
        let said = text(&out.stderr);
        assert!(out.status.code() == Some(2) && said.contains(what), "{said}");
    }
}

/// The image itself is judged by QEMU.
#[test]
#[ignore = "needs qemu-system-x86_64; cargo test -p kluis --test multiboot -- --ignored"]
fn qemu_agrees() {
    let s = Scratch::new();
    let module = s.file("module", "content");
    for file in [s.file("image", image()), s.file("elf", elf32())] {
        let out = output(
            std::process::Command::new("qemu-system-x86_64")
                .args(["-nodefaults", "-no-reboot", "-machine", "q35", "-m", "64", "-smp", "3"])
                .args(["-display", "none", "-serial", "stdio", "-device", "pc-testdev"])
                .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-append", "end=x42"])
                .args(["-kernel", &file, "-initrd", &format!("{module} x")]),
            b"",
        );
        let said = text(&out.stdout);
        assert_eq!(out.status.code(), Some(85), "{said}{}", text(&out.stderr));
        assert!(said.contains("interrupts of edges: ok") && !said.contains("FAILED"), "{said}");
    }
}
