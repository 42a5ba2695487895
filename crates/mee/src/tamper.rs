//! Drills for operators: what an attacker with access to DRAM does.
//!
//! They change ordinary memory only, after the page and the tree nodes above it
//! have gone there. The next fetch of the page must find it.

use std::{fmt, str::FromStr};

use crate::{
    Dram, Loss, PAGE, TamperError,
    memory::{At, FAN, NODE, TAG},
    state::State,
};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Pages on either side among which one to move is looked for.
const NEIGHBOURS: u32 = 256;

/// A kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drill {
    /// Flips a bit of the page's ciphertext.
    Flip,
    /// Puts another page's ciphertext and code in the page's place, or, if no page
    /// near has any, another line of the page in the place of its first.
    Move,
    /// Puts back an older state of the page: ciphertext, code, version and the
    /// tree nodes above it.
    Replay,
    /// Changes the page's word in its tree node.
    Tree,
}

impl Drill {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Flip, Self::Move, Self::Replay, Self::Tree];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flip => "flip",
            Self::Move => "move",
            Self::Replay => "replay",
            Self::Tree => "tree",
        }
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Drill {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|drill| drill.name() == name)
            .ok_or_else(|| format!("no drill {name:?}; there are flip, move, replay and tree"))
    }
}

/// What a drill changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TamperReport {
    /// The drill.
    pub drill: Drill,
    /// The page whose next fetch must find it.
    pub page: u32,
    /// What was done, for people.
    pub change: String,
}

impl fmt::Display for TamperReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on EPC page {}: {}", self.drill, self.page, self.change)
    }
}

/// All that DRAM holds of one page: ciphertext, code, and the tree nodes above.
#[derive(Clone)]
pub struct Recording {
    page: u32,
    version: u64,
    generation: u64,
    parts: Vec<(At, Vec<u8>)>,
}

impl Recording {
    /// The page recorded.
    pub fn page(&self) -> u32 {
        self.page
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("page", &self.page)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Dram {
    /// Attacks a page's memory. Where processors hold its plaintext, it is made to
    /// leave first, and no processor gets it again before the drill is done:
    /// [`TamperError::InUse`] says at which epoch; call again when that is finished,
    /// or [`Dram::spare`] it.
    ///
    /// # Errors
    /// [`TamperError`]; nothing was changed then.
    pub fn tamper(&self, drill: Drill, page: u32) -> Result<TamperReport, TamperError> {
        let change = self.on_stored_page(page, |state| {
            Ok(match drill {
                Drill::Flip => flip(state, page),
                Drill::Move => displace(state, page)?,
                Drill::Replay => {
                    let old = record(state, page)?;
                    state.renew(page)?;
                    state.flush_nodes(page)?;
                    put_back(state, &old)
                }
                Drill::Tree => change_node(state, page),
            })
        })?;
        Ok(TamperReport { drill, page, change })
    }

    /// Copies what DRAM holds of a page, for a replay when it has changed. As with
    /// [`Dram::tamper`], the page leaves the processor first.
    ///
    /// # Errors
    /// [`TamperError`] likewise.
    pub fn record(&self, page: u32) -> Result<Recording, TamperError> {
        self.on_stored_page(page, |state| record(state, page))
    }

    /// Puts a recorded state back: [`Drill::Replay`] with a version of one's own.
    /// If nothing near the page has changed since, this changes nothing.
    ///
    /// # Errors
    /// [`TamperError`] likewise, and if the recording is of before a reset.
    pub fn replay(&self, recording: &Recording) -> Result<TamperReport, TamperError> {
        let page = recording.page;
        let change = self.on_stored_page(page, |state| {
            let current = state.generation == recording.generation;
            Ok(current.then(|| put_back(state, recording)))
        })?;
        Ok(TamperReport { drill: Drill::Replay, page, change: change.ok_or(TamperError::Stale)? })
    }

    /// Gives up a drill that was told [`TamperError::InUse`]: processors may have
    /// the page again.
    pub fn spare(&self) {
        let _ = self.with(|state| {
            state.condemned = None;
            Ok(())
        });
    }

    /// Does `f` when all there is of the page is in DRAM.
    fn on_stored_page<T>(
        &self,
        page: u32,
        f: impl FnOnce(&mut State) -> Result<T, Loss>,
    ) -> Result<T, TamperError> {
        if page >= self.pages {
            return Err(TamperError::NoPage { page, pages: self.pages });
        }
        self.with(|state| {
            if let Some(index) = state.table.get(page) {
                if let Some(epoch) = self.begin_evict_slot(state, index) {
                    state.condemned = Some(page);
                    return Ok(Err(TamperError::InUse { epoch }));
                }
                state.write_back(index, &self.slots)?;
            }
            if !state.word(page)?.present() {
                state.store_zeros(page)?;
            }
            state.flush_nodes(page)?;
            state.condemned = None;
            f(state).map(Ok)
        })?
    }
}

fn bytes(state: &State, at: At, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    state.memory.fetch(at, &mut bytes);
    bytes
}

fn invert(state: &mut State, at: At, bit: u32) {
    let byte = bytes(state, at, 1)[0];
    state.memory.store(at, &[byte ^ 1 << bit]);
}

fn flip(state: &mut State, page: u32) -> String {
    const BYTE: usize = 1234;
    invert(state, state.memory.page(page) + BYTE, 5);
    format!("flipped bit 5 of byte {BYTE} of its ciphertext")
}

fn displace(state: &mut State, page: u32) -> Result<String, Loss> {
    let range = page.saturating_sub(NEIGHBOURS)..(page.saturating_add(NEIGHBOURS)).min(state.memory.pages());
    for other in range.filter(|other| *other != page) {
        if state.word(other)?.present() {
            let data = bytes(state, state.memory.page(other), PAGE);
            let code = bytes(state, state.memory.tag(other), TAG);
            state.memory.store(state.memory.page(page), &data);
            state.memory.store(state.memory.tag(page), &code);
            return Ok(format!("put ciphertext and code of page {other} in its place"));
        }
    }
    let at = state.memory.page(page);
    let line = bytes(state, at + LINE, LINE);
    state.memory.store(at, &line);
    Ok("put its second line in the place of its first".to_owned())
}

fn change_node(state: &mut State, page: u32) -> String {
    let at = state.memory.node(0, page / FAN) + (page % FAN) as usize * 8;
    // Bit 3 of the word: bit 1 of the version.
    invert(state, at, 3);
    format!("flipped bit 1 of its version in node {} on level 0 of the tree", page / FAN)
}

fn record(state: &mut State, page: u32) -> Result<Recording, Loss> {
    // Looking at the word brings the nodes in, unchanged.
    let version = state.word(page)?.version();
    state.flush_nodes(page)?;
    let mut places = vec![(state.memory.page(page), PAGE), (state.memory.tag(page), TAG)];
    let mut index = page;
    for level in 0..state.memory.levels().count() {
        index /= FAN;
        places.push((state.memory.node(level, index), NODE));
    }
    let parts = places.into_iter().map(|(at, len)| (at, bytes(state, at, len))).collect();
    Ok(Recording { page, version, generation: state.generation, parts })
}

fn put_back(state: &mut State, recording: &Recording) -> String {
    for (at, bytes) in &recording.parts {
        state.memory.store(*at, bytes);
    }
    format!("put back its memory as of version {}, tree nodes included", recording.version)
}
