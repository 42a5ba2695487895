//! One form after the other: both sides, and the comparison.

use cpu::Model;
use cpu::ops::Group;
use iced_x86::{Formatter, Instruction, IntelFormatter};
use serde::{Deserialize, Serialize};

use crate::area::{self, CODE, SLOT, SLOTS};
use crate::case::{self, Case};
use crate::encode::{self, Encoded, memory_bytes};
use crate::forms::Form;
use crate::kluis::{self, Kluis};
use crate::native::{self, Native, NativeError};
use crate::rng::Rng;
use crate::snapshot::{Outcome, Registers};
use crate::{compare, differences, plant, soft};

/// Cases for one encoding.
const STATES: u64 = 8;
/// Differences of a form that are described; all are counted.
const DESCRIBED: usize = 3;

/// Why the tester cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TesterError {
    /// The host's side.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// Kluis's side.
    #[error(transparent)]
    Memory(#[from] mem::MemError),
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Seed; each form has its own stream.
    pub seed: u64,
    /// Cases for each form.
    pub cases: u64,
    /// Group with a planted bug.
    pub plant: Option<Group>,
}

/// What came of one form.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FormReport {
    /// The form, as `--code` takes it.
    pub form: String,
    /// Its group.
    pub group: String,
    /// Cases compared.
    pub cases: u64,
    /// Of them, how many ended in an exception on the host.
    pub faults: u64,
    /// Of them, how many the soft-float judge compared.
    pub judged: u64,
    /// Cases with a difference from the host.
    pub differences: u64,
    /// Cases with a difference from the soft-float judge.
    pub misjudged: u64,
    /// The first differences, in full.
    pub described: Vec<String>,
}

/// Both sides.
pub struct Tester {
    native: Native,
    kluis: Kluis,
}

impl Tester {
    /// Sets up both sides. There is one tester in a process at a time.
    pub fn new(model: Model) -> Result<Self, TesterError> {
        Ok(Tester { native: Native::new()?, kluis: Kluis::new(model)? })
    }

    /// The model under test.
    pub fn model(&self) -> &Model {
        self.kluis.model()
    }

    /// Tests one form.
    pub fn form(&mut self, form: &Form, task: &Task) -> FormReport {
        let mut report =
            FormReport { form: form.name(), group: format!("{:?}", form.row.group), ..FormReport::default() };
        let mut rng = Rng::named(task.seed, &report.form);
        let mut fill = vec![0; area::MAPPED * 4096];
        fill.chunks_mut(64).for_each(|chunk| rng.fill(chunk));
        self.native.memory.data().copy_from_slice(&fill);
        self.copy_memory();
        self.kluis.forget_code();
        let mut fpu = Registers::default();
        let (mut slot, mut failures) = (0, 0);
        while report.cases < task.cases && failures < 1000 {
            let mut place = Place::new(&mut rng, slot);
            let Some(encoded) = encode::encode(&mut rng, form.code, place.rip, place.targets) else {
                failures += 1;
                continue;
            };
            if !place.fits(&encoded) {
                place = Place::inside(slot);
                // Branches and RIP-relative operands were encoded for the other place.
                let Some(again) = encode::encode(&mut rng, form.code, place.rip, place.targets) else {
                    failures += 1;
                    continue;
                };
                self.states(form, &again, &place, task, &mut rng, &mut fpu, &mut report, &mut failures);
            } else {
                self.states(form, &encoded, &place, task, &mut rng, &mut fpu, &mut report, &mut failures);
            }
            slot += 1;
            if slot == SLOTS - 1 {
                slot = 0;
                self.kluis.forget_code();
            }
        }
        report
    }

