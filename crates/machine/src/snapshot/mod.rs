//! A machine on disk: taken while it is paused, and started from.
//!
//! * this file: what is in a snapshot, and when it fits a machine
//! * `file`: how it lies in its file
//! * `disks`: disks cannot be rewound, so they must be as they were
//! * `processors`: nor can what software has been told by CPUID
//!
//! The EPC is never in it. Processors leave their enclaves by an asynchronous
//! exit before they are saved; a machine that starts from a snapshot finds its
//! EPC empty and with new keys, as after any power transition.

mod disks;
mod file;
mod processors;

use std::fs::File;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cpu::snapshot::CpuState;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, Disk};
use crate::gate::{PauseError, Paused};
use crate::parts::PartState;
use crate::running::Running;

pub use disks::{DiskRecord, FileRecord, OverlayRecord, PlaceRecord};
pub use file::{Contents, parse, seal};
pub use processors::ProcessorRecord;

/// Why a snapshot cannot be taken or used: one line with cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be read.
    #[error("cannot read the snapshot: {0}; check the path")]
    Read(std::io::Error),
    /// The file cannot be written.
    #[error("cannot write the snapshot: {0}; nothing of it is left")]
    Write(std::io::Error),
    /// It is something else.
    #[error("is no snapshot of Kluis; give a file made by `kluis snapshot`")]
    Foreign,
    /// Another format.
    #[error("is a snapshot of format {0}, this Kluis reads {reads}; take it anew", reads = file::VERSION)]
    Version(u32),
    /// It was cut short or changed.
    #[error("the snapshot is damaged ({0}); take it anew")]
    Damaged(&'static str),
    /// It is of another machine.
    #[error("the snapshot {0}; start from it with what it was taken with")]
    Machine(String),
    /// A state that cannot be.
    #[error("the snapshot's state {0}; take it anew with this version")]
    State(String),
    /// Its processors are others.
    #[error("the snapshot is of a machine {0}")]
    Processors(String),
    /// A processor's state that cannot be.
    #[error(transparent)]
    Cpu(#[from] cpu::snapshot::StateError),
    /// A disk.
    #[error("disk {0}")]
    Disk(String),
    /// The machine cannot be paused.
    #[error(transparent)]
    Pause(#[from] PauseError),
}

/// What a snapshot tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Version of Kluis that took it.
    pub kluis: String,
    /// When, in seconds since 1970.
    pub taken: u64,
    /// Processor model.
    pub model: String,
    /// What its processors promise.
    pub processors: ProcessorRecord,
    /// Number of processors.
    pub cpus: usize,
    /// RAM in bytes.
    pub memory: u64,
    /// Enclave page cache in bytes.
    pub epc: u64,
    /// Disks, in order.
    pub disks: Vec<DiskRecord>,
    /// What the machine's owner keeps with it; no business of the machine's.
    pub owner: Value,
}

/// The state of a machine, its RAM apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Guest time.
    pub(crate) guest_ns: u64,
    pub(crate) cpus: Vec<CpuState>,
    /// IA32_SGXLEPUBKEYHASH0–3.
    pub(crate) launch_hash: [u64; 4],
    pub(crate) devices: Vec<PartState>,
}

/// What a machine is, as far as a snapshot must fit it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) model: &'static str,
    pub(crate) processors: ProcessorRecord,
    pub(crate) cpus: usize,
    pub(crate) memory: u64,
    pub(crate) epc: u64,
    pub(crate) disks: Vec<Disk>,
}

/// A snapshot that was opened and checked, but for its RAM, which is taken from
/// the file when the guest touches it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    about: About,
    state: State,
    contents: Contents,
    file: Arc<File>,
}

/// An overlay in a snapshot's file.
pub(crate) struct Held {
    pub(crate) file: Arc<File>,
    /// Its first byte there.
    pub(crate) start: u64,
}

impl Shape {
    /// That of the machine to be.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            model: config.model.name,
            processors: processors::record(&config.model, config.cpus),
            cpus: config.cpus,
            memory: config.memory,
            epc: config.epc.bytes,
            disks: config.disks.iter().map(Disk::with_full_path).collect(),
        }
    }
}

