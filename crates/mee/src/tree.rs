//! The integrity tree: every page's word, under counters whose topmost are on
//! the processor.
//!
//! Nodes are used from a small cache on the processor, one place per node index
//! modulo its size and per level. A node there is authoritative; a changed one
//! goes to DRAM when its place is needed, and only then does the counter above it
//! rise. Making room on one level needs only levels above it, so this ends.

use mem::secret::{SecretError, SecretSlice};

use crate::{
    Loss,
    cipher::{Checks, Cipher},
    memory::{FAN, Memory, NODE, TAG},
};

const FANOUT: usize = FAN as usize;

/// What the tree works with.
pub(crate) struct Context<'a> {
    pub(crate) cipher: &'a Cipher,
    pub(crate) memory: &'a mut Memory,
    pub(crate) checks: Checks,
}

/// What a page's memory holds, and at which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// The page's memory holds its content; else it reads as zeros.
    const PRESENT: u64 = 1;
    /// The page's memory was written some time.
    const STORED: u64 = 2;
    const VERSION: u32 = 2;

    pub(crate) fn version(self) -> u64 {
        self.0 >> Self::VERSION
    }

    pub(crate) fn present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    pub(crate) fn stored(self) -> bool {
        self.0 & Self::STORED != 0
    }

    /// The word after the next write-back. 2^62 of them do not happen.
    pub(crate) fn next(self) -> Self {
        Self((self.version() + 1) << Self::VERSION | Self::STORED | Self::PRESENT)
    }

    /// The word when the content is given up. The version stays as it is: it
    /// is raised before it is used again, and the word differs.
    pub(crate) fn absent(self) -> Self {
        Self(self.0 & !Self::PRESENT)
    }
}

/// One level's part of the cache.
struct Level {
    lines: Vec<Line>,
    /// The nodes' counters, 64 per line.
    counters: SecretSlice<u64>,
}

#[derive(Clone, Copy, Default)]
struct Line {
    node: Option<u32>,
    /// Differs from DRAM.
    dirty: bool,
}

pub(crate) struct Tree {
    levels: Vec<Level>,
    /// Counters of the top level's nodes.
    root: SecretSlice<u64>,
    /// A node on its way.
    node: SecretSlice<u8>,
    /// Nodes that take up DRAM.
    stored: u64,
}

impl Tree {
    /// For this DRAM, caching up to `lines` nodes per level.
    pub(crate) fn new(memory: &Memory, lines: u32) -> Result<Self, SecretError> {
        let mut levels = Vec::new();
        let mut top = 0;
        for nodes in memory.levels() {
            let lines = nodes.min(lines).max(1) as usize;
            levels.push(Level {
                lines: vec![Line::default(); lines],
                counters: SecretSlice::new(lines * FANOUT)?,
            });
            top = nodes as usize;
        }
        Ok(Self { levels, root: SecretSlice::new(top)?, node: SecretSlice::new(NODE)?, stored: 0 })
    }

    /// The tree of an empty DRAM again.
    pub(crate) fn clear(&mut self) {
        for level in &mut self.levels {
            level.lines.fill(Line::default());
            level.counters.fill(0);
        }
        self.root.fill(0);
        self.node.fill(0);
        self.stored = 0;
    }

