//! Prepared snapshots: a machine that was booted until its agent waits for a
//! command. A process of its own boots it and writes into the file that this one
//! has opened and will name.

use crate::cli::RunArgs;
use crate::exit::{self, Error};
use crate::run::{HostTerminal, Plan};
use crate::snapshot::target::Target;
use crate::snapshot::{open, owner::Owner};
use machine::Snapshot;
use platform::Platform;
use sha2::{Digest, Sha256};
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Names the open file to the process that boots the machine, and what it is of.
const FILE: &str = "KLUIS_PREPARE_FD";
const KEY: &str = "KLUIS_PREPARE_KEY";
/// Prepared snapshots that `run --warm` keeps: those used last.
const KEEP: usize = 4;

/// What the process that boots the machine is to do.
pub(crate) struct Order {
    /// Where the snapshot goes.
    pub(crate) file: File,
    /// What it is of.
    pub(crate) key: String,
}

/// The order to this process, if it is the one that boots.
///
/// # Errors
/// Who gave it is gone.
pub(crate) fn order() -> Result<Option<Order>, Error> {
    let Some(number) = std::env::var_os(FILE) else { return Ok(None) };
    let path = Path::new("/proc/self/fd").join(number);
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(|e| Error::failed(format!("cannot write the snapshot: {e}")))?;
    Ok(Some(Order { file, key: std::env::var(KEY).unwrap_or_default() }))
}

/// `kluis snapshot prepare`.
///
/// # Errors
/// The file or the machine cannot be made.
pub(crate) fn main(file: &Path, args: &RunArgs, platform: &Path, json: bool) -> Result<u8, Error> {
    let odd = !args.command.is_empty() || args.tty || args.warm || args.snapshot.is_some();
    if odd || args.reboot || args.overlay.is_some() || args.disk.iter().any(|disk| !disk.read_only) {
        return Err(Error::bad(
            "a prepared machine has no command, no --tty, --warm, --snapshot, --reboot, --overlay or disk that it may write: leave them out",
        ));
    }
    if order()?.is_some() {
        return crate::run::main(args, platform, json);
    }
    boot(Target::new(file, false)?, "")?.keep()?;
    Ok(exit::OK)
}

/// Boots the machine that this process's own arguments are of, in another.
fn boot(target: Target, key: &str) -> Result<Target, Error> {
    let fail = |e: std::io::Error| Error::failed(format!("cannot boot a machine to prepare: {e}"));
    let fd = target.file();
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(|e| fail(e.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(FILE, fd.as_raw_fd().to_string()).env(KEY, key);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(fail)?;
    if status.success() {
        return Ok(target);
    }
    Err(Error::failed("no snapshot was prepared: the machine did not get ready for a command"))
}

/// The prepared snapshot that fits `args`, for `run --warm`: one from the cache, or
/// a new one.
///
/// # Errors
/// None can be made.
pub(crate) fn warm(
    args: &RunArgs,
    terminal: &HostTerminal,
    platform: &mut Platform,
) -> Result<PathBuf, Error> {
    let plan = Plan::new(args, terminal)?;
    if args.overlay.is_some() {
        // the guest would know another disk than it finds
        return Err(Error::bad(
            "--warm starts with the image's disk as it was made: leave out --overlay, or --warm to boot with it",
        ));
    }
    let folder = image::default_folder()?.join("snapshots");
    let fail = |e: std::io::Error| Error::failed(format!("cannot use {}: {e}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(fail)?;
    let key = key(args, &plan, platform)?;
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let path = folder.join(format!("{:016x}.snapshot", hasher.finish()));
    let fits = |(_, owner): &(Snapshot, Owner)| owner.prepared == key;
    if !open(&path).is_ok_and(|found| fits(&found)) {
        boot(Target::new(&path, true)?, &key)?.keep()?;
    }
    // the order in which they are forgotten
    let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
    prune(&folder);
    Ok(path)
}

/// Removes all snapshots but those used last. Machines that run from one keep it.
fn prune(folder: &Path) {
    let mut found: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "snapshot"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    let old = found.len().saturating_sub(KEEP);
    found.iter().take(old).for_each(|(_, path)| drop(fs::remove_file(path)));
}

/// Everything that a prepared machine depends on: this program, the guest's files,
/// what it is told at its start, the platform, and all options but those of the
/// command alone.
fn key(args: &RunArgs, plan: &Plan, platform: &mut Platform) -> Result<String, Error> {
    let about = |path: &Path| {
        fs::metadata(path)
            .map(|m| {
                format!(
                    "{} {}:{}:{}:{}.{}",
                    path.display(),
                    m.dev(),
                    m.ino(),
                    m.len(),
                    m.mtime(),
                    m.mtime_nsec()
                )
            })
            .map_err(|e| Error::failed(format!("cannot look at {}: {e}", path.display())))
    };
    let files = crate::run::Files::of(plan, platform, args.quiet)?;
    let initrd = files.initrd.as_deref().map(about).transpose()?;
    // who may log in, proxies with their passwords; what quotes are made with
    let told = Sha256::digest(&files.initrd_more);
    let options = RunArgs {
        command: Vec::new(),
        tty: false,
        timeout: None,
        quiet: false,
        console: None,
        stats: false,
        trace: None,
        ..args.clone()
    };
    let platform = platform.info().id;
    let program = about(Path::new("/proc/self/exe"))?;
    Ok(format!("{program}\n{}\n{initrd:?} {told:x}\n{platform}\n{options:?}", about(&files.kernel)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn those_used_last_are_kept() {
        let tmp = tempfile::tempdir().unwrap();
        for i in 0..7 {
            let file = File::create(tmp.path().join(format!("{i}.snapshot"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs((i * 3) % 7)).unwrap();
        }
        fs::write(tmp.path().join("other"), "").unwrap();
        prune(tmp.path());
        let mut left: Vec<_> = fs::read_dir(tmp.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        // times 0 3 6 2 5 1 4
        assert_eq!(left, ["1.snapshot", "2.snapshot", "4.snapshot", "6.snapshot", "other"]);
    }
}
