//! Looking for secrets where none may be: windows of 16 bytes, at every byte.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};

/// Bytes of a window.
pub(crate) const WINDOW: usize = 16;

/// Calls `f` with each 16 bytes of what is read, byte by byte; the bytes there were.
pub(crate) fn windows(mut source: impl Read, mut f: impl FnMut(&[u8; WINDOW])) -> u64 {
    let (mut buffer, mut kept, mut total) = (vec![0; 1 << 20], 0, 0);
    loop {
        let n = match source.read(&mut buffer[kept..]) {
            Ok(0) => return total,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => panic!("after {total} bytes: {e}"),
        };
        total += n as u64;
        let len = kept + n;
        buffer[..len].windows(WINDOW).filter_map(|window| window.try_into().ok()).for_each(&mut f);
        kept = len.min(WINDOW - 1);
        buffer.copy_within(len - kept..len, 0);
    }
}

/// Texts of which no window may be found.
pub(crate) struct Needles {
    sorted: Vec<u128>,
    /// A bit for the hash of each: of what is none, nearly all is known by one look.
    filter: Vec<u64>,
}

const FILTER_BITS: u32 = 27;

impl Needles {
    /// All windows of these texts.
    pub(crate) fn new(texts: &[&[u8]]) -> Self {
        let mut sorted = Vec::new();
        for text in texts {
            windows(*text, |window| sorted.push(u128::from_le_bytes(*window)));
        }
        sorted.sort_unstable();
        sorted.dedup();
        let mut filter = vec![0; 1 << (FILTER_BITS - 6)];
        for &window in &sorted {
            let (word, bit) = place(window);
            filter[word] |= bit;
        }
        Self { sorted, filter }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    fn has(&self, window: u128) -> bool {
        let (word, bit) = place(window);
        self.filter[word] & bit != 0 && self.sorted.binary_search(&window).is_ok()
    }
}

/// Word and bit in the filter.
fn place(window: u128) -> (usize, u64) {
    // Knuth, *The Art of Computer Programming*, vol. 3, §6.4: multiplicative hashing
    let folded = (window as u64) ^ ((window >> 64) as u64).rotate_left(29);
    let hash = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

/// What a search has found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Bytes that were looked at.
    pub(crate) bytes: u64,
    /// Windows that are one of the needles'.
    pub(crate) hits: u64,
    /// The first of them.
    pub(crate) first: Option<[u8; WINDOW]>,
}

impl Found {
    pub(crate) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.hits += other.hits;
        self.first = self.first.or(other.first);
    }
}

/// Looks for several at once in what is read.
pub(crate) fn look<const N: usize>(needles: [&Needles; N], source: impl Read) -> [Found; N] {
    let mut found = [Found::default(); N];
    let bytes = windows(source, |window| {
        let window = u128::from_le_bytes(*window);
        // what memory has most of is no needle
        if window != 0 {
            for (needles, found) in needles.iter().zip(&mut found) {
                if needles.has(window) {
                    found.hits += 1;
                    found.first.get_or_insert(window.to_le_bytes());
                }
            }
        }
    });
    found.iter_mut().for_each(|found| found.bytes = bytes);
    found
}

/// A mapping of a process, which its parent reads.
struct Mapping {
    name: String,
    start: u64,
    len: u64,
}

/// Those that may be read (*proc_pid_maps(5)*).
fn mappings(pid: u32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        let (range, allowed) = (fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let number = |hex| u64::from_str_radix(hex, 16).unwrap();
        let (start, end) = (number(start), number(end));
        let name = fields.nth(3).unwrap_or("anonymous").to_owned();
        allowed.starts_with('r').then_some(Mapping { name, start, len: end - start })
    };
    text.lines().filter_map(of).collect()
}

/// A mapping's bytes as far as the kernel gives them.
struct Bytes<'a> {
    memory: &'a mut File,
    left: u64,
    refused: u64,
}

impl Read for Bytes<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let most = (to.len() as u64).min(self.left) as usize;
        match self.memory.read(&mut to[..most]) {
            Ok(n) => {
                self.left -= n as u64;
                Ok(n)
            }
            Err(_) => {
                self.refused = std::mem::take(&mut self.left);
                Ok(0)
            }
        }
    }
}

/// What there is to be found in a process that is a machine.
pub(crate) struct Process<const N: usize> {
    /// In the guest's memory.
    pub(crate) guest: [Found; N],
    /// In all the rest.
    pub(crate) rest: [Found; N],
    /// Mappings that the kernel does not read for others, with the bytes of each.
    pub(crate) closed: Vec<(String, u64)>,
}

/// Looks through a process; the guest's memory is the mapping which has these bytes
/// there.
pub(crate) fn process<const N: usize>(needles: [&Needles; N], pid: u32, guest: (u64, &[u8])) -> Process<N> {
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let none = [Found::default(); N];
    let mut all = Process { guest: none, rest: none, closed: Vec::new() };
    for Mapping { name, start, len } in mappings(pid) {
        let (at, wanted) = guest;
        let mut there = vec![0; wanted.len()];
        let is_guest = len > at + wanted.len() as u64
            && memory.seek(SeekFrom::Start(start + at)).is_ok()
            && memory.read_exact(&mut there).is_ok()
            && there == wanted;
        memory.seek(SeekFrom::Start(start)).unwrap();
        let mut bytes = Bytes { memory: &mut memory, left: len, refused: 0 };
        let found = look(needles, &mut bytes);
        if bytes.refused != 0 {
            all.closed.push((name, bytes.refused));
        }
        let part = if is_guest { &mut all.guest } else { &mut all.rest };
        part.iter_mut().zip(&found).for_each(|(sum, found)| sum.add(found));
    }
    all
}
