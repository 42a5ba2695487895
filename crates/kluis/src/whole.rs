//! Files that are there as a whole, or as they were.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Writes a file: whoever reads it meanwhile has the old one or the new one. What is no file,
/// such as a pipe, is written to as it is.
///
/// # Errors
/// As the host says; the file is then as it was.
pub(crate) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return fs::write(file, bytes);
    }
    // a link goes on to lead to the file
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut new = file.clone().into_os_string();
    new.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(new);
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &file)).inspect_err(|_| {
        // what there is of it is of no use
        let _ = fs::remove_file(&new);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_links_and_devices_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let (file, link) = (tmp.path().join("file"), tmp.path().join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        write(&file, b"first, and longer").unwrap();
        write(&link, b"second").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert!(write(tmp.path(), b"x").is_err());
        assert!(write(&tmp.path().join("no/such"), b"x").is_err());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 2, "nothing else is left");
    }
}