impl Snapshot {
    /// What it tells of itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What lies in its file.
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Whether a machine of that shape can start from it.
    pub(crate) fn check(&self, shape: &Shape) -> Result<(), SnapshotError> {
        let About { model, cpus, memory, epc, disks, .. } = &self.about;
        let differ = |what: &str, saved: &dyn std::fmt::Display, now: &dyn std::fmt::Display| {
            Err(SnapshotError::Machine(format!("is of a machine with {what} {saved}, not {now}")))
        };
        if model != shape.model {
            return differ("processor model", model, &shape.model);
        }
        if *cpus != shape.cpus {
            return differ("processors:", cpus, &shape.cpus);
        }
        if *memory != shape.memory {
            return differ("bytes of memory:", memory, &shape.memory);
        }
        if *epc != shape.epc {
            return differ("bytes of EPC:", epc, &shape.epc);
        }
        processors::check(&self.about.processors, &shape.processors)?;
        let bytes = self.contents.memory;
        let fits = bytes == memory & !0xfff && self.contents.overlays == disks::held(disks);
        if self.state.cpus.len() != *cpus || !fits {
            return Err(SnapshotError::Damaged("its parts do not fit each other"));
        }
        disks::check(disks, &shape.disks)
    }

    /// Where the overlays are that it holds, by disks.
    pub(crate) fn held(&self) -> Vec<Option<Held>> {
        let held = |disk: &DiskRecord| match disk.overlay.as_ref()?.place {
            PlaceRecord::Held { at, .. } => {
                Some(Held { file: self.file.clone(), start: self.contents.overlay_at(at) })
            }
            PlaceRecord::Kept(_) => None,
        };
        self.about.disks.iter().map(held).collect()
    }

    /// RAM of `ranges` with the snapshot's content, copied on write.
    pub(crate) fn ram(&self, ranges: &[(u64, u64)], top: u64) -> Result<mem::Ram, mem::MemError> {
        mem::Ram::restored(ranges, top, &self.file, self.contents.memory_at)
    }

    /// The state, for the machine.
    pub(crate) fn into_state(self) -> State {
        self.state
    }
}

impl Running {
    /// Whether a snapshot can be taken, and be of use: `stops` says that the
    /// machine ends with it, so that its disks stay as they are.
    ///
    /// # Errors
    /// [`SnapshotError::Disk`] of a disk that would not be what it was.
    pub fn can_be_saved(&self, stops: bool) -> Result<(), SnapshotError> {
        disks::can_be_saved(&self.shape().disks, stops)
    }

    /// Writes a snapshot into `file`, which is empty, and has it on the medium when
    /// it returns. `owner` goes along unread. `progress` is told bytes of memory
    /// done, and all. The machine stays paused, and is as before, but outside of
    /// enclaves.
    ///
    /// # Errors
    /// [`SnapshotError`]; the file is then of no use.
    pub fn save(
        &self,
        paused: &Paused,
        owner: Value,
        file: &File,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Contents, SnapshotError> {
        let cpus = (0..paused.cpus())
            .map(|id| paused.with_cpu(id, |engine| engine.cpu.save_state()))
            .collect::<Option<Vec<_>>>()
            .ok_or(PauseError::Over)?;
        let launch_hash = std::array::from_fn(|i| self.sgx().launch_hash_msr(i));
        let devices = self.board().save()?;
        let state = State { guest_ns: paused.guest_ns(), cpus, launch_hash, devices };
        let shape = self.shape();
        // what is only noted is as it will be found
        self.board().flush_disks().map_err(SnapshotError::Write)?;
        let records = disks::record(&shape.disks)?;
        let mut overlays = Vec::new();
        for (number, record) in records.iter().enumerate() {
            if let Some(OverlayRecord { place: PlaceRecord::Held { bytes, .. }, .. }) = record.overlay {
                let save = move |each: &mut file::Each<'_>| self.board().save_overlay(number, each);
                overlays.push(file::Overlay { bytes, save: Box::new(save) });
            }
        }
        let about = About {
            kluis: env!("CARGO_PKG_VERSION").into(),
            taken: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            model: shape.model.into(),
            processors: shape.processors.clone(),
            cpus: shape.cpus,
            memory: shape.memory,
            epc: shape.epc,
            disks: records,
            owner,
        };
        let spans = crate::running::spans(shape.memory);
        file::write(file, &about, &state, &spans, self.memory(), &mut overlays, progress)
    }
}
