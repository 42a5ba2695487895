//! Reading Debian packages: an `ar` archive whose `data.tar.*` member is the
//! file tree (*deb(5)*).

use crate::error::ImageError;
use std::io::{BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

/// The largest file taken out of a package, in bytes; far above any kernel.
const MAX_FILE: u64 = 256 << 20;
/// The most a package may unpack to, in bytes; Debian's kernels take 400 MiB.
const MAX_UNPACKED: u64 = 1 << 30;
/// The most memory for an xz dictionary, in KiB; `xz -9` takes 65 MiB.
const XZ_MEMORY: u32 = 192 << 10;

/// How messages name a package.
pub(crate) fn label(deb: &Path) -> String {
    deb.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Which of a package's two archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Description and maintainer scripts.
    Control,
    /// The file tree.
    Data,
}

impl Part {
    /// Its member's name, without the suffix of the compression.
    fn member(self) -> &'static str {
        match self {
            Self::Control => "control.tar",
            Self::Data => "data.tar",
        }
    }
}

/// Calls `visit` for every regular file of a package, with its path (without
/// the leading `./`), length and contents. `visit` may leave contents unread.
/// `label` names the package in messages.
pub(crate) fn for_each_file(
    deb: impl Read + Seek,
    label: &str,
    mut visit: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    for_each_entry(deb, label, Part::Data, |path, header, _, data| {
        if header.entry_type().is_file() {
            let size = header.size().map_err(|e| ImageError::format(path, e.to_string()))?;
            visit(path, size, data)
        } else {
            Ok(())
        }
    })
}

/// Calls `visit` for every entry of one of a package's archives, with its path
/// (without the leading `./`), header, the target if it is a link, and contents.
/// Entries whose names are not UTF-8 are passed over.
pub(crate) fn for_each_entry(
    deb: impl Read + Seek,
    label: &str,
    part: Part,
    mut visit: impl FnMut(&str, &tar::Header, Option<&str>, &mut dyn Read) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let bad = |why: String| ImageError::format(label, why);
    let broken = |e: std::io::Error| ImageError::format(label, format!("the archive is damaged ({e})"));
    let (name, member) = find_member(deb, label, part.member())?;
    let stream: Box<dyn Read + '_> = match name.strip_prefix(part.member()) {
        Some("") => Box::new(member),
        Some(".xz") => Box::new(xz(member)),
        Some(".zst") => Box::new(zstd(member).map_err(bad)?),
        _ => return Err(bad(format!("{name} is packed in an unknown way"))),
    };
    let mut archive = tar::Archive::new(BufReader::with_capacity(64 << 10, stream.take(MAX_UNPACKED)));
    let mut total = 0u64;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        // Sparse files claim more than the archive holds.
        total = total.saturating_add(entry.size());
        if total > MAX_UNPACKED {
            return Err(bad(format!("it unpacks to more than {MAX_UNPACKED} bytes")));
        }
        let path = entry.path_bytes().into_owned();
        let Ok(path) = std::str::from_utf8(&path) else {
            continue;
        };
        let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let Ok(target) = target.map(String::from_utf8).transpose() else {
            continue;
        };
        let header = entry.header().clone();
        visit(path.trim_start_matches("./"), &header, target.as_deref(), &mut entry)?;
    }
    Ok(())
}

/// Reads one file of a package whole.
pub(crate) fn read_whole(path: &str, size: u64, from: &mut dyn Read) -> Result<Vec<u8>, ImageError> {
    if size > MAX_FILE {
        return Err(ImageError::format(path, format!("it has {size} bytes")));
    }
    let mut data = Vec::with_capacity(size as usize);
    let got = from
        .take(size)
        .read_to_end(&mut data)
        .map_err(|e| ImageError::format(path, format!("its archive is damaged ({e})")))?;
    if got as u64 != size {
        return Err(ImageError::format(path, "its archive ends early"));
    }
    Ok(data)
}

