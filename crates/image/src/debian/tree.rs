//! The file tree of many packages as one tar archive, and dpkg's own records of
//! them: the state in which dpkg has unpacked all and configured none.
//!
//! | threat (a package is bytes from elsewhere) | guard |
//! |---|---|
//! | paths that lead out of the tree | `..` and empty components are refused |
//! | devices, fifos, unknown kinds | refused |
//! | maintainer scripts | stored, never run on the host |
//! | endless archives | `deb`'s bounds |

use crate::deb::{self, Part};
use crate::error::ImageError;
use crate::hash;
use md5::{Digest, Md5};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// Folders that are links into `/usr` (*the merged /usr*): who unpacks packages
/// made before it follows them.
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];
/// Left out, as `path-exclude` tells dpkg in the image (`settings`): what nobody
/// reads in a machine like this one, a third of the files.
const LEFT_OUT: [&str; 5] =
    ["usr/share/doc/", "usr/share/info/", "usr/share/locale/", "usr/share/man/", "usr/lib/udev/hwdb.d/"];
/// Kept of what is left out: licences, and the list of locales.
const KEPT: [&str; 2] = ["/copyright", "/locale.alias"];
/// The largest maintainer script or list, in bytes.
const MAX_CONTROL: u64 = 16 << 20;
const INFO: &str = "var/lib/dpkg/info";

/// A tree that is being written.
pub(super) struct Tree<W: Write> {
    tar: tar::Builder<W>,
    /// Folders written, which several packages have.
    folders: BTreeSet<String>,
    /// dpkg's status file.
    status: String,
}

impl<W: Write> Tree<W> {
    /// A tree with the links of the merged `/usr`.
    pub(super) fn new(out: W) -> Result<Self, ImageError> {
        let mut tree = Self { tar: tar::Builder::new(out), folders: BTreeSet::new(), status: String::new() };
        tree.folder("usr", 0o755)?;
        for name in MERGED {
            tree.folder(&format!("usr/{name}"), 0o755)?;
            tree.link(name, &format!("usr/{name}"))?;
            tree.folders.insert(name.to_owned());
        }
        Ok(tree)
    }

    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<(), ImageError> {
        if self.folders.insert(path.to_owned()) {
            let mut header = header(EntryType::Directory, mode, 0);
            self.append(&mut header, path, None, &mut io::empty())?;
        }
        Ok(())
    }

    /// A file of ours.
    pub(super) fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<(), ImageError> {
        let mut header = header(EntryType::Regular, mode, data.len() as u64);
        self.append(&mut header, path, None, &mut &*data)
    }

    /// A symbolic link of ours.
    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<(), ImageError> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.append(&mut header, path, Some(target), &mut io::empty())
    }

    /// Adds a package: its files, and its records as unpacked.
    pub(super) fn package(&mut self, deb: &Path) -> Result<(), ImageError> {
        self.package_from(|| File::open(deb).map_err(ImageError::io("open", deb)), &deb::label(deb))
    }

    /// The same for one that `open` opens, each time anew; `label` names it in
    /// messages.
    pub(super) fn package_from<R: Read + Seek>(
        &mut self,
        open: impl Fn() -> Result<R, ImageError>,
        label: &str,
    ) -> Result<(), ImageError> {
        let control = Control::read(open()?, label)?;
        let mut list = String::new();
        let mut sums = BTreeMap::new();
        deb::for_each_entry(open()?, label, Part::Data, |path, entry, target, data| {
            let path = path.trim_end_matches('/');
            check(path, label)?;
            let _ = writeln!(list, "/{}", if path.is_empty() { "." } else { path });
            let absolute = format!("/{path}");
            if control.conffiles.contains(&absolute) {
                let size = entry.size().map_err(|e| ImageError::format(label, e.to_string()))?;
                let content = deb::read_whole(path, size, data)?;
                sums.insert(absolute, hash::hex(&Md5::digest(&content)));
                return self.entry(path, entry, target, &mut content.as_slice(), label);
            }
            self.entry(path, entry, target, data, label)
        })?;
        self.status += &control.unpacked(&sums);
        let name = &control.name;
        self.file(&format!("{INFO}/{name}.list"), 0o644, list.as_bytes())?;
        for (file, (mode, data)) in &control.files {
            self.file(&format!("{INFO}/{name}.{file}"), mode & 0o777, data)?;
        }
        Ok(())
    }

    /// Adds an entry of a package, where it belongs.
    pub(super) fn entry(
        &mut self,
        path: &str,
        from: &Header,
        target: Option<&str>,
        data: &mut dyn Read,
        label: &str,
    ) -> Result<(), ImageError> {
        if path.is_empty() || is_left_out(path) {
            return Ok(());
        }
        let place = placed(path);
        let damaged = |e: io::Error| ImageError::format(label, e.to_string());
        let kind = from.entry_type();
        let size = if kind.is_file() { from.size().map_err(damaged)? } else { 0 };
        let mut header = header(kind, from.mode().map_err(damaged)? & 0o7777, size);
        header.set_uid(from.uid().map_err(damaged)?);
        header.set_gid(from.gid().map_err(damaged)?);
        header.set_mtime(from.mtime().map_err(damaged)?);
        match kind {
            EntryType::Directory => {
                if self.folders.insert(place.clone()) {
                    self.append(&mut header, &place, None, data)?;
                }
                Ok(())
            }
            EntryType::Regular => self.append(&mut header, &place, None, data),
            // a package may bring the merged /usr's links itself
            EntryType::Symlink if self.folders.contains(&place) => Ok(()),
            EntryType::Symlink => self.append(&mut header, &place, target, data),
            EntryType::Link => {
                let target = target.unwrap_or_default().trim_start_matches("./");
                check(target, label)?;
                self.append(&mut header, &place, Some(&placed(target)), data)
            }
            other => Err(ImageError::format(label, format!("{path} is of the kind {other:?}"))),
        }
    }

    fn append(
        &mut self,
        header: &mut Header,
        path: &str,
        target: Option<&str>,
        data: &mut dyn Read,
    ) -> Result<(), ImageError> {
        match target {
            Some(target) => self.tar.append_link(header, path, target),
            None => self.tar.append_data(header, path, data),
        }
        .map_err(ImageError::io("write", Path::new(path)))
    }

    /// Writes dpkg's status file and the archive's end; gives what was written
    /// to.
    pub(super) fn finish(mut self) -> Result<W, ImageError> {
        for folder in ["alternatives", "parts", "triggers", "updates"] {
            self.folder(&format!("var/lib/dpkg/{folder}"), 0o755)?;
        }
        let status = std::mem::take(&mut self.status);
        self.file("var/lib/dpkg/status", 0o644, status.as_bytes())?;
        self.tar.into_inner().map_err(ImageError::io("write", Path::new("the file tree")))
    }
}

