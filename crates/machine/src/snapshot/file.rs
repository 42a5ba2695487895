//! A snapshot's file.
//!
//! | at | what |
//! |---|---|
//! | 0 | header, 4096 bytes: magic, version, lengths, digests, the header's own digest |
//! | 4096 | the state, as JSON |
//! | the next multiple of 4096 | RAM, range after range; pages of zeros are holes |
//! | behind it | overlays of disks ([`devices::virtio::overlay`]), one after the other |
//!
//! RAM lies as it does in the machine, so that starting is one mapping for each
//! range, copied on write and read when touched. Its digest is therefore not
//! looked at then ([`Snapshot::verify`] does): what is in RAM is the guest's own, and
//! hostile already. All else is checked before it is used.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use mem::DmaBus;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{About, Snapshot, SnapshotError, State};

/// The format.
pub(super) const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"KLUISNAP";
const PAGE: u64 = 4096;
/// Bytes of the header that mean something.
const HEADER: usize = 152;
/// Bytes of it that its digest is of.
const DIGESTED: usize = 120;
/// Most bytes of a state: a megabyte of console input takes a few of them.
const MAX_STATE: u64 = 64 << 20;
/// Most bytes of RAM: what physical addresses reach.
const MAX_RAM: u64 = 1 << 52;
/// Bytes of RAM handled at once.
const PIECE: usize = 1 << 20;

type Hash = [u8; 32];

/// What lies in a snapshot's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Bytes of RAM, zeros included.
    pub memory: u64,
    /// Bytes of overlays, zeros included.
    pub overlays: u64,
    /// Pages of both that are not zeros.
    pub pages: u64,
    pub(super) memory_at: u64,
    state: u64,
    state_hash: Hash,
    memory_hash: Hash,
}

/// The part that is JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told<A, S> {
    about: A,
    state: S,
}

impl Contents {
    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let words = [self.state, self.memory_at, self.memory, self.overlays, self.pages];
        for (i, word) in words.into_iter().enumerate() {
            header[16 + 8 * i..24 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
        header[56..88].copy_from_slice(&self.state_hash);
        header[88..DIGESTED].copy_from_slice(&self.memory_hash);
        let digest = Sha256::digest(&header[..DIGESTED]);
        header[DIGESTED..].copy_from_slice(&digest);
        header
    }

    fn parse(header: &[u8; HEADER]) -> Result<Self, SnapshotError> {
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        let hash = |at: usize| header[at..at + 32].try_into().unwrap_or_default();
        if &header[..8] != MAGIC {
            return Err(SnapshotError::Foreign);
        }
        let version = word(8) as u32;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        if Sha256::digest(&header[..DIGESTED])[..] != header[DIGESTED..] || word(8) >> 32 != 0 {
            return Err(SnapshotError::Damaged("its header"));
        }
        let contents = Self {
            state: word(16),
            memory_at: word(24),
            memory: word(32),
            overlays: word(40),
            pages: word(48),
            state_hash: hash(56),
            memory_hash: hash(88),
        };
        let good = contents.state <= MAX_STATE
            && contents.memory <= MAX_RAM
            && contents.memory.is_multiple_of(PAGE)
            && contents.overlays <= MAX_RAM
            && contents.overlays.is_multiple_of(PAGE)
            && contents.memory_at == memory_at(contents.state)
            && contents.pages <= contents.content() / PAGE;
        if good { Ok(contents) } else { Err(SnapshotError::Damaged("its lengths")) }
    }

    /// Bytes of RAM and overlays.
    fn content(&self) -> u64 {
        self.memory + self.overlays
    }

    /// Where in the file the byte `at` of all overlays is.
    pub(super) fn overlay_at(&self, at: u64) -> u64 {
        (self.memory_at + self.memory).saturating_add(at)
    }

    /// Length of the file.
    fn file_bytes(&self) -> u64 {
        self.memory_at + self.content()
    }
}

fn memory_at(state: u64) -> u64 {
    (PAGE + state).next_multiple_of(PAGE)
}

/// Calls `f` with each run of pages of `piece` that are not zeros: offset of the
/// first page, and the bytes.
fn runs<E>(piece: &[u8], mut f: impl FnMut(usize, &[u8]) -> Result<(), E>) -> Result<(), E> {
    const ZERO: [u8; PAGE as usize] = [0; PAGE as usize];
    let mut start = None;
    for (i, page) in piece.chunks(PAGE as usize).enumerate() {
        let at = i * PAGE as usize;
        match (start, *page == ZERO[..page.len()]) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                f(from, &piece[from..at])?;
                start = None;
            }
            _ => {}
        }
    }
    start.map_or(Ok(()), |from| f(from, &piece[from..]))
}

