//! Writing an initramfs: a cpio archive in the "newc" format
//! (*Linux Documentation/driver-api/early-userspace/buffer-format.rst*).
//!
//! Entries are sorted and carry no times, so the same contents make the same
//! bytes. Device nodes are just headers here: no root is needed to write them.

use std::collections::BTreeMap;

/// What a path of the initramfs is.
#[derive(Debug)]
pub(crate) enum Node {
    Dir { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Link { target: String },
    CharDevice { mode: u32, major: u32, minor: u32 },
}

/// A file tree to be packed, by path without a leading slash.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a node and the folders above it.
    pub(crate) fn add(&mut self, path: &str, node: Node) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Node::Dir { mode: 0o755 });
        }
        self.0.insert(path.to_owned(), node);
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        let data = data.into();
        self.add(path, Node::File { mode, data });
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        let target = target.to_owned();
        self.add(path, Node::Link { target });
    }

    /// The archive. A parent sorts before its children, as the kernel needs
    /// it. `None` if a file is larger than the format can say (4 GiB).
    pub(crate) fn pack(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for (number, (path, node)) in self.0.iter().enumerate() {
            let number = u32::try_from(number + 1).ok()?;
            let (mode, device, data): (u32, (u32, u32), &[u8]) = match node {
                Node::Dir { mode } => (0o040_000 | mode, (0, 0), &[]),
                Node::File { mode, data } => (0o100_000 | mode, (0, 0), data),
                Node::Link { target } => (0o120_777, (0, 0), target.as_bytes()),
                Node::CharDevice { mode, major, minor } => (0o020_000 | mode, (*major, *minor), &[]),
            };
            let links = if matches!(node, Node::Dir { .. }) { 2 } else { 1 };
            entry(&mut out, number, path, mode, links, device, data)?;
        }
        entry(&mut out, 0, "TRAILER!!!", 0, 1, (0, 0), &[])?;
        out.resize(out.len().next_multiple_of(512), 0);
        Some(out)
    }
}

fn entry(
    out: &mut Vec<u8>,
    inode: u32,
    path: &str,
    mode: u32,
    links: u32,
    (major, minor): (u32, u32),
    data: &[u8],
) -> Option<()> {
    let size = u32::try_from(data.len()).ok()?;
    let name_size = u32::try_from(path.len() + 1).ok()?;
    out.extend_from_slice(b"070701");
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
    // rdevminor namesize check
    for field in [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad4(out);
    out.extend_from_slice(data);
    pad4(out);
    Some(())
}

fn pad4(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: path, mode, data.
    pub(crate) fn unpack(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let whole = bytes.len();
        let mut out = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701", "at {}", whole - bytes.len());
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&bytes[110..110 + name_size - 1]).unwrap();
            let data_at = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return out;
            }
            out.push((name.to_owned(), mode as u32, bytes[data_at..data_at + size].to_vec()));
            bytes = &bytes[(data_at + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn archive_holds_the_tree_with_parents_first() {
        let mut tree = Tree::default();
        tree.file("/b/c/file", 0o644, "hello");
        tree.link("/b/link", "c/file");
        tree.add("/a", Node::CharDevice { mode: 0o600, major: 5, minor: 1 });
        let packed = tree.pack().unwrap();
        assert_eq!(packed.len() % 512, 0);
        let got = unpack(&packed);
        let expected: Vec<(String, u32, Vec<u8>)> = [
            ("a", 0o020_600, ""),
            ("b", 0o040_755, ""),
            ("b/c", 0o040_755, ""),
            ("b/c/file", 0o100_644, "hello"),
            ("b/link", 0o120_777, "c/file"),
        ]
        .map(|(p, m, d)| (p.to_owned(), m, d.as_bytes().to_vec()))
        .to_vec();
        assert_eq!(got, expected);
        assert_eq!(packed, tree.pack().unwrap());
    }
}