    #[allow(clippy::too_many_arguments)]
    fn states(
        &mut self,
        form: &Form,
        encoded: &Encoded,
        place: &Place,
        task: &Task,
        rng: &mut Rng,
        fpu: &mut Registers,
        report: &mut FormReport,
        failures: &mut u32,
    ) {
        let exits = self.write_code(encoded, place);
        let group = form.row.group;
        case::fpu_state(rng, fpu, group);
        for _ in 0..STATES.min(task.cases - report.cases) {
            if case::uses_fpu(group) {
                case::fpu_state(rng, fpu, group);
            }
            let Some(case) = (0..50).find_map(|_| case::case(rng, encoded, place.rip, place.targets, fpu))
            else {
                *failures += 1;
                continue;
            };
            self.case(form, encoded, &case, &exits, task, report);
            report.cases += 1;
            *failures = 0;
        }
    }

    fn write_code(&mut self, encoded: &Encoded, place: &Place) -> [u64; native::EXITS] {
        let exits = [place.rip + encoded.bytes.len() as u64, place.targets[0], place.targets[1]];
        self.native.memory.write_code(place.rip, &encoded.bytes);
        self.kluis.write_code(place.rip, &encoded.bytes);
        for (number, &exit) in exits.iter().enumerate() {
            self.native.memory.write_code(exit, &native::exit_code(number));
            self.kluis.write_code(exit, &kluis::EXIT_CODE);
        }
        exits
    }

    fn case(
        &mut self,
        form: &Form,
        encoded: &Encoded,
        case: &Case,
        exits: &[u64; native::EXITS],
        task: &Task,
        report: &mut FormReport,
    ) {
        let insn = &encoded.insn;
        for (at, bytes) in &case.patches {
            self.patch(*at, bytes);
        }
        let operand = case.operand.map(|at| self.operand(at));
        let mut host = self.native.run(&case.regs, exits);
        differences::without_linux(&mut host);
        let ran = self.kluis.run(&case.regs, case.single);
        report.faults += u64::from(host.fault.is_some());
        let mut kluis = match ran {
            Ok(outcome) => outcome,
            Err(astray) => {
                self.differs(report, encoded, case, task, &[format!("kluis: {astray}")], operand.as_deref());
                self.copy_memory();
                return;
            }
        };
        if task.plant == Some(form.row.group) {
            plant::plant(form.row.group, insn, &mut kluis);
        }
        let at = case.operand;
        if !differences::reconcile(insn, &case.regs, at, &mut host, &mut kluis) {
            self.copy_memory();
            return;
        }
        let mut lines = compare::compare(insn, &case.regs, &host, &kluis);
        self.compare_memory(insn, case, &mut lines);
        if !lines.is_empty() {
            self.differs(report, encoded, case, task, &lines, operand.as_deref());
        }
        self.judge(encoded, case, task, &kluis, operand.as_deref(), report);
    }

    /// The second judge, where it knows the instruction.
    fn judge(
        &mut self,
        encoded: &Encoded,
        case: &Case,
        task: &Task,
        kluis: &Outcome,
        operand: Option<&[u8]>,
        report: &mut FormReport,
    ) {
        let Some(verdict) = soft::judge(&encoded.insn, &case.regs, operand, kluis) else { return };
        report.judged += 1;
        if let Err(line) = verdict {
            report.misjudged += 1;
            if report.described.len() < DESCRIBED {
                let text = describe(report, encoded, case, task, &[format!("soft float: {line}")], operand);
                report.described.push(text);
            }
        }
    }

    fn differs(
        &self,
        report: &mut FormReport,
        encoded: &Encoded,
        case: &Case,
        task: &Task,
        lines: &[String],
        operand: Option<&[u8]>,
    ) {
        report.differences += 1;
        if report.described.len() < DESCRIBED {
            let text = describe(report, encoded, case, task, lines, operand);
            report.described.push(text);
        }
    }

