//! Asking apt: which package is current, what its file must hash to, and
//! fetching it. apt runs as whoever we are, with state of its own in our cache
//! where the system's is missing or old; nothing on the system is changed.

use crate::error::ImageError;
use crate::hash;
use crate::manifest::PackageRecord;
use crate::progress::Progress;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

/// The package that depends on the current kernel.
const KERNEL: &str = "linux-image-cloud-amd64";
/// The userland.
const BUSYBOX: &str = "busybox-static";
/// How old the system's package lists may be before we fetch our own.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);
/// How much of apt's messages is kept, in bytes: descriptions of a few hundred
/// packages, with room.
const MAX_MESSAGES: u64 = 4 << 20;

/// Whose package lists are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lists {
    System,
    Own,
}

pub(crate) struct Apt<'a> {
    /// Folder for apt's own state and caches.
    dir: &'a Path,
    lists: Lists,
    progress: Progress,
}

/// One package as the index describes it.
struct Stanza {
    version: String,
    sha256: String,
    size: u64,
    depends: String,
}

impl<'a> Apt<'a> {
    /// apt on the system's lists if they are there and fresh, else on our own,
    /// which are then fetched.
    pub(crate) fn new(dir: &'a Path, progress: Progress) -> Result<Self, ImageError> {
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(ImageError::io("create", &path))?;
        }
        let mut apt = Self { dir, lists: Lists::System, progress };
        let age = apt.system_lists_age()?;
        let known = age.is_some() && apt.knows_packages()?;
        if !known {
            apt.use_own_lists()?;
        } else if age.is_some_and(|age| age > FRESH) {
            match apt.use_own_lists() {
                // old lists are better than none
                Err(ImageError::Network { .. }) => apt.lists = Lists::System,
                other => other?,
            }
        }
        Ok(apt)
    }

    pub(crate) fn lists(&self) -> Lists {
        self.lists
    }

    /// Fetches package lists into our own state and uses them from now on.
    pub(crate) fn use_own_lists(&mut self) -> Result<(), ImageError> {
        self.lists = Lists::Own;
        let _step = self.progress.step("Fetching Debian's package lists");
        let mut command = self.command("apt-get");
        command.args(["-q", "update"]);
        let (status, _, messages) = run(&mut command, "apt-get", |_| ())?;
        if status.success() && !unreachable(&messages) {
            Ok(())
        } else {
            Err(failure("apt-get update", &messages))
        }
    }

    /// The packages of the default image, as they are current: kernel first,
    /// then busybox.
    pub(crate) fn resolve(&self) -> Result<[PackageRecord; 2], ImageError> {
        let meta = self.require(KERNEL)?;
        let name = kernel_of(&meta.depends).ok_or_else(|| {
            ImageError::format(KERNEL, format!("it depends on no kernel (\"{}\")", meta.depends))
        })?;
        let kernel = self.require(name)?;
        let busybox = self.require(BUSYBOX)?;
        Ok([record(name, kernel), record(BUSYBOX, busybox)])
    }

    /// Fetches a package's file into `folder`, which is its own; returns its
    /// path. What an interrupted run left there is continued. The contents are
    /// not checked here.
    pub(crate) fn download(&self, package: &PackageRecord, folder: &Path) -> Result<PathBuf, ImageError> {
        fs::create_dir_all(folder).map_err(ImageError::io("create", folder))?;
        let what = format!("Fetching {} {}", package.name, package.version);
        let step = self.progress.bytes(&what, package.size);
        let mut command = self.command("apt-get");
        command
            .args(["-q", "download"])
            .arg(format!("{}={}", package.name, package.version))
            .current_dir(folder);
        let (status, _, messages) = run(&mut command, "apt-get", |()| {
            let got = deb_in(folder).and_then(|p| fs::metadata(p).ok());
            step.at(got.map_or(0, |m| m.len()));
        })?;
        match deb_in(folder) {
            Some(path) if status.success() => Ok(path),
            _ => Err(failure("apt-get download", &messages)),
        }
    }

    /// These packages and whatever they depend on, as apt would install them into
    /// an empty system.
    pub(crate) fn closure(&self, wanted: &[&str]) -> Result<Vec<PackageRecord>, ImageError> {
        let nothing = self.dir.join("empty");
        fs::write(&nothing, "").map_err(ImageError::io("write", &nothing))?;
        let mut status = std::ffi::OsString::from("Dir::State::status=");
        status.push(&nothing);
        let mut command = self.command("apt-get");
        command.arg("-o").arg(status);
        command.args(["-qq", "--no-install-recommends", "--simulate", "install"]).args(wanted);
        let (done, text, messages) = run(&mut command, "apt-get", |()| ())?;
        if !done.success() {
            return Err(failure("apt-get --simulate install", &messages));
        }
        let chosen: Vec<String> = text.lines().filter_map(installed).collect();
        let mut command = self.command("apt-cache");
        command.arg("show").args(&chosen);
        let (_, text, messages) = run(&mut command, "apt-cache", |()| ())?;
        let records: Vec<PackageRecord> =
            text.split("\n\n").filter_map(|p| Some(record(package_of(p)?, parse(p)?))).collect();
        if chosen.is_empty() || records.len() != chosen.len() {
            return Err(failure("apt-cache show", &messages));
        }
        Ok(records)
    }

    /// Fetches these packages' files into `folder`, which is its own. What an
    /// interrupted run left there is continued. The contents are not checked
    /// here.
    pub(crate) fn download_all(&self, packages: &[&PackageRecord], folder: &Path) -> Result<(), ImageError> {
        fs::create_dir_all(folder).map_err(ImageError::io("create", folder))?;
        let total = packages.iter().map(|p| p.size).fold(0, u64::saturating_add);
        let step = self.progress.bytes(&format!("Fetching {} packages", packages.len()), total);
        let mut command = self.command("apt-get");
        command.args(["-q", "download"]).current_dir(folder);
        command.args(packages.iter().map(|p| format!("{}={}", p.name, p.version)));
        let (status, _, messages) = run(&mut command, "apt-get", |()| {
            let files = fs::read_dir(folder).into_iter().flatten().flatten();
            step.at(files.filter_map(|f| Some(f.metadata().ok()?.len())).sum());
        })?;
        if status.success() { Ok(()) } else { Err(failure("apt-get download", &messages)) }
    }

    fn knows_packages(&self) -> Result<bool, ImageError> {
        Ok(self.show(KERNEL)?.is_some() && self.show(BUSYBOX)?.is_some())
    }

    fn require(&self, package: &str) -> Result<Stanza, ImageError> {
        self.show(package)?.ok_or_else(|| ImageError::NoPackage { package: package.to_owned() })
    }

    /// The candidate version of a package.
    fn show(&self, package: &str) -> Result<Option<Stanza>, ImageError> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", package]);
        let (_, text, _) = run(&mut command, "apt-cache", |_| ())?;
        Ok(parse(&text))
    }

    /// Time since the system's newest package list was fetched; `None` if there
    /// is none.
    fn system_lists_age(&self) -> Result<Option<Duration>, ImageError> {
        let mut command = Command::new("apt-config");
        command.args(["shell", "D", "Dir::State::lists/d"]);
        let (_, text, _) = run(&mut command, "apt-config", |_| ())?;
        let Some(dir) = text.trim().strip_prefix("D='").and_then(|t| t.strip_suffix('\'')) else {
            return Ok(None);
        };
        let newest = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                name.contains("_Packages") || name.ends_with("Release")
            })
            .filter_map(|e| e.metadata().ok()?.modified().ok())
            .max();
        // a clock that went back makes them fresh
        Ok(newest.map(|t| SystemTime::now().duration_since(t).unwrap_or_default()))
    }

    /// The distribution's own sources of packages that apt here uses, as lines of a
    /// *sources.list(5)*: those of others, which the host's user has added, are left out.
    pub(crate) fn sources(&self) -> Result<String, ImageError> {
        let mut command = self.command("apt-get");
        command.args(["indextargets", "--format", SOURCE_FORMAT, "Created-By: Packages"]);
        let (status, out, messages) = run(&mut command, "apt-get", |()| ())?;
        if !status.success() {
            return Err(failure("apt-get indextargets", &messages));
        }
        Ok(source_lines(&out))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut option = |name: &str, value: &Path| {
            let mut text = std::ffi::OsString::from(format!("{name}="));
            text.push(value);
            command.arg("-o").arg(text);
        };
        option("Dir::Cache", &self.dir.join("cache"));
        if self.lists == Lists::Own {
            option("Dir::State", &self.dir.join("state"));
        }
        // apt run by root would otherwise fetch as a user who cannot write here
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
        command
    }
}

