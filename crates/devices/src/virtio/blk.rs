//! Block device (*virtio 1.2 §5.2*).
//!
//! | threat | guard |
//! |---|---|
//! | sectors past the end, overflowing sums | checked arithmetic against the capacity: IOERR |
//! | writes to a read-only disk | IOERR, the back end is not asked |
//! | requests without header or status byte | IOERR where there is a status byte, else an empty completion |
//! | huge requests | more than [`MAX_DATA`] bytes: IOERR; copied in pieces of 64 KiB |
//! | unknown request types | UNSUPP |

use super::{Chain, QueueError, Queues, VirtioDevice};
use crate::bytes::read_image;
use crate::device::StateError;
use crate::pci::Class;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use vm_memory::GuestMemory;

const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

/// Bytes of a sector, in which requests count.
pub const SECTOR: u64 = 512;
/// Length of the identification string.
const ID_LEN: usize = 20;
const QUEUE: usize = 0;
const QUEUE_SIZE: u16 = 256;
/// Data segments a request may have: the queue less header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes a segment may have.
const SIZE_MAX: u32 = 256 * 1024;
/// The most data a request may carry: what SEG_MAX and SIZE_MAX allow.
pub const MAX_DATA: usize = SEG_MAX as usize * SIZE_MAX as usize;
const PIECE: usize = 64 * 1024;

/// Where the sectors are.
pub trait BlockBackend: Send {
    /// Length in bytes; what is beyond the last whole sector is not used.
    fn size(&self) -> u64;
    /// Whether writing is refused.
    fn read_only(&self) -> bool;
    /// Fills `data` from byte `offset`; the range is within [`size`](Self::size).
    ///
    /// # Errors
    /// Whatever the host says; the guest sees IOERR.
    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes `data` at byte `offset`; the range is within [`size`](Self::size).
    ///
    /// # Errors
    /// As [`BlockBackend::read_at`].
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes what was written durable.
    ///
    /// # Errors
    /// As [`BlockBackend::read_at`].
    fn flush(&mut self) -> io::Result<()>;
    /// Of copy on write: whether block `n`, of 4096 bytes, is not that of what is shared.
    fn holds(&self, _n: u64) -> bool {
        false
    }
    /// Of copy on write: gives what it holds as an overlay's file, see
    /// [`OverlayBackend::held`](super::overlay::OverlayBackend::held), in whole pages: offset in the
    /// file, ascending, and bytes. What is left out is zeros.
    ///
    /// # Errors
    /// As [`BlockBackend::read_at`], and those of `each`.
    fn save(&mut self, _each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        Ok(())
    }
}

impl BlockBackend for Box<dyn BlockBackend> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_only(&self) -> bool {
        (**self).read_only()
    }
    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, data)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, data)
    }
    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
    fn holds(&self, n: u64) -> bool {
        (**self).holds(n)
    }
    fn save(&mut self, each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        (**self).save(each)
    }
}

/// A raw image file or a host block device.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
    size: u64,
    read_only: bool,
}

impl FileBackend {
    /// Sectors in `file`, as long as it is now.
    ///
    /// # Errors
    /// If the length cannot be found out.
    pub fn new(mut file: File, read_only: bool) -> io::Result<Self> {
        // a host block device has no length in its metadata
        let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        Ok(Self { file, size, read_only })
    }
}

impl BlockBackend for FileBackend {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Sectors in host memory, lost with the process.
impl BlockBackend for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|o| self.get(o..o.checked_add(data.len())?));
        data.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|o| self.get_mut(o..o.checked_add(data.len())?));
        range.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The block device.
pub struct Block<B: BlockBackend> {
    backend: B,
    id: [u8; ID_LEN],
    capacity: u64,
    write_back: bool,
    buf: Vec<u8>,
}

