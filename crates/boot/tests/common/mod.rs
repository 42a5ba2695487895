//! Synthetic kernels and a guest to load them into.
#![allow(dead_code)]

use boot::Layout;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub(crate) type Mem = GuestMemoryMmap<()>;

pub(crate) fn guest(ram: &[Range<u64>]) -> (Mem, Layout) {
    let ranges: Vec<_> = ram.iter().map(|r| (GuestAddress(r.start), (r.end - r.start) as usize)).collect();
    (Mem::from_ranges(&ranges).unwrap(), Layout::new(ram.to_vec(), vec![]))
}

pub(crate) fn bytes(mem: &Mem, at: u64, len: usize) -> Vec<u8> {
    let mut v = vec![0; len];
    mem.read_slice(&mut v, GuestAddress(at)).unwrap();
    v
}

pub(crate) fn u64_at(mem: &Mem, at: u64) -> u64 {
    mem.read_obj(GuestAddress(at)).unwrap()
}

pub(crate) fn u32_at(mem: &Mem, at: u64) -> u32 {
    mem.read_obj(GuestAddress(at)).unwrap()
}

pub(crate) struct Seg<'a> {
    pub(crate) paddr: u64,
    pub(crate) data: &'a [u8],
    pub(crate) memsz: u64,
}

pub(crate) fn put(v: &mut [u8], at: usize, b: &[u8]) {
    v[at..at + b.len()].copy_from_slice(b);
}

/// An x86-64 ELF executable with the given segments.
pub(crate) fn elf(entry: u64, segs: &[Seg]) -> Vec<u8> {
    let mut v = vec![0; 64 + 56 * segs.len()];
    put(&mut v, 0, b"\x7fELF\x02\x01\x01");
    put(&mut v, 16, &2u16.to_le_bytes());
    put(&mut v, 18, &62u16.to_le_bytes());
    put(&mut v, 24, &entry.to_le_bytes());
    put(&mut v, 32, &64u64.to_le_bytes());
    put(&mut v, 54, &56u16.to_le_bytes());
    put(&mut v, 56, &(segs.len() as u16).to_le_bytes());
    for (i, s) in segs.iter().enumerate() {
        let p = 64 + 56 * i;
        let offset = v.len() as u64;
        put(&mut v, p, &1u32.to_le_bytes());
        put(&mut v, p + 8, &offset.to_le_bytes());
        put(&mut v, p + 16, &(s.paddr + 0xffff_ffff_8000_0000).to_le_bytes());
        put(&mut v, p + 24, &s.paddr.to_le_bytes());
        put(&mut v, p + 32, &(s.data.len() as u64).to_le_bytes());
        put(&mut v, p + 40, &s.memsz.to_le_bytes());
        v.extend_from_slice(s.data);
    }
    v
}

pub(crate) const KERNEL: u64 = 0x100_0000;

/// A small `vmlinux` at 16 MiB with some `.bss`.
pub(crate) fn vmlinux() -> Vec<u8> {
    let text: Vec<u8> = (0..0x3000u32).map(|i| (i % 251) as u8).collect();
    elf(
        KERNEL + 0x10,
        &[
            Seg { paddr: KERNEL, data: &text, memsz: 0x3000 },
            Seg { paddr: KERNEL + 0x20_0000, data: b"data", memsz: 0x5000 },
        ],
    )
}

/// A bzImage of protocol 2.15 with 2 setup sectors around `payload`.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let setup = 3 * 512;
    let mut v = vec![0; setup + 0x400];
    v[0x1f1] = 2;
    put(&mut v, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut v, 0x202, b"HdrS");
    put(&mut v, 0x206, &0x20fu16.to_le_bytes());
    v[0x211] = 0x83;
    put(&mut v, 0x214, &0x10_0000u32.to_le_bytes());
    put(&mut v, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut v, 0x230, &0x20_0000u32.to_le_bytes());
    v[0x234] = 1;
    put(&mut v, 0x236, &0x7fu16.to_le_bytes());
    put(&mut v, 0x238, &2047u32.to_le_bytes());
    put(&mut v, 0x248, &0x400u32.to_le_bytes());
    put(&mut v, 0x24c, &(payload.len() as u32).to_le_bytes());
    put(&mut v, 0x250, &0xdead_beefu64.to_le_bytes());
    put(&mut v, 0x258, &KERNEL.to_le_bytes());
    put(&mut v, 0x260, &0x40_0000u32.to_le_bytes());
    for (i, b) in v[0x26c..0x290].iter_mut().enumerate() {
        *b = 0xa0 + i as u8; // what follows the declared header
    }
    v.extend_from_slice(payload);
    v.extend_from_slice(&[0x5a; 64]);
    v
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    w.write_all(data).unwrap();
    w.finish().unwrap()
}