/// What apt tells of a source, by a separator that is in no address.
const SOURCE_FORMAT: &str = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)";

fn source_lines(targets: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for target in targets.lines() {
        let ["Debian" | "Ubuntu", address, release, component] = target.split('|').collect::<Vec<_>>()[..]
        else {
            continue;
        };
        let line = format!("deb {address} {release} {component}\n");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

fn record(name: &str, stanza: Stanza) -> PackageRecord {
    PackageRecord { name: name.to_owned(), version: stanza.version, sha256: stanza.sha256, size: stanza.size }
}

/// The kernel in a list of dependencies: the first `linux-image-…`, without
/// version and alternatives.
fn kernel_of(depends: &str) -> Option<&str> {
    depends
        .split([',', '|'])
        .filter_map(|d| d.split_whitespace().next())
        .find(|name| name.starts_with("linux-image-") && !name.ends_with("-dbg"))
}

/// Reads the first paragraph of `apt-cache show` (*deb822(5)*).
fn parse(text: &str) -> Option<Stanza> {
    let first = text.split("\n\n").next()?;
    let field = |name: &str| {
        first.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let sha256 = field("SHA256")?.to_ascii_lowercase();
    if !hash::is_sha256(&sha256) {
        return None;
    }
    Some(Stanza {
        version: field("Version")?.to_owned(),
        sha256,
        size: field("Size")?.parse().ok()?,
        depends: field("Depends").unwrap_or_default().to_owned(),
    })
}

/// The name that a paragraph of `apt-cache show` describes.
fn package_of(paragraph: &str) -> Option<&str> {
    paragraph.lines().find_map(|line| line.strip_prefix("Package: ")).map(str::trim)
}

/// `NAME=VERSION` of a line that says what `apt-get --simulate` would install:
/// `Inst NAME (VERSION ORIGIN [ARCHITECTURE]) …`.
fn installed(line: &str) -> Option<String> {
    let mut words = line.strip_prefix("Inst ")?.split_whitespace();
    Some(format!("{}={}", words.next()?, words.next()?.strip_prefix('(')?))
}

fn deb_in(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "deb"))
}

/// Runs a command to its end, calling `meanwhile` now and then; returns what it
/// printed.
fn run(
    command: &mut Command,
    program: &'static str,
    mut meanwhile: impl FnMut(()),
) -> Result<(ExitStatus, String, String), ImageError> {
    let broken = |e: std::io::Error| ImageError::Apt { what: program.to_owned(), detail: e.to_string() };
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => ImageError::NoApt { program },
            _ => broken(e),
        })?;
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let status = loop {
        match child.try_wait().map_err(broken)? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
        meanwhile(());
    };
    Ok((status, out.join().unwrap_or_default(), err.join().unwrap_or_default()))
}