impl<B: BlockBackend> Block<B> {
    /// A disk on `backend`; `id` (cut to 20 bytes) is its serial number, as in
    /// `/sys/block/*/serial`.
    pub fn new(backend: B, id: &str) -> Self {
        let mut serial = [0; ID_LEN];
        let n = id.len().min(ID_LEN);
        serial[..n].copy_from_slice(&id.as_bytes()[..n]);
        Self {
            capacity: backend.size() / SECTOR,
            backend,
            id: serial,
            write_back: false,
            buf: vec![0; PIECE],
        }
    }

    /// The back end.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The same, to be changed beside the guest.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Byte offset of `len` bytes at `sector`, if they are on the disk.
    fn range(&self, sector: u64, len: usize) -> Option<u64> {
        let len = len as u64;
        let end = sector.checked_add(len.div_ceil(SECTOR))?;
        (len.is_multiple_of(SECTOR) && len <= MAX_DATA as u64 && end <= self.capacity)
            .then_some(sector.wrapping_mul(SECTOR))
    }

    /// Handles one request; returns how many bytes were written to the guest.
    fn request<M: GuestMemory>(&mut self, mem: &M, chain: Chain<'_, M>) -> u32 {
        let chain = chain.clone();
        let (Ok(mut reader), Ok(mut data)) = (chain.clone().reader(mem), chain.writer(mem)) else {
            // a buffer outside memory: where the status would go is unknown
            return 0;
        };
        let writable = data.available_bytes();
        let Some(room) = writable.checked_sub(1) else {
            return 0;
        };
        let Ok(mut status) = data.split_at(room) else {
            return 0;
        };
        let mut header = [0; 16];
        let result = match reader.read_exact(&mut header) {
            Err(_) => Err(S_IOERR),
            Ok(()) => {
                let [k0, k1, k2, k3, _, _, _, _, s @ ..] = header;
                let sector = u64::from_le_bytes(s);
                match u32::from_le_bytes([k0, k1, k2, k3]) {
                    T_IN => self.read(sector, room, &mut data),
                    T_OUT => {
                        let len = reader.available_bytes();
                        self.write(sector, len, &mut reader)
                    }
                    T_FLUSH => self.backend.flush().map_err(|_| S_IOERR),
                    T_GET_ID => {
                        let n = room.min(ID_LEN);
                        data.write_all(&self.id[..n]).map_err(|_| S_IOERR)
                    }
                    _ => Err(S_UNSUPP),
                }
            }
        };
        let code = result.err().unwrap_or(S_OK);
        let status_len = status.write(&[code]).unwrap_or(0);
        (data.bytes_written() + status_len) as u32
    }

    fn read(&mut self, sector: u64, len: usize, out: &mut impl Write) -> Result<(), u8> {
        let mut offset = self.range(sector, len).ok_or(S_IOERR)?;
        let mut left = len;
        while left > 0 {
            let piece = &mut self.buf[..left.min(PIECE)];
            self.backend.read_at(offset, piece).map_err(|_| S_IOERR)?;
            out.write_all(piece).map_err(|_| S_IOERR)?;
            offset += piece.len() as u64;
            left -= piece.len();
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, len: usize, from: &mut impl Read) -> Result<(), u8> {
        let mut offset = self.range(sector, len).ok_or(S_IOERR)?;
        if self.backend.read_only() {
            return Err(S_IOERR);
        }
        let mut left = len;
        while left > 0 {
            let piece = &mut self.buf[..left.min(PIECE)];
            from.read_exact(piece).map_err(|_| S_IOERR)?;
            self.backend.write_at(offset, piece).map_err(|_| S_IOERR)?;
            offset += piece.len() as u64;
            left -= piece.len();
        }
        if !self.write_back {
            // a driver that cannot flush expects write-through (§5.2.6.2)
            self.backend.flush().map_err(|_| S_IOERR)?;
        }
        Ok(())
    }
}

impl<B: BlockBackend> VirtioDevice for Block<B> {
    type State = ();

    fn device_type(&self) -> u16 {
        2
    }

