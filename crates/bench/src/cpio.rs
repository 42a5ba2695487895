//! The initramfs format: "newc" cpio archives, one after another
//! (*Documentation/driver-api/early-userspace/buffer-format.rst*).

/// Mode bits of a regular file and of a directory (*inode(7)*).
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const TYPE: u32 = 0o170_000;
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// An archive under construction.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    entries: u32,
}

impl Writer {
    /// Adds a directory.
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, &[]);
    }

    /// Adds an executable file.
    pub(crate) fn program(&mut self, name: &str, data: &[u8]) {
        self.entry(name, REGULAR | 0o755, data);
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let (size, name_size) = (data.len() as u32, name.len() as u32 + 1);
        // ino mode uid gid nlink mtime filesize dev(2) rdev(2) namesize check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        pad(&mut self.bytes);
        self.bytes.extend(data);
        pad(&mut self.bytes);
    }

    /// The whole archive, with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// `first` with `second` behind it, aligned as the kernel wants it.
pub(crate) fn append(mut first: Vec<u8>, second: &[u8]) -> Vec<u8> {
    pad(&mut first);
    first.extend(second);
    first
}

/// Path and content of the first non-empty regular file whose last path
/// component is `name`, in uncompressed archives. `None` as well where the
/// archive is compressed or malformed.
pub(crate) fn find<'a>(archive: &'a [u8], name: &str) -> Option<(&'a str, &'a [u8])> {
    let mut at = 0usize;
    loop {
        // Zeros may lie between archives.
        at += archive.get(at..)?.iter().position(|b| *b != 0)?;
        let header = archive.get(at..at.checked_add(HEADER)?)?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return None;
        }
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + 8 * index..14 + 8 * index]).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let (mode, size, name_size) = (field(1)?, field(6)? as usize, field(11)? as usize);
        let name_at = at + HEADER;
        let name_end = name_at.checked_add(name_size)?;
        let data_at = name_end.checked_next_multiple_of(4)?;
        let data_end = data_at.checked_add(size)?;
        let path = archive.get(name_at..name_end.checked_sub(1)?)?;
        let data = archive.get(data_at..data_end)?;
        if let Ok(path) = std::str::from_utf8(path)
            && mode & TYPE == REGULAR
            && size > 0
            && path.rsplit('/').next() == Some(name)
        {
            return Some((path, data));
        }
        at = data_end.checked_next_multiple_of(4)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str, data: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.directory("usr");
        writer.program(name, data);
        writer.finish()
    }

    #[test]
    fn what_is_written_is_found_in_any_archive_of_a_chain() {
        let first = archive("usr/bin/a", b"12345");
        let both = append(first, &archive("b", b"xyz"));
        assert_eq!(find(&both, "a"), Some(("usr/bin/a", &b"12345"[..])));
        assert_eq!(find(&both, "b"), Some(("b", &b"xyz"[..])));
        assert_eq!(find(&both, "usr"), None, "directories do not count");
        assert_eq!(find(&both, "c"), None);
    }

    #[test]
    fn damaged_archives_are_no_archives() {
        let good = archive("usr/bin/a", b"12345");
        for end in 0..good.len() {
            let _ = find(&good[..end], "a");
            let _ = find(&good[..end], "nothing");
        }
        for at in 0..good.len() {
            for byte in [0, b'F', 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = find(&bad, "nothing");
            }
        }
        assert_eq!(find(b"\x1f\x8b compressed", "a"), None);
    }
}
