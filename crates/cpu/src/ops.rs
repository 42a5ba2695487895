//! The instruction table.
//!
//! One [`Row`] for each mnemonic, beside its handlers in `exec/<group>.rs`;
//! this module puts them together. Decoding goes by the table, and so do the
//! tests (which check it against iced-x86's own tables of flags, privilege and
//! CPUID bits) and, later, the translator. What iced-x86 already states of an
//! encoding — operands, flags, features — is not repeated here.

use std::sync::LazyLock;

use arch::Exception;
use iced_x86::Mnemonic;

use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::{Cpu, exec};

/// Fills in the operands of an op; `None` if the encoding is undefined.
pub type Builder = fn(&mut Build<'_>) -> Option<Handler>;

/// Groups, as the differential tester counts them: the SDM's own
/// (*vol. 1 §5.1 onwards*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Group {
    DataTransfer,
    Arithmetic,
    Logic,
    Shift,
    Bit,
    Control,
    String,
    FlagControl,
    Bmi,
    Misc,
    X87,
    Mmx,
    Sse,
    Avx,
    Crypto,
    State,
    System,
}

/// Who may execute an instruction (*SDM vol. 3A §5.9*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Anyone.
    Any,
    /// CPL 0, else `#GP(0)`.
    Cpl0,
    /// IOPL or the I/O permission map decide.
    Io,
    /// Some control bit decides (CR4.TSD, UMIP, FSGSBASE …).
    Control,
}

/// How the instruction is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// By a handler in Rust.
    Interpret,
    /// By the same instruction on the host, on the guest's operands.
    Thunk,
}

/// What an instruction is inside an enclave (*SDM vol. 3D, "Illegal
/// Instructions"*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enclave {
    /// As outside.
    Legal,
    /// `#UD` without SGX2.
    Sgx2,
    /// `#UD`.
    Illegal,
}

/// What the table says of a mnemonic.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The mnemonic.
    pub mnemonic: Mnemonic,
    /// The heading of its description in *SDM vol. 2*.
    pub sdm: &'static str,
    /// Its group.
    pub group: Group,
    /// Its builder.
    pub build: Builder,
    /// Who may execute it.
    pub gate: Gate,
    /// LOCK is allowed with a memory destination.
    pub lock: bool,
    /// A block ends after it, even if it is not a branch.
    pub ends: bool,
    /// How it is carried out.
    pub strategy: Strategy,
    /// The model's extensions are not asked: without the extension its encoding
    /// is a NOP, or the handler looks for itself.
    pub hint: bool,
    /// What it is inside an enclave.
    pub enclave: Enclave,
}

impl Row {
    /// A row for an unprivileged, interpreted instruction.
    pub const fn new(mnemonic: Mnemonic, sdm: &'static str, group: Group, build: Builder) -> Row {
        Row {
            mnemonic,
            sdm,
            group,
            build,
            gate: Gate::Any,
            lock: false,
            ends: false,
            strategy: Strategy::Interpret,
            hint: false,
            enclave: Enclave::Legal,
        }
    }
    /// LOCK is allowed.
    pub const fn lock(mut self) -> Row {
        self.lock = true;
        self
    }
    /// A block ends after it.
    pub const fn ends(mut self) -> Row {
        self.ends = true;
        self
    }
    /// Not for everyone.
    pub const fn gate(mut self, gate: Gate) -> Row {
        self.gate = gate;
        self
    }
    /// `#UD` inside an enclave.
    pub const fn outside(mut self) -> Row {
        self.enclave = Enclave::Illegal;
        self
    }
    /// `#UD` inside an enclave of a processor without SGX2.
    pub const fn inside_with_sgx2(mut self) -> Row {
        self.enclave = Enclave::Sgx2;
        self
    }
    /// Decoded whatever extensions the model has.
    pub const fn hint(mut self) -> Row {
        self.hint = true;
        self
    }
    /// Carried out by the host.
    pub const fn thunk(mut self) -> Row {
        self.strategy = Strategy::Thunk;
        self
    }
}

/// All rows.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    exec::TABLES.iter().flat_map(|table| table.iter())
}

/// The row of a mnemonic.
pub fn row(mnemonic: Mnemonic) -> Option<&'static Row> {
    static INDEX: LazyLock<Vec<Option<&'static Row>>> = LazyLock::new(|| {
        let last = rows().map(|row| row.mnemonic as usize).max().unwrap_or(0);
        let mut index = vec![None; last + 1];
        for row in rows() {
            index[row.mnemonic as usize] = Some(row);
        }
        index
    });
    INDEX.get(mnemonic as usize).copied().flatten()
}

/// An encoding that is undefined: `#UD`.
pub fn undefined(_cpu: &mut Cpu, _op: &Op) -> Result<Flow, Exception> {
    Err(Exception::UD)
}

/// An instruction we do not know: `#UD` for the guest, and counted.
pub fn unimplemented(cpu: &mut Cpu, op: &Op) -> Result<Flow, Exception> {
    cpu.note_unimplemented(op);
    Err(Exception::UD)
}

/// More than fifteen bytes: `#GP(0)` (*SDM vol. 2A §2.3.11*).
pub fn too_long(_cpu: &mut Cpu, _op: &Op) -> Result<Flow, Exception> {
    Err(Exception::GP0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mnemonic_has_one_row() {
        let mut seen = std::collections::HashSet::new();
        for row in rows() {
            assert!(seen.insert(row.mnemonic), "{:?} twice", row.mnemonic);
        }
    }

    /// Every instruction of a model, in any mode, has a row: what has none is reported.
    #[test]
    fn every_instruction_of_a_model_has_a_row() {
        use iced_x86::Code;
        for model in crate::Model::all() {
            let mut missing = Vec::new();
            for code in Code::values() {
                let info = code.op_code();
                let features = code.cpuid_features();
                let exists = info.is_instruction() && info.intel_decoder64() | info.intel_decoder32();
                if exists && features.iter().all(|&f| model.has(f)) && row(code.mnemonic()).is_none() {
                    missing.push(code);
                }
            }
            assert!(missing.is_empty(), "{}: {missing:?}", model.name);
        }
    }

    #[test]
    fn privilege_agrees_with_iced() {
        use iced_x86::Code;
        for code in Code::values() {
            let Some(row) = row(code.mnemonic()) else { continue };
            let info = code.op_code();
            if row.gate == Gate::Cpl0 {
                assert!(info.cpl0() && !info.cpl3(), "{code:?} is not privileged");
            } else if row.gate == Gate::Any && info.is_instruction() {
                assert!(info.cpl3(), "{code:?} is privileged");
            }
            if info.can_use_lock_prefix() {
                assert!(row.lock, "{code:?} takes LOCK");
            }
        }
    }
}