    /// Nodes that take up DRAM.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    pub(crate) fn word(&mut self, cx: &mut Context<'_>, page: u32) -> Result<Word, Loss> {
        let line = self.load(cx, 0, page / FAN)?;
        Ok(Word(self.levels[0].counters[line * FANOUT + (page % FAN) as usize]))
    }

    pub(crate) fn set_word(&mut self, cx: &mut Context<'_>, page: u32, word: Word) -> Result<(), Loss> {
        let line = self.load(cx, 0, page / FAN)?;
        let level = &mut self.levels[0];
        level.counters[line * FANOUT + (page % FAN) as usize] = word.0;
        level.lines[line].dirty = true;
        Ok(())
    }

    /// Sends the nodes above a page to DRAM and forgets them.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>, page: u32) -> Result<(), Loss> {
        let mut index = page;
        for level in 0..self.levels.len() {
            index /= FAN;
            let line = self.line(level, index);
            if self.levels[level].lines[line].node == Some(index) {
                self.evict(cx, level, line)?;
            }
        }
        Ok(())
    }

    fn line(&self, level: usize, index: u32) -> usize {
        index as usize % self.levels[level].lines.len()
    }

    /// Brings a node into the cache; its line.
    fn load(&mut self, cx: &mut Context<'_>, level: usize, index: u32) -> Result<usize, Loss> {
        let line = self.line(level, index);
        if self.levels[level].lines[line].node == Some(index) {
            return Ok(line);
        }
        self.evict(cx, level, line)?;
        let counter = *self.above(cx, level, index)?;
        let counters = line * FANOUT..(line + 1) * FANOUT;
        if counter == 0 {
            // Never written: whatever DRAM has there does not count.
            self.levels[level].counters[counters].fill(0);
        } else {
            cx.memory.fetch(cx.memory.node(level, index), &mut self.node);
            let (bytes, code) = self.node.split_at(NODE - TAG);
            let genuine = cx.cipher.node_code(level, index, counter, bytes).to_le_bytes() == *code;
            if !genuine && cx.checks.on() {
                return Err(Loss::Node { level, index });
            }
            let to = &mut self.levels[level].counters[counters];
            for (to, from) in to.iter_mut().zip(bytes.as_chunks().0) {
                *to = u64::from_le_bytes(*from);
            }
        }
        self.levels[level].lines[line] = Line { node: Some(index), dirty: false };
        Ok(line)
    }

    /// Empties a line, writing its node to DRAM if it was changed.
    fn evict(&mut self, cx: &mut Context<'_>, level: usize, line: usize) -> Result<(), Loss> {
        let Line { node, dirty } = std::mem::take(&mut self.levels[level].lines[line]);
        let (Some(index), true) = (node, dirty) else { return Ok(()) };
        let above = self.above(cx, level, index)?;
        *above += 1;
        let counter = *above;
        if level + 1 < self.levels.len() {
            let line = self.line(level + 1, index / FAN);
            self.levels[level + 1].lines[line].dirty = true;
        }
        self.stored += u64::from(counter == 1);
        let counters = &self.levels[level].counters[line * FANOUT..][..FANOUT];
        let (bytes, code) = self.node.split_at_mut(NODE - TAG);
        for (to, from) in bytes.as_chunks_mut().0.iter_mut().zip(counters) {
            *to = from.to_le_bytes();
        }
        code.copy_from_slice(&cx.cipher.node_code(level, index, counter, bytes).to_le_bytes());
        cx.memory.store(cx.memory.node(level, index), &self.node);
        Ok(())
    }

    /// The counter above a node, on the processor.
    fn above(&mut self, cx: &mut Context<'_>, level: usize, index: u32) -> Result<&mut u64, Loss> {
        if level + 1 == self.levels.len() {
            return Ok(&mut self.root[index as usize]);
        }
        let line = self.load(cx, level + 1, index / FAN)?;
        Ok(&mut self.levels[level + 1].counters[line * FANOUT + (index % FAN) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(pages: u32, lines: u32) -> (Tree, Cipher, Memory) {
        let memory = Memory::new(pages).unwrap();
        (Tree::new(&memory, lines).unwrap(), Cipher::new().unwrap(), memory)
    }

    macro_rules! cx {
        ($cipher:expr, $memory:expr) => {
            &mut Context { cipher: &$cipher, memory: &mut $memory, checks: Checks::ON }
        };
    }

    #[test]
    fn words() {
        let word = Word(0);
        assert!(!word.present() && !word.stored());
        let word = word.next();
        assert!(word.present() && word.stored() && word.version() == 1);
        assert!(!word.absent().present() && word.absent().stored());
        assert_eq!(word.absent().next().version(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// One line per level, so that every step goes to DRAM and back.
        #[test]
        fn a_map_of_words(steps in proptest::collection::vec((0u32..200_000, any::<bool>()), 1..200)) {
            let (mut tree, cipher, mut memory) = tree(200_000, 1);
            let mut model = std::collections::HashMap::new();
            for (page, set) in steps {
                let page = page * 7919 % 200_000;
                let word = tree.word(cx!(cipher, memory), page).unwrap();
                prop_assert_eq!(word, *model.get(&page).unwrap_or(&Word(0)));
                if set {
                    tree.set_word(cx!(cipher, memory), page, word.next()).unwrap();
                    model.insert(page, word.next());
                }
            }
            for (page, word) in model {
                prop_assert_eq!(tree.word(cx!(cipher, memory), page).unwrap(), word);
            }
        }
    }

    /// Each bit of the nodes above a page, and an older state of each level and
    /// of all of them.
    #[test]
    fn every_change_and_every_older_state_is_found() {
        const PAGE_NUMBER: u32 = 77_777;
        let (mut tree, cipher, mut memory) = tree(3 << 20, 4);
        assert_eq!(tree.levels.len(), 3);
        let node = |memory: &Memory, level: usize| {
            let index = PAGE_NUMBER / FAN.pow(level as u32 + 1);
            (memory.node(level, index), Loss::Node { level, index })
        };
        let read = |memory: &Memory, level| {
            let mut bytes = vec![0; NODE];
            memory.fetch(node(memory, level).0, &mut bytes);
            bytes
        };
        let set = |tree: &mut Tree, memory: &mut Memory| {
            let word = tree.word(cx!(cipher, *memory), PAGE_NUMBER).unwrap();
            tree.set_word(cx!(cipher, *memory), PAGE_NUMBER, word.next()).unwrap();
            tree.flush(cx!(cipher, *memory), PAGE_NUMBER).unwrap();
        };
        set(&mut tree, &mut memory);
        // With nothing of the path on the processor, as after a while.
        let word = |tree: &mut Tree, memory: &mut Memory| {
            tree.flush(cx!(cipher, *memory), PAGE_NUMBER).unwrap();
            tree.word(cx!(cipher, *memory), PAGE_NUMBER)
        };
        let old: Vec<_> = (0..3).map(|level| read(&memory, level)).collect();
        set(&mut tree, &mut memory);
        let new: Vec<_> = (0..3).map(|level| read(&memory, level)).collect();
        assert_eq!(tree.stored(), 3);

        for level in 0..3 {
            let (at, loss) = node(&memory, level);
            for bit in (0..NODE * 8).step_by(61) {
                let mut bytes = new[level].clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                memory.store(at, &bytes);
                assert_eq!(word(&mut tree, &mut memory), Err(loss));
            }
            memory.store(at, &old[level]);
            assert_eq!(word(&mut tree, &mut memory), Err(loss));
            memory.store(at, &new[level]);
        }
        for (level, old) in old.iter().enumerate() {
            memory.store(node(&memory, level).0, old);
        }
        let top = node(&memory, 2).1;
        assert_eq!(word(&mut tree, &mut memory), Err(top));
        for (level, new) in new.iter().enumerate() {
            memory.store(node(&memory, level).0, new);
        }
        assert_eq!(word(&mut tree, &mut memory).unwrap().version(), 2);
    }
}
