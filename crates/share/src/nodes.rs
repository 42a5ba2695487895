//! What the guest knows of the share: nodes, each held by a descriptor that
//! only names it (`O_PATH`), and open files.

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The number of the share's root (FUSE's).
pub(crate) const ROOT: u64 = 1;

/// A file, folder or link the guest has a number for.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Names it; nothing can be read or written by it.
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) kind: FileType,
    /// Device and inode number.
    id: (u64, u64),
    /// How many times the guest got the number and has not forgotten it.
    lookups: u64,
}

/// An open file or folder.
#[derive(Debug)]
struct Handle {
    file: File,
    node: u64,
}

/// Nodes and open files.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: HashMap<u64, Node>,
    by_id: HashMap<(u64, u64), u64>,
    handles: HashMap<u64, Handle>,
    /// Next number of a node or handle; none is ever used again.
    next: u64,
    most: usize,
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl Nodes {
    /// Only the root is known; at most `most` descriptors are held.
    pub(crate) fn new(root: OwnedFd, stat: &Stat, most: usize) -> std::io::Result<Self> {
        // A guest restored from a snapshot comes with another server's numbers:
        // they must not be taken for ours.
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|e| std::io::Error::other(e.to_string()))?;
        let node = Node { fd: Arc::new(root), kind: FileType::Directory, id: id(stat), lookups: 1 };
        Ok(Self {
            by_id: HashMap::from([(node.id, ROOT)]),
            nodes: HashMap::from([(ROOT, node)]),
            handles: HashMap::new(),
            next: (u64::from(u32::from_le_bytes(random)) | 1) << 24,
            most,
        })
    }

    /// Forgets all but the root.
    pub(crate) fn clear(&mut self) {
        self.handles.clear();
        self.nodes.retain(|number, _| *number == ROOT);
        self.by_id.retain(|_, number| *number == ROOT);
    }

    /// Whether so many nodes and handles more can be held.
    ///
    /// # Errors
    /// ENFILE if not.
    pub(crate) fn has_room(&self, more: usize) -> Result<(), Errno> {
        if self.nodes.len() + self.handles.len() + more <= self.most { Ok(()) } else { Err(Errno::NFILE) }
    }

    /// The node with this number.
    ///
    /// # Errors
    /// ESTALE if the guest does not know it.
    pub(crate) fn get(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::STALE)
    }

    /// The number for what `fd` names, one more time.
    ///
    /// # Errors
    /// ENFILE
    pub(crate) fn know(&mut self, fd: OwnedFd, stat: &Stat) -> Result<u64, Errno> {
        if let Some(&number) = self.by_id.get(&id(stat)) {
            if let Some(node) = self.nodes.get_mut(&number) {
                node.lookups = node.lookups.saturating_add(1);
            }
            return Ok(number);
        }
        self.has_room(1)?;
        let number = self.next;
        self.next += 1;
        let kind = FileType::from_raw_mode(stat.st_mode);
        self.nodes.insert(number, Node { fd: Arc::new(fd), kind, id: id(stat), lookups: 1 });
        self.by_id.insert(id(stat), number);
        Ok(number)
    }

    /// The guest forgets a number so many times.
    pub(crate) fn forget(&mut self, number: u64, times: u64) {
        if number == ROOT {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(times);
            if node.lookups == 0 {
                let id = node.id;
                self.nodes.remove(&number);
                self.by_id.remove(&id);
            }
        }
    }

    /// Keeps an open file of `node`; its handle.
    ///
    /// # Errors
    /// ENFILE
    pub(crate) fn keep(&mut self, file: File, node: u64) -> Result<u64, Errno> {
        self.has_room(1)?;
        let number = self.next;
        self.next += 1;
        self.handles.insert(number, Handle { file, node });
        Ok(number)
    }

    /// The open file of `node` with this handle.
    ///
    /// # Errors
    /// EBADF if there is none.
    pub(crate) fn file(&mut self, handle: u64, node: u64) -> Result<&mut File, Errno> {
        match self.handles.get_mut(&handle) {
            Some(h) if h.node == node => Ok(&mut h.file),
            _ => Err(Errno::BADF),
        }
    }

    /// Closes an open file.
    ///
    /// # Errors
    /// EBADF if there is none.
    pub(crate) fn close(&mut self, handle: u64, node: u64) -> Result<(), Errno> {
        self.file(handle, node)?;
        self.handles.remove(&handle);
        Ok(())
    }
}
