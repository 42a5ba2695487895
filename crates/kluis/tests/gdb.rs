//! gdb itself against Debian's kernel on two processors that are at work, with the
//! machine's process behind its walls.

mod common;

use common::gdb::Machine;
use common::{Scratch, turn};
use std::io::{Read, Write};

/// A processor in a loop of system calls each; addresses of the kernel; the end when
/// there is a line of input.
const SCRIPT: &str = "
echo A >/tmp/aaaa; echo B >/tmp/baaa
work() { while :; do read -r x </tmp/aaaa; [ $x = A ] || echo \"$x\" >/tmp/other; done; }
work & work &
grep -E ' (do_sys_openat2|entry_SYSCALL_64|jiffies_64)$' /proc/kallsyms
echo ready; read -r line; kill $(jobs -p)
echo other $(cat /tmp/other); echo last $line; exit 7";

/// The value that gdb printed behind `name`.
fn value(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn linux_on_two_processors() {
    let _turn = turn();
    let mut machine = Machine::start(&[
        "--gdb",
        "127.0.0.1:0,nowait",
        "--cpus",
        "2",
        "--memory",
        "256M",
        "--",
        "sh",
        "-c",
        SCRIPT,
    ]);
    let symbols = machine.until("ready");
    let address = |name: &str| {
        let line = symbols.iter().find(|line| line.ends_with(name)).expect("the kernel's symbol");
        format!("0x{}", line.split(' ').next().unwrap())
    };
    let (open, entry, jiffies) =
        (address(" do_sys_openat2"), address(" entry_SYSCALL_64"), address(" jiffies_64"));
    // "tmp/aaaa", so that only the guest's own loops stop here
    let ours = format!("break *{open} if *(unsigned long*)($rsi + 1) == 0x616161612f706d74");
    let said = machine.gdb(&[
        "info threads",
        "monitor cpus",
        &ours,
        "continue",
        "printf \"open %lx\\n\", $pc",
        "printf \"user %lx\\n\", $rsi",
        "printf \"path %s\\n\", (char*)$rsi",
        // it opens another file then
        "set {char}($rsi + 5) = 'b'",
        "printf \"path %s\\n\", (char*)$rsi",
        "printf \"cpl %lx\\n\", $cs & 3",
        "stepi",
        "printf \"stepped %lx\\n\", $pc",
        "stepi",
        "x/2i $pc",
        "delete",
        // a counter of the timer interrupt
        &format!("watch *(unsigned long*){jiffies}"),
        "continue",
        "delete",
        // from the kernel's entry back to whom it is entered from
        &format!("tbreak *{entry}"),
        "continue",
        "printf \"caller %lx\\n\", $rcx",
        "set $caller = $rcx",
        "tbreak *$caller",
        "continue",
        "printf \"returned %lx\\n\", $pc",
        "printf \"user cpl %lx\\n\", $cs & 3",
        "thread 2",
        "info registers rip cr3 efer",
        "stepi",
        "thread 1",
        "set $rip = $rip",
        "x/4xb 0x123456789000",
        "detach",
    ]);
    for part in [
        "Thread 1.1",
        "Thread 1.2",
        "processor 1: ",
        "processor 2: ",
        "path /tmp/aaaa",
        "path /tmp/baaa",
        "Hardware watchpoint 2",
        "Old value = ",
        "[Switching to thread 2 (Thread 1.2)]",
        "efer           0xd01",
        "Cannot access memory at address 0x123456789000",
        "detached]",
    ] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    let open = u64::from_str_radix(&open[2..], 16).unwrap();
    assert_eq!(value(&said, "open "), open);
    assert!((1..16).contains(&(value(&said, "stepped ") - open)), "one instruction");
    assert_eq!((value(&said, "cpl "), value(&said, "user cpl ")), (0, 3));
    assert_eq!(value(&said, "returned "), value(&said, "caller "));
    assert!(value(&said, "user ") < 1 << 47);
    let number = |name: &str| -> u64 {
        said.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().parse().unwrap()
    };
    assert!(number("New value = ") > number("Old value = "), "ticks");

    // a second debugger, which goes without a word
    let said = machine.gdb(&[&format!("hbreak *{entry}"), "continue", "printf \"again %lx\\n\", $pc"]);
    assert!(said.contains("again ffffffff"), "{said}");
    // and the machine goes on to its end
    machine.child.stdin.take().unwrap().write_all(b"words\n").unwrap();
    let mut rest = String::new();
    machine.lines.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("other B\nlast words\n"), "the guest saw what gdb wrote: {rest}");
    assert_eq!(machine.end(), Some(7));
}

/// A multiboot image at 1 MiB whose entry, 20h bytes on, goes from 32-bit mode by 16-bit
/// protected mode to real mode, and counts there, in the segment FFFFh.
fn image() -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const ADDRESSES: u32 = 1 << 16;
    const AT: u32 = 0x10_0000;
    let mut image = Vec::new();
    let sum = 0u32.wrapping_sub(MAGIC).wrapping_sub(ADDRESSES);
    for word in [MAGIC, ADDRESSES, sum, AT, AT, 0, 0, AT + 0x20] {
        image.extend(word.to_le_bytes());
    }
    image.extend([0x0f, 0x01, 0x15, 0x48, 0x00, 0x10, 0x00]); // 100020: lgdt [100048h]
    image.extend([0xea, 0x2e, 0x00, 0x00, 0x00, 0x08, 0x00]); // 100027: jmp 8:2eh
    image.extend([0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0]); // 10002e: cr0.PE = 0
    image.extend([0xea, 0x4b, 0x00, 0xff, 0xff]); // 100036: jmp ffffh:4bh
    image.extend([0xb8, 0x34, 0x12]); // 10003b: mov ax, 1234h
    image.extend([0x40, 0x81, 0xc3, 0x00, 0x01, 0xeb, 0xf9]); // 10003e: inc ax; add bx, 100h; jmp back
    image.resize(0x48, 0);
    image.extend([0x0f, 0, 0x50, 0, 0x10, 0, 0, 0]); // GDTR
    image.extend([0; 8]);
    image.extend([0xff, 0xff, 0, 0, 0x10, 0x9a, 0, 0]); // 16-bit code from 1 MiB on
    image
}

#[test]
fn code_of_32_and_of_16_bits() {
    let s = Scratch::new();
    let image = s.file("image", image());
    let machine = Machine::start(&["--gdb", "127.0.0.1:0", "--memory", "64M", "--kernel", &image]);
    let said = machine.gdb(&[
        "show architecture",
        "x/2i $pc",
        "stepi",
        "printf \"32-bit %x\\n\", $pc",
        "hbreak *0x10003e",
        "continue",
        "printf \"real %x, ax %x, cs %x\\n\", $pc, $eax & 0xffff, $cs",
        "set $eax = 0x777",
        "stepi",
        "stepi",
        "printf \"then %x, ax %x\\n\", $pc, $eax & 0xffff",
        "monitor cpus",
        "detach",
    ]);
    for part in [
        "currently \"i386\"",
        "lgdtl  0x100048",
        "ljmp   $0x8,$0x2e",
        "32-bit 100027\n",
        "real 10003e, ax 1234, cs ffff\n",
        "then 100043, ax 778\n",
        "real mode, cpl 0, cs ffff:53",
    ] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    // one that comes later sees code of 16 bits
    let said = machine.gdb(&["show architecture", "x/2i 0x10003e", "kill"]);
    for part in ["currently \"i8086\"", "inc    %ax", "add    $0x100,%bx"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    assert_eq!(machine.end(), Some(125), "it was killed");
}
