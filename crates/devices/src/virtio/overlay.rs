//! Sectors that are shared and not to be changed, with what one machine wrote
//! beside them: copy on write.
//!
//! The overlay is one file, all numbers little-endian:
//!
//! | from | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `KLUISOVL` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | bytes of a block, 4096 |
//! | 16 | 8 | length of the disk in bytes |
//! | 24 | 32 | identity of the base |
//! | 4096 | blocks ÷ 8, filled up to a block | map: bit *n* mod 8 of byte *n* ÷ 8 says that block *n* is here |
//! | then | length of the disk, filled up | the blocks, each in its place; the file is sparse |
//!
//! A block is written before its bit, and the bit only when the guest flushes, after
//! the blocks are durable: whatever interrupts a machine, a bit that is set has its
//! block, and what was flushed is there.
//!
//! | threat (the file is from elsewhere) | guard |
//! |---|---|
//! | another format, version or block size; a base that is another or has changed | [`OverlayError`] |
//! | a file cut short | refused when it is opened; later an I/O error for the guest |
//! | a length that takes memory without end | at most [`MAX_SIZE`] |
//! | bits past the end | are never looked at |

use super::blk::BlockBackend;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: &[u8; 8] = b"KLUISOVL";
const VERSION: u32 = 1;
/// Bytes of a block: those of a page and of most file systems' blocks, so that
/// writing rarely needs what was there before.
const BLOCK: u64 = 4096;
const HEADER: u64 = BLOCK;
/// The longest disk, in bytes; its map takes 64 MiB.
pub const MAX_SIZE: u64 = 2 << 40;

/// Why a file is no overlay of this base.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Reading or writing it failed.
    #[error("cannot use it: {0}")]
    Io(#[from] io::Error),
    /// Its first bytes are not an overlay's.
    #[error("is no overlay of this version of Kluis; name another file")]
    Format,
    /// It was made for another disk.
    #[error("belongs to another disk, or its disk has changed since; use it with the image it was made on")]
    Base,
    /// Bytes are missing at its end.
    #[error("is cut short: it has {len} bytes of {whole}; restore it from a copy")]
    Short {
        /// Bytes there are.
        len: u64,
        /// Bytes there should be.
        whole: u64,
    },
    /// The disk is too long.
    #[error("cannot be: a disk of {0} bytes is too long for it")]
    TooLong(u64),
}

/// Where things are in the file.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Length of the disk.
    size: u64,
    /// First byte of the blocks.
    data: u64,
}

impl Layout {
    fn new(size: u64) -> Result<Self, OverlayError> {
        if size > MAX_SIZE {
            return Err(OverlayError::TooLong(size));
        }
        let map = size.div_ceil(BLOCK).div_ceil(8).next_multiple_of(BLOCK);
        Ok(Self { size, data: HEADER + map })
    }

    fn map_len(self) -> usize {
        (self.data - HEADER) as usize
    }

    fn file_len(self) -> u64 {
        self.data + self.size.next_multiple_of(BLOCK)
    }
}

/// Which base an overlay belongs to.
///
/// # Errors
/// The file cannot be read or is no overlay.
pub fn base_of(file: &File) -> Result<[u8; 32], OverlayError> {
    base_at(file, 0)
}

fn base_at(file: &File, start: u64) -> Result<[u8; 32], OverlayError> {
    let mut header = [0; 56];
    file.read_exact_at(&mut header, start).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => OverlayError::Format,
        _ => OverlayError::Io(e),
    })?;
    let (known, rest) = header.split_at(16);
    if known != known_start() {
        return Err(OverlayError::Format);
    }
    let mut base = [0; 32];
    base.copy_from_slice(&rest[8..]);
    Ok(base)
}

fn known_start() -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    out
}

/// Bytes of the overlay's file for a disk of `size` bytes.
///
/// # Errors
/// The disk is too long.
pub fn file_len(size: u64) -> Result<u64, OverlayError> {
    Ok(Layout::new(size)?.file_len())
}

/// The first page of the file.
fn header(size: u64, identity: &[u8; 32]) -> [u8; HEADER as usize] {
    let mut out = [0; HEADER as usize];
    out[..16].copy_from_slice(&known_start());
    out[16..24].copy_from_slice(&size.to_le_bytes());
    out[24..56].copy_from_slice(identity);
    out
}

/// A base that is only read, and an overlay that takes the writes.
#[derive(Debug)]
pub struct OverlayBackend<B> {
    base: B,
    identity: [u8; 32],
    file: File,
    /// Where the overlay begins in the file.
    start: u64,
    /// Nobody writes to it any more.
    held: bool,
    layout: Layout,
    map: Vec<u8>,
    /// Blocks of the map, as of the file, that are newer here than there.
    stale: Vec<bool>,
    /// Whether anybody will read the file after this machine.
    kept: bool,
}