    fn class(&self) -> Class {
        Class { base: 1, sub: 0x80, interface: 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        let ro = if self.backend.read_only() { F_RO } else { 0 };
        F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | ro
    }

    fn activate(&mut self, features: u64) {
        self.write_back = features & F_FLUSH != 0;
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_blk_config up to blk_size
        let mut config = [0; 24];
        config[0..8].copy_from_slice(&self.capacity.to_le_bytes());
        config[8..12].copy_from_slice(&SIZE_MAX.to_le_bytes());
        config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
        config[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        read_image(&config, offset, data, 0xff);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process<M: GuestMemory>(
        &mut self,
        _queue: usize,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        for _ in 0..queues.available(QUEUE)? {
            let Some(chain) = queues.pop(QUEUE)? else {
                break;
            };
            let head = chain.head_index();
            let len = self.request(queues.mem(), chain);
            queues.complete(QUEUE, head, len)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.write_back = false;
    }

    /// What was negotiated is in the transport's state, the sectors are the
    /// back end's.
    fn save(&self) {}

    fn load(&mut self, _state: ()) -> Result<(), StateError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::driver::{Buf, Guest, virtio_device_tests};

    const SECTORS: usize = 64;

    fn disk() -> Block<Vec<u8>> {
        let data = (0..SECTORS * 512).map(|i| (i / 512 * 7 + i) as u8).collect();
        Block::new(data, "kluis0")
    }

    virtio_device_tests!(every_device, || Guest::new(disk()));

    type G<B> = Guest<Block<B>>;

    /// One request; returns status byte (0xee: untouched) and used length.
    fn submit<B: BlockBackend>(g: &mut G<B>, kind: u32, sector: u64, bufs: &[Buf]) -> (u8, u32) {
        let (header, status) = (g.alloc(16), g.alloc(1));
        let mut h = [0; 16];
        h[..4].copy_from_slice(&kind.to_le_bytes());
        h[8..].copy_from_slice(&sector.to_le_bytes());
        g.poke(header, &h);
        g.poke(status, &[0xee]);
        let mut all = vec![Buf::In(header, 16)];
        all.extend_from_slice(bufs);
        all.push(Buf::Out(status, 1));
        g.add(0, &all);
        g.notify(0);
        let used = g.used(0);
        assert_eq!(used.len(), 1);
        (g.peek(status, 1)[0], used[0].1)
    }

    fn started<B: BlockBackend>(b: Block<B>) -> G<B> {
        let mut g = Guest::new(b);
        g.start(F_FLUSH);
        g
    }

    #[test]
    fn configuration_says_capacity_and_limits() {
        let g = Guest::new(disk());
        assert_eq!(g.device_config(0, 8), SECTORS as u64);
        assert_eq!(g.device_config(12, 4), 254);
        assert_eq!(g.device_config(20, 4), 512);
        assert_eq!(g.device_config(24, 4), 0xffff_ffff);
    }

    #[test]
    fn reads_and_writes_sectors() {
        let mut g = started(disk());
        let (a, b) = (g.alloc(512), g.alloc(1024));
        assert_eq!(submit(&mut g, T_IN, 3, &[Buf::Out(a, 512), Buf::Out(b, 1024)]), (S_OK, 1537));
        let image = g.device().backend().clone();
        assert_eq!(g.peek(a, 512), image[3 * 512..4 * 512]);
        assert_eq!(g.peek(b, 1024), image[4 * 512..6 * 512]);
        g.poke(b, &[0xab; 1024]);
        assert_eq!(submit(&mut g, T_OUT, 62, &[Buf::In(b, 1024)]), (S_OK, 1));
        assert_eq!(g.device().backend()[62 * 512..], [0xab; 1024]);
        assert_eq!(submit(&mut g, T_FLUSH, 0, &[]), (S_OK, 1));
    }

    #[test]
    fn bad_requests_are_answered_not_carried_out() {
        let mut g = started(disk());
        let before = g.device().backend().clone();
        let a = g.alloc(1024);
        for (kind, sector, buf, status) in [
            (T_IN, 64, Buf::Out(a, 512), S_IOERR),
            (T_IN, 63, Buf::Out(a, 1024), S_IOERR),
            (T_IN, u64::MAX, Buf::Out(a, 512), S_IOERR),
            (T_IN, 1 << 55, Buf::Out(a, 512), S_IOERR),
            (T_IN, 0, Buf::Out(a, 100), S_IOERR),
            (T_OUT, 64, Buf::In(a, 512), S_IOERR),
            (T_OUT, 0, Buf::In(a, 511), S_IOERR),
            (11, 0, Buf::In(a, 512), S_UNSUPP),
            (u32::MAX, 0, Buf::Out(a, 512), S_UNSUPP),
        ] {
            assert_eq!(submit(&mut g, kind, sector, &[buf]).0, status, "{kind} {sector}");
        }
        assert_eq!(*g.device().backend(), before);
        assert!(!g.needs_reset());
    }

    #[test]
    fn requests_without_header_status_or_memory_are_survived() {
        let mut g = started(disk());
        let a = g.alloc(512);
        g.add(0, &[Buf::In(a, 8), Buf::Out(a + 16, 1)]); // short header
        g.add(0, &[Buf::In(a, 16)]); // no status
        g.add(0, &[Buf::In(a, 16), Buf::Out(1 << 40, 512)]); // no such memory
        g.add(0, &[Buf::In(a, 16), Buf::Out(a, 0xffff_ffff)]);
        g.notify(0);
        let used: Vec<u32> = g.used(0).iter().map(|u| u.1).collect();
        assert_eq!(used, [1, 0, 0, 0]);
        assert_eq!(g.peek(a + 16, 1), [S_IOERR]);
        assert!(!g.needs_reset());
    }

    #[test]
    fn serial_number() {
        let mut g = started(disk());
        let a = g.alloc(20);
        assert_eq!(submit(&mut g, T_GET_ID, 0, &[Buf::Out(a, 20)]), (S_OK, 21));
        assert_eq!(&g.peek(a, 20)[..8], b"kluis0\0\0");
    }

    #[test]
    fn file_backend_reads_writes_and_refuses() {
        let path = std::env::temp_dir().join(format!("devices-blk-{}", std::process::id()));
        std::fs::write(&path, vec![1u8; 2048 + 100]).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();

        let mut g = started(Block::new(FileBackend::new(open(), false).unwrap(), "f"));
        assert_eq!(g.device_config(0, 8), 4, "whole sectors only");
        assert_eq!(g.offered() & F_RO, 0);
        let a = g.alloc(512);
        g.poke(a, &[9; 512]);
        assert_eq!(submit(&mut g, T_OUT, 1, &[Buf::In(a, 512)]).0, S_OK);
        assert_eq!(submit(&mut g, T_FLUSH, 0, &[]).0, S_OK);
        assert_eq!(std::fs::read(&path).unwrap()[512..1024], [9; 512]);

        // the tail past the last whole sector is no sector, and a file does
        // not grow
        assert_eq!(submit(&mut g, T_OUT, 4, &[Buf::In(a, 512)]).0, S_IOERR);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2148);

        let mut g = started(Block::new(FileBackend::new(open(), true).unwrap(), "f"));
        assert_ne!(g.offered() & F_RO, 0);
        let a = g.alloc(512);
        assert_eq!(submit(&mut g, T_OUT, 1, &[Buf::In(a, 512)]).0, S_IOERR);
        assert_eq!(submit(&mut g, T_IN, 1, &[Buf::Out(a, 512)]).0, S_OK);
        assert_eq!(g.peek(a, 512), [9; 512]);
        // the file shrinks under the disk: an I/O error, no panic
        open().set_len(512).unwrap();
        assert_eq!(submit(&mut g, T_IN, 1, &[Buf::Out(a, 512)]).0, S_IOERR);
        std::fs::remove_file(&path).unwrap();
    }
}