/// Reads all, keeps the beginning.
fn collect(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut from) = from {
            let _ = from.by_ref().take(MAX_MESSAGES).read_to_end(&mut kept);
            let _ = std::io::copy(&mut from, &mut std::io::sink());
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// apt reports sources it could not reach as mere warnings of `update`.
fn unreachable(messages: &str) -> bool {
    [
        "Could not resolve",
        "Temporary failure resolving",
        "Could not connect",
        "Unable to connect",
        "Cannot initiate the connection",
        "Connection timed out",
        "Connection failed",
        "Network is unreachable",
    ]
    .iter()
    .any(|m| messages.contains(m))
}

fn failure(what: &str, messages: &str) -> ImageError {
    // errors are "E:", their details "Err:" and indented lines
    let line = messages
        .lines()
        .find(|l| l.starts_with("E:"))
        .or_else(|| messages.lines().find(|l| l.starts_with("W:")))
        .or_else(|| messages.lines().last())
        .unwrap_or("no message");
    let detail = line.trim_start_matches("E:").trim_start_matches("W:").trim().to_owned();
    if messages.contains("No space left on device") || messages.contains("enough free space") {
        return ImageError::DiskFull { path: PathBuf::from("the packages") };
    }
    if unreachable(messages) {
        return ImageError::Network { detail };
    }
    ImageError::Apt { what: what.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOW: &str = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
        Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), other | more\n\
        Size: 1504\nSHA256: 00BE21c0c17f08ddf26e82d3b53fe7a41efa4a288938da6bb69e89c4b25c281d\n\n\
        Package: linux-image-cloud-amd64\nVersion: older\n";

    #[test]
    fn sources_are_the_distributions_own() {
        let told = "Debian|http://mirror/debian/|trixie|main\nDebian|http://mirror/debian/|trixie|main\n\
                    Someone|http://other/|stable|main\nDebian|http://mirror/sec/|trixie-security|main\nodd\n";
        let lines = "deb http://mirror/debian/ trixie main\ndeb http://mirror/sec/ trixie-security main\n";
        assert_eq!(source_lines(told), lines);
    }

    #[test]
    fn candidate_and_its_kernel_are_read() {
        let s = parse(SHOW).unwrap();
        assert_eq!((s.version.as_str(), s.size), ("6.1.192-2", 1504));
        assert!(hash::is_sha256(&s.sha256));
        assert_eq!(kernel_of(&s.depends), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_of("a, linux-image-x-dbg (= 1), linux-image-y | z"), Some("linux-image-y"));
        assert_eq!(kernel_of(""), None);
    }

    #[test]
    fn simulated_installation_is_read() {
        let line = "Inst libc6 (2.36-9 Debian:12.15/oldstable [amd64]) []";
        assert_eq!(installed(line).as_deref(), Some("libc6=2.36-9"));
        assert_eq!(installed("Conf libc6 (2.36-9 Debian [amd64])"), None);
        assert_eq!(installed("Inst x"), None);
        assert_eq!(package_of(SHOW), Some("linux-image-cloud-amd64"));
    }

    #[test]
    fn entries_without_a_usable_hash_are_no_packages() {
        assert!(parse("").is_none());
        assert!(parse("Version: 1\nSize: 3\nSHA256: ../../etc\n").is_none());
        assert!(parse(&SHOW.replace("Size: 1504", "Size: x")).is_none());
    }

    #[test]
    fn failures_are_told_apart() {
        let text = "Err:1 http://mirror x\n  Temporary failure resolving 'mirror'\nE: Failed to fetch x\n";
        assert!(
            matches!(failure("u", text), ImageError::Network { detail } if detail == "Failed to fetch x")
        );
        let text = "E: Write error - write (28: No space left on device)\n";
        assert!(matches!(failure("u", text), ImageError::DiskFull { .. }));
        let text = "E: Unable to parse package file\n";
        assert!(matches!(failure("u", text), ImageError::Apt { .. }));
    }
}