impl<B: BlockBackend> OverlayBackend<B> {
    /// The overlay in `file`, which is made one if it is empty. `identity` tells
    /// `base` from every other; unless `kept`, the file is not made durable.
    ///
    /// # Errors
    /// [`OverlayError`].
    pub fn new(base: B, identity: &[u8; 32], file: File, kept: bool) -> Result<Self, OverlayError> {
        let layout = Layout::new(base.size())?;
        let len = file.metadata()?.len();
        let mut map = vec![0; layout.map_len()];
        if len == 0 {
            file.set_len(layout.file_len())?;
            file.write_all_at(&header(layout.size, identity), 0)?;
            if kept {
                file.sync_all()?;
            }
        } else {
            map = read_map(&file, 0, len, identity, layout)?;
        }
        let stale = vec![false; map.len() / BLOCK as usize];
        let identity = *identity;
        Ok(Self { base, identity, file, start: 0, held: false, layout, map, stale, kept })
    }

    /// One that is only read, and lies in `file` from byte `start` on: what
    /// [`BlockBackend::save`] gave. Put another above it.
    ///
    /// # Errors
    /// [`OverlayError`].
    pub fn held(base: B, identity: &[u8; 32], file: File, start: u64) -> Result<Self, OverlayError> {
        let layout = Layout::new(base.size())?;
        let len = file.metadata()?.len().saturating_sub(start);
        let map = read_map(&file, start, len, identity, layout)?;
        let identity = *identity;
        Ok(Self { base, identity, file, start, held: true, layout, map, stale: Vec::new(), kept: false })
    }

    fn is_here(&self, block: u64) -> bool {
        self.map.get((block / 8) as usize).is_some_and(|byte| byte & 1 << (block % 8) != 0)
    }

    /// Where a byte of the disk is in the file, if it is there.
    fn place(&self, offset: u64) -> u64 {
        self.start + self.layout.data + offset
    }

    fn note(&mut self, block: u64) {
        let byte = (block / 8) as usize;
        self.map[byte] |= 1 << (block % 8);
        self.stale[byte / BLOCK as usize] = true;
    }

