//! What the guest sees of a file: everything belongs to its root user, and no
//! mode makes a program run as somebody else.

use fuse_backend_rs::abi::fuse_abi::Attr;
use rustix::fs::{FileType, Mode, Stat};

/// Mode bits that pass both ways: rights and the sticky bit.
pub(crate) const MODES: u32 = 0o1777;
/// A folder's entries inherit its group: a matter of the host's.
const INHERIT_GROUP: u32 = 0o2000;

/// A file's attributes for the guest.
pub(crate) fn of(stat: &Stat) -> libc::stat64 {
    Attr {
        ino: stat.st_ino,
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: stat.st_atime as u64,
        mtime: stat.st_mtime as u64,
        ctime: stat.st_ctime as u64,
        atimensec: stat.st_atime_nsec as u32,
        mtimensec: stat.st_mtime_nsec as u32,
        ctimensec: stat.st_ctime_nsec as u32,
        mode: stat.st_mode & (MODES | !0o7777),
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: 0,
        gid: 0,
        // whatever device it is on the host, it is none in the guest
        rdev: 0,
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
    .into()
}

/// The mode that a file gets on the host when the guest wants `wanted`.
pub(crate) fn mode(stat: &Stat, wanted: u32) -> Mode {
    let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let kept = if folder { stat.st_mode & INHERIT_GROUP } else { 0 };
    Mode::from_raw_mode(wanted & MODES | kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::AtFlags;
    use rustix::fs::{CWD, chmodat, mkdirat, statat};

    #[test]
    fn rights_pass_and_set_id_bits_do_not() {
        let tmp = tempfile::tempdir().unwrap();
        let (file, folder) = (tmp.path().join("file"), tmp.path().join("folder"));
        std::fs::write(&file, "").unwrap();
        mkdirat(CWD, &folder, Mode::from_raw_mode(0o755)).unwrap();
        for path in [file, folder] {
            for bits in 0..0o10000 {
                chmodat(CWD, &path, Mode::from_raw_mode(bits), AtFlags::empty()).unwrap();
                let stat = statat(CWD, &path, AtFlags::empty()).unwrap();
                let kind = stat.st_mode & 0o170_000;
                let seen = of(&stat);
                assert_eq!(seen.st_mode, kind | bits & 0o1777);
                assert_eq!((seen.st_uid, seen.st_gid, seen.st_ino), (0, 0, stat.st_ino));
                // what is seen, set again, changes no right
                let inherits = if kind == 0o040_000 { bits & 0o2000 } else { 0 };
                assert_eq!(mode(&stat, seen.st_mode).as_raw_mode(), bits & 0o1777 | inherits);
                assert_eq!(mode(&stat, 0o7777).as_raw_mode(), 0o1777 | inherits);
            }
        }
    }
}