/// The digest of RAM and overlays: of each page that is not zeros, its number and its
/// bytes.
#[derive(Default)]
struct MemoryHash {
    hash: Sha256,
    pages: u64,
}

impl MemoryHash {
    fn update(&mut self, at: u64, run: &[u8]) {
        for (i, page) in run.chunks(PAGE as usize).enumerate() {
            self.hash.update((at / PAGE + i as u64).to_le_bytes());
            self.hash.update(page);
            self.pages += 1;
        }
    }

    fn finish(self) -> (u64, Hash) {
        (self.pages, self.hash.finalize().into())
    }
}

/// What one overlay is made of.
pub(super) struct Overlay<'a> {
    /// Its length.
    pub(super) bytes: u64,
    /// Gives its pages: [`devices::virtio::blk::BlockBackend::save`].
    pub(super) save: Save<'a>,
}

/// Gives the pages of an overlay.
pub(super) type Save<'a> = Box<dyn FnMut(&mut Each<'_>) -> io::Result<()> + 'a>;

/// Takes pages of an overlay: offset and bytes.
pub(super) type Each<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + 'a;

/// Writes a snapshot; see [`crate::Running::save`].
pub(super) fn write(
    file: &File,
    about: &About,
    state: &State,
    spans: &[Range<u64>],
    memory: &DmaBus,
    overlays: &mut [Overlay<'_>],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Contents, SnapshotError> {
    let told = serde_json::to_vec(&Told { about, state }).map_err(|e| SnapshotError::State(e.to_string()))?;
    let at = memory_at(told.len() as u64);
    let ram: u64 = spans.iter().map(|span| span.end - span.start).sum();
    let more: u64 = overlays.iter().map(|overlay| overlay.bytes).sum();
    let all = ram + more;
    if told.len() as u64 > MAX_STATE {
        return Err(SnapshotError::State("is too large".into()));
    }
    // the end first: a file system without that much room says so at once, or never
    file.set_len(at + all).map_err(SnapshotError::Write)?;
    file.write_all_at(&told, PAGE).map_err(SnapshotError::Write)?;
    let mut hash = MemoryHash::default();
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    progress(0, all);
    for span in spans {
        for gpa in span.clone().step_by(PIECE) {
            let piece = &mut buffer[..PIECE.min((span.end - gpa) as usize)];
            memory.read_or_ones(gpa, piece);
            runs(piece, |offset, run| {
                hash.update(done + offset as u64, run);
                file.write_all_at(run, at + done + offset as u64)
            })
            .map_err(SnapshotError::Write)?;
            done += piece.len() as u64;
            progress(done, all);
        }
    }
    for overlay in overlays {
        let mut save = |offset: u64, bytes: &[u8]| {
            runs(bytes, |within, run| {
                let place = done + offset + within as u64;
                hash.update(place, run);
                file.write_all_at(run, at + place)
            })?;
            progress(done + offset, all);
            Ok(())
        };
        (overlay.save)(&mut save).map_err(SnapshotError::Write)?;
        done += overlay.bytes;
        progress(done, all);
    }
    let (pages, memory_hash) = hash.finish();
    let state_hash = Sha256::digest(&told).into();
    let contents = Contents {
        memory: ram,
        overlays: more,
        pages,
        memory_at: at,
        state: told.len() as u64,
        state_hash,
        memory_hash,
    };
    file.write_all_at(&contents.header(), 0).map_err(SnapshotError::Write)?;
    file.sync_all().map_err(SnapshotError::Write)?;
    Ok(contents)
}

/// Header and state, from wherever.
fn read(from: &mut dyn Read) -> Result<(Contents, Told<About, State>), SnapshotError> {
    let cut = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Damaged("cut short"),
        _ => SnapshotError::Read(e),
    };
    let mut first = [0; PAGE as usize];
    let (header, _) = first.split_first_chunk_mut::<HEADER>().ok_or(SnapshotError::Foreign)?;
    from.read_exact(header).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Foreign,
        _ => SnapshotError::Read(e),
    })?;
    let contents = Contents::parse(header)?;
    from.read_exact(&mut first[HEADER..]).map_err(cut)?;
    let mut text = vec![0; contents.state as usize];
    from.read_exact(&mut text).map_err(cut)?;
    if contents.state_hash != Sha256::digest(&text)[..] {
        return Err(SnapshotError::Damaged("its state"));
    }
    let told = serde_json::from_slice(&text).map_err(|e| SnapshotError::State(format!("is none: {e}")))?;
    Ok((contents, told))
}