    /// Cuts a range, which is on the disk, into parts that are all here or all not,
    /// and calls `each` with offset and bytes of each.
    fn runs(&self, offset: u64, len: usize) -> impl Iterator<Item = (bool, u64, usize)> {
        let end = offset + len as u64;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (start, here) = (at, self.is_here(at / BLOCK));
            while at < end && self.is_here(at / BLOCK) == here {
                at = (at / BLOCK + 1) * BLOCK;
            }
            at = at.min(end);
            Some((here, start, (at - start) as usize))
        })
    }

    /// Brings a block of the base here, since only a part of it is to be written.
    fn bring(&mut self, block: u64) -> io::Result<()> {
        if self.is_here(block) {
            return Ok(());
        }
        let at = block * BLOCK;
        let len = BLOCK.min(self.layout.size - at) as usize;
        let mut old = [0; BLOCK as usize];
        self.base.read_at(at, &mut old[..len])?;
        self.file.write_all_at(&old[..len], self.place(at))?;
        self.note(block);
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        if end.is_some_and(|end| end <= self.layout.size) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<B: BlockBackend> BlockBackend for OverlayBackend<B> {
    fn size(&self) -> u64 {
        self.layout.size
    }

    fn read_only(&self) -> bool {
        self.held
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        let runs: Vec<_> = self.runs(offset, data.len()).collect();
        let mut rest = data;
        for (here, at, len) in runs {
            let (part, later) = rest.split_at_mut(len);
            if here {
                self.file.read_exact_at(part, self.place(at))?;
            } else {
                self.base.read_at(at, part)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        if self.held {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let end = offset + data.len() as u64;
        let Some(last) = end.checked_sub(1).filter(|_| !data.is_empty()) else { return Ok(()) };
        if !offset.is_multiple_of(BLOCK) {
            self.bring(offset / BLOCK)?;
        }
        if !end.is_multiple_of(BLOCK) && end != self.layout.size {
            self.bring(last / BLOCK)?;
        }
        self.file.write_all_at(data, self.place(offset))?;
        (offset / BLOCK..=last / BLOCK).for_each(|block| self.note(block));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.kept {
            return Ok(());
        }
        self.file.sync_data()?;
        let mut wrote = false;
        for (piece, stale) in self.stale.iter_mut().enumerate().filter(|(_, stale)| **stale) {
            let at = piece * BLOCK as usize;
            self.file.write_all_at(&self.map[at..at + BLOCK as usize], HEADER + at as u64)?;
            (*stale, wrote) = (false, true);
        }
        if wrote { self.file.sync_data() } else { Ok(()) }
    }

    fn holds(&self, n: u64) -> bool {
        self.is_here(n) || self.base.holds(n)
    }

    fn save(&mut self, each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let Layout { size, data } = self.layout;
        each(0, &header(size, &self.identity))?;
        let blocks = size.div_ceil(BLOCK);
        // blocks whose bits are in one page of the map
        let page = 8 * BLOCK;
        for first in (0..blocks).step_by(page as usize) {
            let mut map = [0; BLOCK as usize];
            for n in (first..blocks.min(first + page)).filter(|n| self.holds(*n)) {
                map[((n - first) / 8) as usize] |= 1 << (n % 8);
            }
            if map != [0; BLOCK as usize] {
                each(HEADER + first / 8, &map)?;
            }
        }
        let mut block = [0; BLOCK as usize];
        for n in 0..blocks {
            if !self.holds(n) {
                continue;
            }
            let len = BLOCK.min(size - n * BLOCK) as usize;
            self.read_at(n * BLOCK, &mut block[..len])?;
            block[len..].fill(0);
            each(data + n * BLOCK, &block)?;
        }
        Ok(())
    }
}

/// The map of an overlay of `len` bytes, which must be `identity`'s.
fn read_map(
    file: &File,
    start: u64,
    len: u64,
    identity: &[u8; 32],
    layout: Layout,
) -> Result<Vec<u8>, OverlayError> {
    let mut size = [0; 8];
    if base_at(file, start)? != *identity {
        return Err(OverlayError::Base);
    }
    file.read_exact_at(&mut size, start + 16)?;
    if u64::from_le_bytes(size) != layout.size {
        return Err(OverlayError::Base);
    }
    if len < layout.file_len() {
        return Err(OverlayError::Short { len, whole: layout.file_len() });
    }
    let mut map = vec![0; layout.map_len()];
    file.read_exact_at(&mut map, start + HEADER)?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 40 * 4096 + 1536;
    const ID: [u8; 32] = [9; 32];

    fn base() -> Vec<u8> {
        (0..SIZE).map(|i| (i / 512 * 3 + i) as u8).collect()
    }

    /// A file without a name, and another handle of it.
    fn file() -> (File, File) {
        let path = std::env::temp_dir().join(format!(
            "devices-overlay-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (file.try_clone().unwrap(), file)
    }

    fn open(file: &File) -> Result<OverlayBackend<Vec<u8>>, OverlayError> {
        OverlayBackend::new(base(), &ID, file.try_clone().unwrap(), true)
    }

    fn all(overlay: &mut OverlayBackend<Vec<u8>>) -> Vec<u8> {
        let mut data = vec![0; SIZE];
        overlay.read_at(0, &mut data).unwrap();
        data
    }

    #[test]
    fn any_writes_read_back_over_an_unchanged_base() {
        let (kept, handle) = file();
        let mut overlay = open(&handle).unwrap();
        let mut model = base();
        let mut x = 1u64;
        let mut next = |below: usize| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) as usize % below
        };
        for round in 0..300 {
            let at = next(SIZE);
            let len = next((SIZE - at).min(9000) + 1);
            let data = vec![round as u8; len];
            overlay.write_at(at as u64, &data).unwrap();
            model[at..at + len].copy_from_slice(&data);
            let (at, len) = (next(SIZE / 2), next(SIZE / 2));
            let mut part = vec![0; len];
            overlay.read_at(at as u64, &mut part).unwrap();
            assert!(part == model[at..at + len], "round {round}");
            if round % 50 == 0 {
                overlay.flush().unwrap();
                overlay = open(&handle).unwrap();
            }
        }
        assert!(all(&mut overlay) == model);
        assert!(overlay.base == base());
        overlay.flush().unwrap();
        assert!(all(&mut open(&kept).unwrap()) == model);
    }

    #[test]
    fn what_is_saved_is_the_same_disk_below_another_overlay() {
        let (_, handle) = file();
        let mut overlay = open(&handle).unwrap();
        overlay.write_at(5000, &[1; 9000]).unwrap();
        overlay.write_at(SIZE as u64 - 3, &[2; 3]).unwrap();
        // not in the base's first snapshot, and zeros
        overlay.write_at(32 * 4096, &[0; 4096]).unwrap();
        let mut model = all(&mut overlay);
        let save = |overlay: &mut dyn BlockBackend| {
            // somewhere in a file, beginning with something else
            let (file, handle) = file();
            let (mut last, mut pages) = (None, 0);
            overlay
                .save(&mut |at, bytes| {
                    assert!(at.is_multiple_of(4096) && bytes.len() == 4096 && Some(at) > last);
                    (last, pages) = (Some(at), pages + 1);
                    handle.write_all_at(bytes, 8192 + at)
                })
                .unwrap();
            handle.set_len(8192 + file_len(SIZE as u64).unwrap()).unwrap();
            (file, pages)
        };
        let (saved, pages) = save(&mut overlay);
        assert_eq!(pages, 1 + 1 + 5, "header, map, three blocks and a half, the last, zeros");
        // the machine that was saved goes on
        overlay.write_at(0, &[3; 512]).unwrap();

        let held = || OverlayBackend::held(base(), &ID, saved.try_clone().unwrap(), 8192);
        let mut below = held().unwrap();
        assert!(below.read_only() && below.write_at(0, &[0]).is_err());
        assert!((0..SIZE).step_by(4096).all(|at| {
            let mut block = vec![0; 4096.min(SIZE - at)];
            below.read_at(at as u64, &mut block).unwrap();
            block == model[at..at + block.len()]
        }));
        let above = |below| {
            let (_, handle) = file();
            OverlayBackend::new(below, &ID, handle, false).unwrap()
        };
        let mut two = above(below);
        two.write_at(7000, &[4; 100]).unwrap();
        two.write_at(70_000, &[5; 10]).unwrap();
        model[7000..7100].fill(4);
        model[70_000..70_010].fill(5);
        // one snapshot of both
        let (saved, pages) = save(&mut two);
        assert_eq!(pages, 8);
        let mut again = above(OverlayBackend::held(base(), &ID, saved, 8192).unwrap());
        let mut data = vec![0; SIZE];
        again.read_at(0, &mut data).unwrap();
        assert!(data == model);
        assert!(OverlayBackend::held(base(), &[1; 32], held().unwrap().file, 8192).is_err());
        assert!(OverlayBackend::held(base(), &ID, held().unwrap().file, 4096).is_err());
    }

    #[test]
    fn what_was_not_flushed_is_the_base_again() {
        let (_, handle) = file();
        let mut overlay = open(&handle).unwrap();
        overlay.write_at(8192, &[1; 4096]).unwrap();
        overlay.flush().unwrap();
        overlay.write_at(16384, &[2; 4096]).unwrap();
        drop(overlay);
        let mut model = base();
        model[8192..12288].fill(1);
        assert!(all(&mut open(&handle).unwrap()) == model);
    }

    #[test]
    fn ranges_past_the_end_are_errors() {
        let (_, handle) = file();
        let mut overlay = open(&handle).unwrap();
        for (at, len) in [(SIZE as u64, 1), (SIZE as u64 - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 4)] {
            assert!(overlay.write_at(at, &vec![0; len]).is_err());
            assert!(overlay.read_at(at, &mut vec![0; len]).is_err());
        }
        overlay.write_at(SIZE as u64, &[]).unwrap();
        overlay.write_at(SIZE as u64 - 1, &[5]).unwrap();
        assert_eq!(all(&mut overlay)[SIZE - 2..], [base()[SIZE - 2], 5]);
    }

    #[test]
    fn other_files_and_other_bases_are_refused() {
        let (_, handle) = file();
        let mut overlay = open(&handle).unwrap();
        overlay.write_at(0, &[7; 512]).unwrap();
        overlay.flush().unwrap();
        assert_eq!(base_of(&handle).unwrap(), ID);
        let other = OverlayBackend::new(base(), &[8; 32], handle.try_clone().unwrap(), true);
        assert!(matches!(other, Err(OverlayError::Base)));
        let longer = OverlayBackend::new([base(), base()].concat(), &ID, handle.try_clone().unwrap(), true);
        assert!(matches!(longer, Err(OverlayError::Base)));
        // every byte of the header counts
        for at in 0..56 {
            let mut byte = [0];
            handle.read_exact_at(&mut byte, at).unwrap();
            handle.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            assert!(open(&handle).is_err(), "byte {at}");
            handle.write_all_at(&byte, at).unwrap();
        }
        assert!(open(&handle).is_ok());
        let whole = handle.metadata().unwrap().len();
        for len in [whole - 1, 4096, 56, 10, 1] {
            handle.set_len(len).unwrap();
            let error = open(&handle).unwrap_err();
            assert!(matches!(error, OverlayError::Short { .. } | OverlayError::Format), "{len}: {error}");
        }
    }

    #[test]
    fn file_that_shrinks_under_the_machine_is_an_error() {
        let (_, handle) = file();
        let mut overlay = open(&handle).unwrap();
        overlay.write_at(4096, &[1; 8192]).unwrap();
        handle.set_len(5000).unwrap();
        assert!(overlay.read_at(4096, &mut [0; 4096]).is_err());
    }

    #[test]
    fn endless_disks_are_refused() {
        assert!(matches!(Layout::new(MAX_SIZE + 1), Err(OverlayError::TooLong(_))));
        assert_eq!(Layout::new(MAX_SIZE).unwrap().map_len(), 64 << 20);
        assert_eq!(Layout::new(0).unwrap().file_len(), HEADER);
    }
}
