//! Decompression of a bzImage's payload, bounded.
//!
//! The payload is a compressed stream of an ELF `vmlinux` (with its relocations
//! appended), followed for every format but gzip by the unpacked size in four
//! bytes; gzip has those in its own trailer (Linux `scripts/Makefile.lib`,
//! `size_append`).

use crate::BootError;
use std::fmt;
use std::io::Read;

/// Most bytes a kernel may unpack to. Debian's have about 50 MiB.
pub const MAX_UNPACKED: u64 = 512 << 20;
/// Most memory liblzma may use for its dictionary: `xz -9` takes 65 MiB, the
/// kernel's own `dict=128MiB` a little over 128 MiB.
const XZ_MEMORY: u64 = 192 << 20;
/// Unpacked size of all but the last block of a legacy LZ4 stream.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Compression of a kernel's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `CONFIG_KERNEL_GZIP`.
    Gzip,
    /// `CONFIG_KERNEL_XZ`, with the x86 BCJ filter.
    Xz,
    /// `CONFIG_KERNEL_LZMA`.
    Lzma,
    /// `CONFIG_KERNEL_ZSTD`.
    Zstd,
    /// `CONFIG_KERNEL_LZ4`: the legacy frame of `lz4 -l`.
    Lz4,
    /// `CONFIG_KERNEL_UNCOMPRESSED`: the ELF itself.
    None,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Gzip => "gzip",
            Format::Xz => "xz",
            Format::Lzma => "lzma",
            Format::Zstd => "zstd",
            Format::Lz4 => "lz4",
            Format::None => "uncompressed",
        })
    }
}

/// Recognises a compression by its magic number.
#[must_use]
pub fn detect(data: &[u8]) -> Option<Format> {
    const MAGICS: [(&[u8], Format); 6] = [
        (&[0x1f, 0x8b, 0x08], Format::Gzip),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], Format::Xz),
        // Properties byte of lc=3 lp=0 pb=2, then the dictionary size's low byte.
        (&[0x5d, 0, 0], Format::Lzma),
        (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
        (&LZ4_MAGIC, Format::Lz4),
        (b"\x7fELF", Format::None),
    ];
    MAGICS.iter().find(|(m, _)| data.starts_with(m)).map(|&(_, f)| f)
}

/// Decompresses `payload`; what follows the compressed stream is ignored.
///
/// # Errors
/// [`BootError::Payload`] when it is corrupt or cut off,
/// [`BootError::PayloadTooLarge`] past [`MAX_UNPACKED`].
pub fn unpack(format: Format, payload: &[u8]) -> Result<Vec<u8>, BootError> {
    unpack_capped(format, payload, MAX_UNPACKED)
}

fn unpack_capped(format: Format, payload: &[u8], max: u64) -> Result<Vec<u8>, BootError> {
    let fail = |cause: String| BootError::Payload { format, cause };
    let mut out = Vec::new();
    let drain = |reader: &mut dyn Read, out: &mut Vec<u8>| {
        reader.take(max + 1).read_to_end(out).map_err(|e| fail(e.to_string()))
    };
    match format {
        Format::Gzip => drain(&mut flate2::bufread::GzDecoder::new(payload), &mut out)?,
        Format::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(|e| fail(e.to_string()))?;
            drain(&mut liblzma::bufread::XzDecoder::new_stream(payload, stream), &mut out)?
        }
        Format::Lzma => {
            let stream =
                liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY).map_err(|e| fail(e.to_string()))?;
            drain(&mut liblzma::bufread::XzDecoder::new_stream(payload, stream), &mut out)?
        }
        Format::Zstd => {
            // The decoder's own window limit, 128 MiB, is that of Linux.
            let mut decoder =
                ruzstd::decoding::StreamingDecoder::new(payload).map_err(|e| fail(e.to_string()))?;
            drain(&mut decoder, &mut out)?
        }
        Format::Lz4 => unlz4(payload, max, &mut out).map_err(|e| fail(e.into()))?,
        Format::None => {
            out.extend_from_slice(payload);
            out.len()
        }
    };
    if out.len() as u64 > max {
        return Err(BootError::PayloadTooLarge { format, max });
    }
    Ok(out)
}