/// Undoes the compression that a kernel module's name tells, and strips that
/// from the name.
pub(crate) fn decompress_module(path: &str, data: Vec<u8>) -> Result<(String, Vec<u8>), ImageError> {
    let bad = |why: String| ImageError::format(path, why);
    let (stem, reader): (&str, Box<dyn Read + '_>) = if let Some(stem) = path.strip_suffix(".xz") {
        (stem, Box::new(xz(data.as_slice())))
    } else if let Some(stem) = path.strip_suffix(".zst") {
        (stem, Box::new(zstd(data.as_slice()).map_err(bad)?))
    } else if path.ends_with(".ko") {
        return Ok((path.to_owned(), data));
    } else {
        return Err(bad("the module is packed in an unknown way".into()));
    };
    let mut out = Vec::new();
    reader.take(MAX_FILE).read_to_end(&mut out).map_err(|e| bad(format!("it is damaged ({e})")))?;
    Ok((stem.to_owned(), out))
}

fn xz<R: Read>(from: R) -> impl Read {
    lzma_rust2::XzReader::new_mem_limit(from, true, XZ_MEMORY)
}

fn zstd<R: Read>(from: R) -> Result<impl Read, String> {
    ruzstd::decoding::StreamingDecoder::new(from).map_err(|e| format!("it is damaged ({e})"))
}

/// Finds the member of an `ar` archive whose name begins so: a magic line, then members,
/// each a header of 60 characters (name 16, …, size 10 from 48, end mark 2) and
/// its data, padded to an even length (*ar(5)*).
fn find_member<R: Read + Seek>(
    mut file: R,
    label: &str,
    wanted: &str,
) -> Result<(String, Take<R>), ImageError> {
    let bad = |why: &str| ImageError::format(label, why);
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(|_| bad("not a Debian package"))?;
    if &magic != b"!<arch>\n" {
        return Err(bad("not a Debian package"));
    }
    loop {
        let mut header = [0; 60];
        file.read_exact(&mut header).map_err(|_| bad(&format!("it holds no {wanted}")))?;
        let text = std::str::from_utf8(&header).map_err(|_| bad("damaged archive header"))?;
        if !text.is_ascii() || !text.ends_with("`\n") {
            return Err(bad("damaged archive header"));
        }
        let name = text[..16].trim_end().trim_end_matches('/').to_owned();
        let size: u64 = text[48..58].trim().parse().map_err(|_| bad("damaged archive header"))?;
        if name.starts_with(wanted) {
            return Ok((name, file.take(size)));
        }
        // at most ten digits: this fits
        file.seek(SeekFrom::Current((size + size % 2) as i64)).map_err(|_| bad("damaged archive"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn member(out: &mut Vec<u8>, name: &str, data: &[u8]) {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, data.len()).bytes());
        out.extend(data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }

    fn package() -> Vec<u8> {
        let mut out = b"!<arch>\n".to_vec();
        member(&mut out, "debian-binary", b"2.0");
        member(&mut out, "control.tar.xz/", b"odd");
        member(&mut out, "data.tar", b"contents");
        out
    }

    #[test]
    fn data_member_is_found_past_odd_lengths() {
        let (name, mut data) = find_member(Cursor::new(package()), "x", "data.tar").unwrap();
        let mut text = String::new();
        data.read_to_string(&mut text).unwrap();
        assert_eq!((name.as_str(), text.as_str()), ("data.tar", "contents"));
    }

    #[test]
    fn damaged_archives_are_errors() {
        let good = package();
        let data_at = good.windows(8).position(|w| w == b"data.tar").unwrap();
        for cut in 0..data_at + 60 {
            assert!(find_member(Cursor::new(&good[..cut]), "x", "data.tar").is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] = 0xFF;
            let _ = find_member(Cursor::new(bytes), "x", "data.tar"); // no panic
        }
    }
}