/// What dpkg keeps of a package's control archive.
struct Control {
    /// As dpkg names its files: with the architecture where several may be
    /// installed together.
    name: String,
    /// The description, without an empty line at its end.
    text: String,
    /// Configuration files, which dpkg asks about before it replaces them.
    conffiles: BTreeSet<String>,
    /// The other files, with their modes.
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Control {
    fn read(deb: impl Read + Seek, label: &str) -> Result<Self, ImageError> {
        let mut files = BTreeMap::new();
        deb::for_each_entry(deb, label, Part::Control, |path, entry, _, data| {
            let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if entry.entry_type().is_file() && plain {
                let size = entry.size().unwrap_or(u64::MAX);
                if size > MAX_CONTROL {
                    return Err(ImageError::format(label, format!("its {path} has {size} bytes")));
                }
                let mode = entry.mode().unwrap_or(0o644);
                files.insert(path.to_owned(), (mode, deb::read_whole(path, size, data)?));
            }
            Ok(())
        })?;
        let text = |data: Vec<u8>| {
            String::from_utf8(data).map_err(|_| ImageError::format(label, "its description is no text"))
        };
        let (_, control) =
            files.remove("control").ok_or_else(|| ImageError::format(label, "it has no description"))?;
        let control = text(control)?.trim_end().to_owned();
        let field = |name: &str| {
            control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let needed = |name: &str| {
            let value = field(name).unwrap_or_default();
            let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
            if value.is_empty() || !plain || value.contains("..") {
                return Err(ImageError::format(label, format!("its description has no {name}")));
            }
            Ok(value.to_owned())
        };
        let mut name = needed("Package")?;
        if field("Multi-Arch") == Some("same") {
            name = format!("{name}:{}", needed("Architecture")?);
        }
        let conffiles = match files.get("conffiles") {
            Some((_, data)) => text(data.clone())?
                .lines()
                // newer ones put a flag before the path
                .filter_map(|line| Some(line.get(line.find('/')?..)?.trim_end().to_owned()))
                .collect(),
            None => BTreeSet::new(),
        };
        Ok(Self { name, text: control, conffiles, files })
    }

    /// Its paragraph of dpkg's status file (*dpkg(1)*, package states).
    fn unpacked(&self, sums: &BTreeMap<String, String>) -> String {
        let (first, rest) = self.text.split_once('\n').unwrap_or((&self.text, ""));
        let mut out = format!("{first}\nStatus: install ok unpacked\n{rest}\n");
        if !sums.is_empty() {
            out += "Conffiles:\n";
            for (path, sum) in sums {
                let _ = writeln!(out, " {path} {sum}");
            }
        }
        out.push('\n');
        out
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Refuses what would leave the tree, and what would break a line of dpkg's lists.
fn check(path: &str, label: &str) -> Result<(), ImageError> {
    let inside = path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if inside && !path.contains(char::is_control) {
        Ok(())
    } else {
        Err(ImageError::format(label, format!("it has the path {path:?}")))
    }
}

/// Where the file really lies when its top folder is a link into `/usr`.
fn placed(path: &str) -> String {
    match path.split_once('/') {
        Some((top, _)) if MERGED.contains(&top) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

fn is_left_out(path: &str) -> bool {
    LEFT_OUT.iter().any(|folder| path.starts_with(folder)) && !KEPT.iter().any(|end| path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A tar archive of these entries: path, kind, contents or target.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, data) in entries {
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let mut header = header(*kind, 0o644, if is_link { 0 } else { data.len() as u64 });
            // by hand: the builder refuses what a hostile package may have
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            if is_link {
                header.set_link_name_literal(data).unwrap();
            }
            header.set_cksum();
            tar.append(&header, if is_link { &[][..] } else { data.as_bytes() }).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn deb(control: &[(&str, EntryType, &str)], data: &[(&str, EntryType, &str)]) -> tempfile::NamedTempFile {
        let mut out = b"!<arch>\n".to_vec();
        for (name, bytes) in [("control.tar", archive(control)), ("data.tar", archive(data))] {
            out.extend(format!("{name:<16}{:<32}{:<10}`\n", 0, bytes.len()).bytes());
            out.extend(bytes);
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&out).unwrap();
        file
    }

    fn read(tar: &[u8]) -> BTreeMap<String, (EntryType, String)> {
        let mut out = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let kind = entry.header().entry_type();
            let mut text = String::new();
            match entry.link_name().unwrap() {
                Some(target) => text = target.display().to_string(),
                None => drop(entry.read_to_string(&mut text).unwrap()),
            }
            assert!(out.insert(path.clone(), (kind, text)).is_none(), "{path} twice");
        }
        out
    }

    const CONTROL: &str = "Package: libx\nArchitecture: amd64\nMulti-Arch: same\nVersion: 1\n";

    #[test]
    fn package_is_laid_out_as_dpkg_unpacks_it() {
        use EntryType::{Directory, Link, Regular, Symlink};
        let package = deb(
            &[
                ("./control", Regular, CONTROL),
                ("./postinst", Regular, "#!/bin/sh\n"),
                ("./conffiles", Regular, "/etc/x.conf\n"),
            ],
            &[
                ("./", Directory, ""),
                ("./bin/", Directory, ""),
                ("./bin/x", Regular, "program"),
                ("./bin/y", Link, "./bin/x"),
                ("./lib/z", Symlink, "../bin/x"),
                ("./etc/x.conf", Regular, "a=b\n"),
                ("./usr/share/doc/libx/copyright", Regular, "free"),
                ("./usr/share/doc/libx/changelog", Regular, "long"),
            ],
        );
        let mut tree = Tree::new(Vec::new()).unwrap();
        tree.package(package.path()).unwrap();
        let got = read(&tree.finish().unwrap());
        let is = |path: &str, kind, text: &str| assert_eq!(got[path], (kind, text.to_owned()), "{path}");
        is("bin", Symlink, "usr/bin");
        is("usr/bin/x", Regular, "program");
        is("usr/bin/y", Link, "usr/bin/x");
        is("usr/lib/z", Symlink, "../bin/x");
        is("var/lib/dpkg/info/libx:amd64.postinst", Regular, "#!/bin/sh\n");
        assert!(got.contains_key("usr/share/doc/libx/copyright"));
        assert!(!got.contains_key("usr/share/doc/libx/changelog"));
        // dpkg's list has the paths of the package
        let list = &got["var/lib/dpkg/info/libx:amd64.list"].1;
        assert!(list.starts_with("/.\n/bin\n/bin/x\n/bin/y\n"), "{list}");
        // md5sum of "a=b\n"
        let status = &got["var/lib/dpkg/status"].1;
        assert_eq!(
            status,
            "Package: libx\nStatus: install ok unpacked\nArchitecture: amd64\nMulti-Arch: same\nVersion: 1\n\
             Conffiles:\n /etc/x.conf 6aea67367311873a8a1383e4373a0e3c\n\n"
        );
    }

    #[test]
    fn hostile_packages_are_errors() {
        use EntryType::{Block, Link, Regular};
        let control = [("./control", Regular, CONTROL)];
        for bad in [
            ("./../x", Regular, ""),
            ("./a/../../x", Regular, ""),
            ("a//b", Regular, ""),
            ("./a\nb", Regular, ""),
            ("./x", Link, "../../etc/passwd"),
            ("./dev/sda", Block, ""),
        ] {
            let package = deb(&control, &[bad]);
            let error = Tree::new(Vec::new()).unwrap().package(package.path()).unwrap_err();
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        for control in [
            &[][..],
            &[("./control", Regular, "Package: ../x\n")],
            &[("./control", Regular, "Package: a/b\n")],
            &[("./control", Regular, "Version: 1\n")],
        ] {
            let package = deb(control, &[]);
            assert!(Tree::new(Vec::new()).unwrap().package(package.path()).is_err());
        }
    }
}