/// The legacy LZ4 frame: a magic number, then blocks, each after its
/// compressed size in four bytes, to the end of the input, where `size_append`
/// has left the unpacked size (Linux `lib/decompress_unlz4.c`).
fn unlz4(payload: &[u8], max: u64, out: &mut Vec<u8>) -> Result<usize, &'static str> {
    let mut rest = payload.get(..payload.len().saturating_sub(4)).unwrap_or_default();
    let mut block = vec![0; LZ4_BLOCK];
    while let Some((word, tail)) = rest.split_first_chunk::<4>() {
        rest = tail;
        if *word == LZ4_MAGIC {
            continue;
        }
        let size = u32::from_le_bytes(*word) as usize;
        if size == 0 {
            break;
        }
        let data = rest.get(..size).ok_or("a block is cut off")?;
        rest = &rest[size..];
        let n = lz4_flex::block::decompress_into(data, &mut block).map_err(|_| "a block does not decode")?;
        out.extend_from_slice(&block[..n]);
        if out.len() as u64 > max {
            break;
        }
    }
    Ok(out.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn sample() -> Vec<u8> {
        (0..200_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
    }

    fn lz4(data: &[u8]) -> Vec<u8> {
        let mut v = LZ4_MAGIC.to_vec();
        for chunk in data.chunks(LZ4_BLOCK) {
            let c = lz4_flex::block::compress(chunk);
            v.extend((c.len() as u32).to_le_bytes());
            v.extend(c);
        }
        v
    }

    fn xz_with_bcj(data: &[u8]) -> Vec<u8> {
        use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
        let mut filters = Filters::new();
        filters.x86().lzma2(&LzmaOptions::new_preset(6).unwrap());
        let stream = Stream::new_stream_encoder(&filters, Check::Crc32).unwrap();
        let mut w = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn packed(data: &[u8]) -> Vec<(Format, Vec<u8>)> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(data).unwrap();
        let lzma =
            liblzma::stream::Stream::new_lzma_encoder(&liblzma::stream::LzmaOptions::new_preset(3).unwrap())
                .unwrap();
        let mut lzma = liblzma::write::XzEncoder::new_stream(Vec::new(), lzma);
        lzma.write_all(data).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest);
        let mut all = vec![
            (Format::Xz, xz_with_bcj(data)),
            (Format::Lzma, lzma.finish().unwrap()),
            (Format::Zstd, zstd),
            (Format::Lz4, lz4(data)),
        ];
        for (_, v) in &mut all {
            v.extend((data.len() as u32).to_le_bytes()); // size_append
        }
        all.push((Format::Gzip, gz.finish().unwrap()));
        all
    }

    #[test]
    fn every_format_comes_back() {
        let data = sample();
        for (format, bytes) in packed(&data) {
            assert_eq!(detect(&bytes), Some(format));
            let got = unpack(format, &bytes).unwrap_or_else(|e| panic!("{format}: {e}"));
            assert!(got == data, "{format}: {} bytes", got.len());
        }
    }

    #[test]
    fn lz4_of_several_blocks() {
        let data: Vec<u8> = (0..(LZ4_BLOCK as u32 / 4 + 1000)).flat_map(u32::to_le_bytes).collect();
        let mut bytes = lz4(&data);
        bytes.extend([0; 4]);
        assert!(unpack(Format::Lz4, &bytes).unwrap() == data);
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let data = vec![0; 3 << 20];
        for (format, bytes) in packed(&data) {
            let e = unpack_capped(format, &bytes, 1 << 20).unwrap_err();
            assert!(matches!(e, BootError::PayloadTooLarge { .. }), "{format}: {e}");
            assert!(unpack_capped(format, &bytes, 3 << 20).is_ok(), "{format}");
        }
    }

    #[test]
    fn cut_off_streams_are_errors() {
        for (format, bytes) in packed(&sample()) {
            let e = unpack(format, &bytes[..bytes.len() / 2]).unwrap_err().to_string();
            assert!(e.contains(&format.to_string()) && e.contains("again"), "{e}");
        }
    }
}
