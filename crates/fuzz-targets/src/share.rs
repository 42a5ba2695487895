//! A shared folder: FUSE requests, whole and broken ones.
//!
//! The input is a flag for a read-only share, and requests: an operation, the
//! node or handle it is for by its place among those that the guest has been
//! told, and a body, whole or made from a template. The share has a file, a
//! folder with a file, and links that lead out of it.

use crate::input::Input;
use share::Share;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

const REQUEST: usize = 40;
const REPLY: usize = 16;

mod op {
    pub(super) const LOOKUP: u8 = 1;
    pub(super) const FORGET: u8 = 2;
    pub(super) const SETATTR: u8 = 4;
    pub(super) const MKDIR: u8 = 9;
    pub(super) const UNLINK: u8 = 10;
    pub(super) const OPEN: u8 = 14;
    pub(super) const READ: u8 = 15;
    pub(super) const WRITE: u8 = 16;
    pub(super) const OPENDIR: u8 = 27;
    pub(super) const READDIR: u8 = 28;
    pub(super) const CREATE: u8 = 35;
    pub(super) const FALLOCATE: u8 = 43;
    pub(super) const READDIRPLUS: u8 = 44;
    /// Operations with numbers below this one are tried.
    pub(super) const END: u8 = 53;
}

/// Names a request may have.
const NAMES: &[&str] = &["file", "folder", "in", "out", "up", "..", ".", "", "a/b", "new", "secret"];

/// Paths, modes, sizes and changes of everything below a folder.
fn picture(path: &Path) -> Vec<(PathBuf, u32, u64, i64, i64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if let Ok(meta) = entry.metadata() {
            all.push((entry.path(), meta.mode(), meta.size(), meta.ctime(), meta.ctime_nsec()));
            if meta.is_dir() {
                all.extend(picture(&entry.path()));
            }
        }
    }
    all.sort();
    all
}

/// Runs the requests; how many of them succeeded.
pub fn run(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let read_only = input.u8() & 1 != 0;
    let world = tempfile::tempdir().expect("a scratch folder");
    let (inside, outside) = (world.path().join("share"), world.path().join("outside"));
    let made = (|| {
        fs::create_dir_all(inside.join("folder"))?;
        fs::create_dir(&outside)?;
        fs::write(outside.join("secret"), "secret")?;
        fs::write(inside.join("file"), "file")?;
        fs::write(inside.join("folder/in"), "in")?;
        symlink(&outside, inside.join("out"))?;
        symlink("../outside/secret", inside.join("up"))
    })();
    made.expect("files in it");
    let before = (picture(&outside), picture(&inside));

    let share = Share::open(&inside, read_only, 40).expect("it can be shared");
    let (mut nodes, mut handles) = (vec![1u64], vec![0u64]);
    let mut succeeded = 0;
    for unique in 0..60u64 {
        if input.is_empty() {
            break;
        }
        let opcode = input.u8() % op::END;
        let node = nodes[usize::from(input.u8()) % nodes.len()];
        let handle = handles[usize::from(input.u8()) % handles.len()];
        let body = body(&mut input, opcode, node, handle);
        let mut request = Vec::new();
        request.extend(((REQUEST + body.len()) as u32).to_le_bytes());
        request.extend(u32::from(opcode).to_le_bytes());
        request.extend(unique.to_le_bytes());
        request.extend(node.to_le_bytes());
        request.resize(REQUEST, 0);
        request.extend(&body);
        let how = input.u8();
        if how & 0x80 != 0 {
            let at = usize::from(input.u8()) % request.len();
            request[at] = input.u8();
        }
        let mut reply = vec![0; if how & 0x40 == 0 { 8192 } else { usize::from(input.u16()) }];
        let len = share.answer(&mut request, &mut reply);
        assert!(len <= reply.len(), "an answer longer than its room");
        if len < REPLY || reply[4..8] != [0; 4] {
            continue;
        }
        succeeded += 1;
        let told =
            |at: usize| reply[REPLY..len].get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
        match opcode {
            op::LOOKUP | op::MKDIR => nodes.extend(told(0)),
            op::OPEN | op::OPENDIR => handles.extend(told(0)),
            op::CREATE => {
                nodes.extend(told(0));
                handles.extend(told(128));
            }
            op::READ => assert!(!reply[..len].windows(6).any(|w| w == b"secret"), "read what is outside"),
            _ => {}
        }
    }
    drop(share);
    assert_eq!(picture(&outside), before.0, "something outside changed");
    if read_only {
        assert_eq!(picture(&inside), before.1, "a read-only share changed");
    }
    succeeded
}

