//! Hostile kernel files: whatever the bytes, `load` returns.
#![allow(clippy::single_range_in_vec_init)] // one RAM range is meant

mod common;

use common::*;
use proptest::prelude::*;
use std::sync::OnceLock;

fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let v = vmlinux();
        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        let block = lz4_flex::block::compress(&v);
        lz4.extend((block.len() as u32).to_le_bytes());
        lz4.extend(&block);
        lz4.extend([0; 4]);
        let zstd =
            ruzstd::encoding::compress_to_vec(v.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        let xz = {
            use std::io::Write;
            let mut w = liblzma::write::XzEncoder::new(Vec::new(), 1);
            w.write_all(&v).unwrap();
            w.finish().unwrap()
        };
        let mut all: Vec<_> =
            [gzip(&v), lz4, zstd, xz, v.clone(), b"?".to_vec()].iter().map(|p| bzimage(p)).collect();
        all.push(v);
        all
    })
}

fn attempt(file: &[u8]) {
    thread_local!(static GUEST: (Mem, boot::Layout) = guest(&[0..64 << 20]));
    GUEST.with(|(mem, layout)| {
        if let Ok(e) = boot::load(mem, file, Some(&[7; 100]), "a", layout) {
            assert!(e.kernel.0 <= e.rip && e.rip < e.kernel.1);
            assert!(e.kernel.0 >= 1 << 20 && e.kernel.1 <= 64 << 20);
            let (s, t) = e.initrd.unwrap();
            assert!(t <= e.kernel.0 || s >= e.kernel.1, "initrd over kernel");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn mutated_kernels(
        seed in 0..7usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..12),
        wide in prop::option::of((0..0x300usize, any::<u64>())),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut file = seeds()[seed].clone();
        for (at, byte, early) in edits {
            // Half of the edits go where the headers are.
            let len = if early { file.len().min(0x700) } else { file.len() };
            file[at.index(len)] = byte;
        }
        if let Some((at, word)) = wide {
            put(&mut file, at, &word.to_le_bytes());
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        attempt(&file);
    }

    #[test]
    fn random_files(mut file in prop::collection::vec(any::<u8>(), 0..4096), magic in 0..3u8) {
        match magic {
            0 if file.len() > 0x240 => {
                put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
                put(&mut file, 0x202, b"HdrS");
                put(&mut file, 0x206, &0x20fu16.to_le_bytes());
                file[0x211] |= 1;
                file[0x236] |= 1;
                file[0x1f1] &= 3;
            }
            1 if file.len() > 64 => {
                let head: Vec<u8> = vmlinux()[..24].to_vec();
                put(&mut file, 0, &head);
            }
            _ => {}
        }
        attempt(&file);
    }
}

/// The seeds themselves load, else the mutations would test nothing.
#[test]
fn seeds_load() {
    for (i, s) in seeds().iter().enumerate() {
        let (mem, layout) = guest(&[0..64 << 20]);
        boot::load(&mem, s, None, "", &layout).unwrap_or_else(|e| panic!("seed {i}: {e}"));
    }
}
