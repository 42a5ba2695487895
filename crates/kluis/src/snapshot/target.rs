//! A file that comes into being whole or not at all, for its owner alone: it has no
//! name while it is written. Whatever ends this process leaves nothing of it.

use crate::exit::Error;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file to be.
pub(crate) struct Target {
    path: PathBuf,
    folder: PathBuf,
    replace: bool,
    file: File,
    /// Its name meanwhile, where the file system knows no files without one.
    part: Option<PathBuf>,
}

impl Target {
    /// Opens a file that [`Target::keep`] will name `path`; with `replace` in place
    /// of one that is there.
    ///
    /// # Errors
    /// There is one, or none can be made there.
    pub(crate) fn new(path: &Path, replace: bool) -> Result<Target, Error> {
        if !replace && path.symlink_metadata().is_ok() {
            return Err(Error::bad(format!("{} exists: give another name, or remove it", path.display())));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let fail = |e: std::io::Error| {
            Error::bad(format!("cannot make a file in {}: {e}; check the folder", folder.display()))
        };
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let (file, part) = match rustix::fs::open(&folder, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => (File::from(fd), None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let part = folder.join(format!(".{name}.{}.part", std::process::id()));
                let options = File::options().read(true).write(true).create_new(true).mode(0o600).clone();
                (options.open(&part).map_err(fail)?, Some(part))
            }
            Err(e) => return Err(fail(e.into())),
        };
        Ok(Target { path: path.to_owned(), folder, replace, file, part })
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file, whose content is on the medium, its name.
    ///
    /// # Errors
    /// Somebody else was first, or the host refuses; nothing is left.
    pub(crate) fn keep(self) -> Result<(), Error> {
        self.link().map_err(|e| match e {
            Errno::EXIST => {
                Error::bad(format!("{} exists: give another name, or remove it", self.path.display()))
            }
            e => Error::failed(format!("cannot make {}: {}", self.path.display(), std::io::Error::from(e))),
        })
    }

    fn link(&self) -> rustix::io::Result<()> {
        let from = match &self.part {
            Some(part) => part.clone(),
            None => PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())),
        };
        let link = |to: &Path| rustix::fs::linkat(CWD, &from, CWD, to, AtFlags::SYMLINK_FOLLOW);
        if self.replace {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy();
            let beside = self.folder.join(format!(".{name}.{}.new", std::process::id()));
            let _ = fs::remove_file(&beside);
            link(&beside)?;
            rustix::fs::rename(&beside, &self.path).inspect_err(|_| drop(fs::remove_file(&beside)))?;
        } else {
            link(&self.path)?;
        }
        rustix::fs::fsync(File::open(&self.folder).map_err(|_| Errno::IO)?)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let _ = fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_appears_whole_and_for_its_owner_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("file");
        let names = || fs::read_dir(tmp.path()).unwrap().count();
        let target = Target::new(&path, false).unwrap();
        target.file().write_all(b"whole").unwrap();
        assert!(!path.exists());
        drop(target);
        assert_eq!(names(), 0, "what is not kept leaves nothing");

        let (first, second) = (Target::new(&path, false).unwrap(), Target::new(&path, false).unwrap());
        first.file().write_all(b"first").unwrap();
        first.keep().unwrap();
        assert!(second.keep().unwrap_err().to_string().contains("exists"), "another was first");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Target::new(&path, false).is_err());

        let new = Target::new(&path, true).unwrap();
        new.file().write_all(b"new").unwrap();
        new.keep().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"new".to_vec(), 1));
        assert!(Target::new(&tmp.path().join("no/such"), false).is_err());
    }
}