/// A body for the operation: fields of the usual form, or any bytes.
fn body(input: &mut Input<'_>, opcode: u8, node: u64, handle: u64) -> Vec<u8> {
    let form = input.u8();
    let number = input.number();
    let mut body = Vec::new();
    let mut name = |body: &mut Vec<u8>| {
        body.extend(NAMES[usize::from(input.u8()) % NAMES.len()].bytes());
        body.push(0);
    };
    match opcode {
        _ if form & 0x80 != 0 => body.extend(input.bytes(usize::from(form & 0x7f))),
        op::LOOKUP | op::UNLINK | 11 => name(&mut body),
        op::FORGET => body.extend(number.to_le_bytes()),
        // symlink: name and target
        6 => {
            name(&mut body);
            name(&mut body);
        }
        // mknod, mkdir, create: flags or mode, the rest
        8 | op::MKDIR | op::CREATE => {
            let mode = if opcode == 8 { 0o100_000 | number as u32 } else { number as u32 };
            body.extend(mode.to_le_bytes());
            body.extend(0o644u32.to_le_bytes());
            body.resize(if opcode == op::MKDIR { 8 } else { 16 }, 0);
            name(&mut body);
        }
        // rename, rename2, link: a folder or a node
        12 | 13 | 45 => {
            body.extend(if form & 1 == 0 { node } else { 1 }.to_le_bytes());
            if opcode == 45 {
                body.extend(u64::from(form >> 1 & 7).to_le_bytes());
            }
            name(&mut body);
            name(&mut body);
        }
        op::SETATTR => {
            body.extend((number as u32).to_le_bytes());
            body.resize(8, 0);
            body.extend(handle.to_le_bytes());
            body.extend(u64::from(form).to_le_bytes());
            body.resize(88, form);
        }
        op::OPEN | op::OPENDIR => body.extend((number as u32 as u64).to_le_bytes()),
        op::READ | op::WRITE | op::READDIR | op::READDIRPLUS => {
            body.extend(handle.to_le_bytes());
            body.extend(number.to_le_bytes());
            body.extend((u32::from(form) << 3).to_le_bytes());
            body.resize(40, 0);
            if opcode == op::WRITE {
                body.resize(40 + (usize::from(form) << 3), form);
            }
        }
        _ => {
            body.extend(handle.to_le_bytes());
            body.extend(number.to_le_bytes());
            body.resize(40, form);
        }
    }
    // what is allocated is taken from the host's disk
    if opcode == op::FALLOCATE {
        body.resize(32, 0);
        body[10..16].fill(0);
        body[18..24].fill(0);
    }
    body
}

/// [`run`], its result ignored.
pub(crate) fn share_requests(data: &[u8]) {
    run(data);
}

/// Inputs that find, open, read, write, list and remove.
pub fn seeds() -> Vec<Vec<u8>> {
    let name_index = |name: &str| NAMES.iter().position(|n| *n == name).unwrap_or(0) as u8;
    // operation, node, handle, form, number, name, how the request is spoilt
    let named =
        |opcode: u8, node: u8, number: u8, name: &str| vec![opcode, node, 0, 0, number, name_index(name), 0];
    let plain =
        |opcode: u8, node: u8, handle: u8, form: u8, number: u8| vec![opcode, node, handle, form, number, 0];
    let look = [
        named(op::LOOKUP, 0, 0, "file"),
        named(op::LOOKUP, 0, 0, "folder"),
        named(op::LOOKUP, 2, 0, "in"),
        named(op::LOOKUP, 0, 0, "out"),
        named(op::LOOKUP, 0, 0, "up"),
        plain(op::OPEN, 1, 0, 0, 0),
        plain(op::READ, 1, 1, 10, 0),
        plain(op::OPENDIR, 2, 0, 0, 0),
        plain(op::READDIR, 2, 2, 100, 0),
        plain(op::READDIRPLUS, 2, 2, 100, 0),
        plain(3, 1, 0, 0, 0),
        plain(5, 4, 0, 0, 0),
        plain(op::FORGET, 3, 0, 0, 1),
    ]
    .concat();
    let change = [
        vec![op::CREATE, 0, 0, 0, 2, name_index("new"), 0],
        plain(op::WRITE, 6, 3, 10, 5),
        plain(op::SETATTR, 6, 0, 3, 8),
        plain(op::FALLOCATE, 6, 3, 0, 9),
        named(op::MKDIR, 0, 0, "secret"),
        vec![6, 0, 0, 0, 0, name_index("in"), name_index("up"), 0],
        vec![12, 0, 0, 1, 0, name_index("new"), name_index("file"), 0],
        named(op::UNLINK, 0, 0, "file"),
    ]
    .concat();
    let all = [look.clone(), change].concat();
    vec![[vec![0], look].concat(), [vec![0], all.clone()].concat(), [vec![1], all].concat()]
}