/// Reads a file's header and state from `bytes`, for fuzzing; whether it was good.
pub fn parse(bytes: &[u8]) -> bool {
    read(&mut &*bytes).is_ok()
}

/// A file of no memory with that state and right digests, for fuzzing.
pub fn seal(state: &[u8]) -> Vec<u8> {
    let contents = Contents {
        memory: 0,
        overlays: 0,
        pages: 0,
        memory_at: memory_at(state.len() as u64),
        state: state.len() as u64,
        state_hash: Sha256::digest(state).into(),
        memory_hash: MemoryHash::default().finish().1,
    };
    let mut file = contents.header().to_vec();
    file.resize(PAGE as usize, 0);
    file.extend(state);
    file
}

impl Snapshot {
    /// Opens a snapshot. Everything of it is checked but the digest of RAM and overlays.
    ///
    /// # Errors
    /// [`SnapshotError`] if it is none, of another format, damaged or cut short.
    pub fn open(path: &Path) -> Result<Snapshot, SnapshotError> {
        let file = File::open(path).map_err(SnapshotError::Read)?;
        let about = file.metadata().map_err(SnapshotError::Read)?;
        if !about.is_file() {
            return Err(SnapshotError::Foreign);
        }
        let (contents, Told { about: told, state }) = read(&mut &file)?;
        if about.len() != contents.file_bytes() {
            return Err(SnapshotError::Damaged("cut short, or longer than it says"));
        }
        Ok(Snapshot { about: told, state, contents, file: Arc::new(file) })
    }

    /// Compares RAM and overlays with their digest; `progress` is told bytes done, and all.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] if they differ.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), SnapshotError> {
        let mut hash = MemoryHash::default();
        let mut buffer = vec![0; PIECE];
        let all = self.contents.content();
        for at in (0..all).step_by(PIECE) {
            let piece = &mut buffer[..PIECE.min((all - at) as usize)];
            self.file.read_exact_at(piece, self.contents.memory_at + at).map_err(SnapshotError::Read)?;
            let _ = runs(piece, |offset, run| {
                hash.update(at + offset as u64, run);
                Ok::<(), std::convert::Infallible>(())
            });
            progress(at + piece.len() as u64, all);
        }
        if hash.finish() == (self.contents.pages, self.contents.memory_hash) {
            Ok(())
        } else {
            Err(SnapshotError::Damaged("its memory or what was written to its disks"))
        }
    }
}
