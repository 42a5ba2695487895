//! `monitor` commands: what gdb has no words for.

use cpu::{Activity, Cpu};

use super::target::{Debugged, Fatal};

/// Bytes that `phys` shows unless told otherwise, and at most.
const SHOWN: usize = 64;
const MOST_SHOWN: usize = 4096;

const HELP: &str = "\
monitor cpus                 what each processor does
monitor regs [N]             all state of processor N (1 is the first), else of each
monitor translate ADDR [N]   the physical address behind a linear one
monitor phys ADDR [LEN]      physical memory as a device sees it; the EPC reads ones
monitor time                 guest time, which stands still while the machine is stopped
";

/// What a processor does, in a few words.
pub(super) fn activity(cpu: &Cpu) -> &'static str {
    match cpu.activity {
        Activity::Active if cpu.in_closed_enclave() => "inside an enclave",
        Activity::Active if cpu.s.enclave.is_some() => "inside an enclave open to debuggers",
        Activity::Active => "active",
        Activity::Halted => "halted",
        Activity::WaitForSipi => "waiting to be started",
        Activity::Shutdown => "shut down",
    }
}

fn about(cpu: &Cpu) -> String {
    let s = &cpu.s;
    let mode = match (s.long64(), s.cr0.contains(arch::regs::Cr0::PE), s.seg[1].attr.big()) {
        (true, ..) => "64-bit",
        (_, false, _) => "real mode",
        (_, _, true) => "32-bit",
        (_, _, false) => "16-bit",
    };
    let what = activity(cpu);
    if cpu.in_closed_enclave() {
        return format!("processor {}: {what}; its registers are closed to debuggers\n", cpu.id + 1);
    }
    format!(
        "processor {}: {what}, {mode}, cpl {}, cs {:04x}:{:x}, cr3 {:x}\n",
        cpu.id + 1,
        s.cpl,
        s.seg[1].selector,
        s.rip,
        s.cr3
    )
}

fn state(cpu: &Cpu) -> String {
    if cpu.in_closed_enclave() { about(cpu) } else { crate::report::state(cpu) + "\n" }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The answer to a command.
pub(super) fn answer(machine: &Debugged, command: &str) -> Result<String, Fatal> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let paused = machine.paused()?;
    let one = |word: Option<&&str>, default| match word {
        Some(word) => number(word).and_then(|n| n.checked_sub(1)).map(|n| n as usize),
        None => Some(default),
    };
    let no_such = || Ok("there is no such processor\n".into());
    Ok(match words.split_first() {
        Some((&"cpus", [])) => {
            (0..paused.cpus()).filter_map(|id| paused.with_cpu(id, |engine| about(&engine.cpu))).collect()
        }
        Some((&"regs", [])) => {
            (0..paused.cpus()).filter_map(|id| paused.with_cpu(id, |engine| state(&engine.cpu))).collect()
        }
        Some((&"regs", rest @ [_])) => {
            match one(rest.first(), 0).and_then(|id| paused.with_cpu(id, |engine| state(&engine.cpu))) {
                Some(state) => state,
                None => return no_such(),
            }
        }
        Some((&"translate", [address, rest @ ..])) if rest.len() <= 1 => {
            let Some(la) = number(address) else { return Ok(format!("{address} is no address\n")) };
            let found = one(rest.first(), 0)
                .and_then(|id| paused.with_cpu(id, move |engine| engine.cpu.debug_translate(la)));
            match found {
                Some(Some(gpa)) => format!("{la:#x} is at physical {gpa:#x}\n"),
                Some(None) => format!("{la:#x} is not mapped\n"),
                None => return no_such(),
            }
        }
        Some((&"phys", [address, rest @ ..])) if rest.len() <= 1 => {
            let len = rest.first().map_or(Some(SHOWN as u64), |len| number(len));
            let (Some(at), Some(len)) = (number(address), len) else { return Ok(HELP.into()) };
            let mut bytes = vec![0; (len as usize).min(MOST_SHOWN)];
            machine.bus().read_or_ones(at, &mut bytes);
            let row = |(i, row): (usize, &[u8])| {
                let row: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{:012x}  {}\n", at.wrapping_add(16 * i as u64), row.join(" "))
            };
            bytes.chunks(16).enumerate().map(row).collect()
        }
        Some((&"time", [])) => {
            let ns = paused.guest_ns();
            format!("{}.{:09} s since the machine started\n", ns / 1_000_000_000, ns % 1_000_000_000)
        }
        _ => HELP.into(),
    })
}