    fn patch(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let address = at.wrapping_add(done as u64);
            let offset = (address & 0xfff) as usize;
            let n = (4096 - offset).min(bytes.len() - done);
            if let Some(page) = area::mapped_index(address) {
                let piece = &bytes[done..done + n];
                self.native.memory.data()[page * 4096 + offset..][..n].copy_from_slice(piece);
                self.kluis.data(page)[offset..offset + n].copy_from_slice(piece);
            }
            done += n;
        }
    }

    /// 64 bytes at an address, zeros where nothing is mapped.
    fn operand(&mut self, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let address = at.wrapping_add(i as u64);
            if let Some(page) = area::mapped_index(address) {
                *byte = self.native.memory.data()[page * 4096 + (address & 0xfff) as usize];
            }
        }
        bytes
    }

    fn copy_memory(&mut self) {
        for page in 0..area::MAPPED {
            self.kluis.data(page).copy_from_slice(&self.native.memory.data()[page * 4096..][..4096]);
        }
    }

    fn compare_memory(&mut self, insn: &Instruction, case: &Case, lines: &mut Vec<String>) {
        if let Some(at) = case.operand {
            for address in differences::ignored_bytes(insn).map(|i| at.wrapping_add(i)) {
                if let Some(page) = area::mapped_index(address) {
                    let offset = (address & 0xfff) as usize;
                    self.kluis.data(page)[offset] = self.native.memory.data()[page * 4096 + offset];
                }
            }
        }
        for (page, (address, _)) in area::mapped_pages().enumerate() {
            let host = &self.native.memory.data()[page * 4096..][..4096];
            let kluis = self.kluis.data(page);
            if host == &kluis[..] {
                continue;
            }
            let differing: Vec<_> = (0..4096).filter(|&i| host[i] != kluis[i]).collect();
            let first = differing[0];
            let end = (first + 32).min(4096);
            lines.push(format!(
                "memory at {:#x} ({} bytes differ): host {}, kluis {}",
                address + first as u64,
                differing.len(),
                hex(&host[first..end]),
                hex(&kluis[first..end]),
            ));
            kluis.copy_from_slice(host);
        }
    }
}

/// Where an instruction and its exits lie.
struct Place {
    rip: u64,
    targets: [u64; 2],
    /// Bytes up to the end of the page, if the instruction is to cross it.
    crossing: Option<u64>,
}

impl Place {
    fn new(rng: &mut Rng, slot: u64) -> Self {
        let base = CODE + slot * SLOT;
        if !(base + SLOT).is_multiple_of(4096) {
            return Self::inside(slot);
        }
        let before = 1 + rng.below(8);
        Place { rip: base + SLOT - before, targets: [base + 0x1a0, base + 0x1b0], crossing: Some(before) }
    }

    fn inside(slot: u64) -> Self {
        let base = CODE + slot * SLOT;
        Place { rip: base + 0x60, targets: [base + 0xa0, base + 0x20], crossing: None }
    }

    /// An instruction that is to cross a page must be long enough for it.
    fn fits(&self, encoded: &Encoded) -> bool {
        self.crossing.is_none_or(|before| before < encoded.bytes.len() as u64)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn describe(
    report: &FormReport,
    encoded: &Encoded,
    case: &Case,
    task: &Task,
    lines: &[String],
    operand: Option<&[u8]>,
) -> String {
    let mut name = String::new();
    IntelFormatter::new().format(&encoded.insn, &mut name);
    let fpu = matches!(report.group.as_str(), "X87" | "Mmx" | "Sse" | "Avx" | "Crypto" | "State");
    let mut text = format!(
        "{} ({}), case {}{}: {name}  [{}]\n",
        report.form,
        report.group,
        report.cases,
        if case.single { ", stepped" } else { "" },
        hex(&encoded.bytes)
    );
    text += &compare::show(&case.regs, fpu);
    if let (Some(at), Some(operand)) = (case.operand, operand) {
        let n = memory_bytes(&encoded.insn).clamp(16, 64) as usize;
        text += &format!("operand at {at:#x}: {}\n", hex(&operand[..n]));
    }
    for line in lines {
        text += &format!("  {line}\n");
    }
    text += &format!(
        "reproduce: kluis-difftest --code {} --seed {} --per-form {}\n",
        report.form,
        task.seed,
        report.cases + 1
    );
    text
}
