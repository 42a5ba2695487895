//! Counters of leaves, entries, exits and faults, and the record of every leaf
//! for `--trace sgx`. Never the content of an enclave.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use sgx_abi::{Encls, Enclu};

use crate::leaf::{self, Ran};
use crate::rule::Stop;

/// Number of leaf numbers counted for each instruction.
const LEAVES: usize = 32;

/// One executed leaf.
#[derive(Clone, Debug)]
pub struct Record {
    /// Number of the logical processor is not known here; RIP says where it was.
    pub rip: u64,
    /// ENCLS or ENCLU, and the leaf's name.
    pub leaf: &'static str,
    /// RBX, RCX and RDX before, as far as they are operands: an enclave's other
    /// registers are nobody's business, and zero here.
    pub inputs: [u64; 3],
    /// What came of it, in the SDM's words.
    pub result: String,
    /// The rule that did not hold.
    pub rule: Option<&'static crate::rule::Rule>,
}

/// Called for every record while tracing.
pub type Sink = Box<dyn Fn(&Record) + Send + Sync>;

/// Counters and the sink of records.
#[derive(Default)]
pub struct Trace {
    encls: [AtomicU64; LEAVES],
    enclu: [AtomicU64; LEAVES],
    failed: AtomicU64,
    /// Asynchronous exits by vector.
    exits: Mutex<[u64; 32]>,
    /// Exits by interrupts of the user-defined vectors.
    interrupts: AtomicU64,
    /// Accesses refused by the EPCM.
    epcm_faults: AtomicU64,
    tracing: AtomicBool,
    sink: Mutex<Option<Sink>>,
}

/// A snapshot of the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Executions by leaf name, those that happened at all.
    pub leaves: Vec<(&'static str, u64)>,
    /// Leaves that faulted or reported an error.
    pub failed: u64,
    /// Asynchronous exits by exception vector.
    pub exits: Vec<(u8, u64)>,
    /// Asynchronous exits by interrupts.
    pub interrupts: u64,
    /// Page faults raised by the EPCM's access control.
    pub epcm_faults: u64,
}

impl Trace {
    /// Sends every record to `sink` from now on.
    pub fn set_sink(&self, sink: Option<Sink>) {
        let mut slot = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        self.tracing.store(sink.is_some(), Ordering::Relaxed);
        *slot = sink;
    }

    /// Counts an ENCLS or ENCLU leaf and records it.
    pub(crate) fn leaf(&self, user: bool, number: u32, rip: u64, inputs: [u64; 3], ran: &Ran) {
        let table = if user { &self.enclu } else { &self.encls };
        if let Some(counter) = table.get(number as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if ran.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if !self.tracing.load(Ordering::Relaxed) {
            return;
        }
        let result = match ran {
            Ok(done) => format!("{done:?}"),
            Err(Stop::Refused(rule, 0)) => format!("{:?}", rule.outcome),
            Err(Stop::Refused(rule, la)) => format!("{:?} at {la:#x}", rule.outcome),
            Err(Stop::Fault(exception)) => {
                format!("{}({:#x})", exception.vector.mnemonic(), exception.error)
            }
            Err(Stop::Lost) => "EPC lost".into(),
        };
        let mut inputs = inputs;
        inputs[operands(user, number)..].fill(0);
        let record = Record { rip, leaf: name(user, number), inputs, result, rule: leaf::refused(ran) };
        if let Some(sink) = &*self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            sink(&record);
        }
    }

    /// Counts an asynchronous exit.
    pub fn exit(&self, vector: u8, interrupt: bool) {
        if interrupt {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
        } else if let Some(count) =
            self.exits.lock().unwrap_or_else(PoisonError::into_inner).get_mut(usize::from(vector))
        {
            *count += 1;
        }
    }

    /// Counts an access that the EPCM refused.
    pub fn epcm_fault(&self) {
        self.epcm_faults.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        let count = |user: bool, table: &[AtomicU64; LEAVES]| -> Vec<(&'static str, u64)> {
            let all = table.iter().enumerate().map(|(i, c)| (i, c.load(Ordering::Relaxed)));
            all.filter(|&(_, n)| n != 0).map(|(i, n)| (name(user, i as u32), n)).collect()
        };
        let exits = *self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        Counters {
            leaves: [count(false, &self.encls), count(true, &self.enclu)].concat(),
            failed: self.failed.load(Ordering::Relaxed),
            exits: (0u8..).zip(exits).filter(|&(_, n)| n != 0).collect(),
            interrupts: self.interrupts.load(Ordering::Relaxed),
            epcm_faults: self.epcm_faults.load(Ordering::Relaxed),
        }
    }
}

/// How many of RBX, RCX and RDX are operands of a leaf.
fn operands(user: bool, number: u32) -> usize {
    if !user {
        // the kernel's own registers
        return 3;
    }
    match Enclu::from_u32(number) {
        None | Some(Enclu::Edeccssa) => 0,
        Some(Enclu::Eexit) => 1,
        Some(Enclu::Egetkey | Enclu::Eenter | Enclu::Eresume | Enclu::Eaccept | Enclu::Emodpe) => 2,
        Some(Enclu::Ereport | Enclu::Eacceptcopy) => 3,
    }
}

fn name(user: bool, number: u32) -> &'static str {
    if user {
        Enclu::from_u32(number).map_or("ENCLU[unknown]", Enclu::name)
    } else {
        Encls::from_u32(number).map_or("ENCLS[unknown]", Encls::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::Done;
    use std::sync::Arc;

    #[test]
    fn registers_that_are_no_operands_are_not_told() {
        let trace = Trace::default();
        let told: Arc<Mutex<Vec<[u64; 3]>>> = Arc::default();
        let to = told.clone();
        trace.set_sink(Some(Box::new(move |record| to.lock().unwrap().push(record.inputs))));
        for leaf in [Enclu::Ereport as u32, Enclu::Egetkey as u32, Enclu::Eexit as u32, 0x77] {
            trace.leaf(true, leaf, 0, [1, 2, 3], &Ok(Done::Jump));
        }
        trace.leaf(false, Encls::Eadd as u32, 0, [1, 2, 3], &Ok(Done::Jump));
        assert_eq!(*told.lock().unwrap(), [[1, 2, 3], [1, 2, 0], [1, 0, 0], [0; 3], [1, 2, 3]]);
    }
}
