//! The `debian` image as the command uses it: choosing a build, setting one up in a
//! machine, the disk with its overlay, and who may log in.

use crate::exit::Error;
use devices::virtio::overlay;
use image::debian::{Debian, Stage};
use image::{ImageError, Options};
use indicatif::{ProgressBar, ProgressStyle};
use machine::{Disk, Overlay, Place};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The most that the set-up may print, in bytes.
const MAX_OUTPUT: u64 = 64 << 20;
/// Where there is no bar, a line is printed for so many packages.
const PLAIN_EVERY: usize = 20;
/// Lines of it kept for an error.
const LAST_LINES: usize = 8;
/// The longest file of public keys read, in bytes.
const MAX_KEYS: u64 = 64 << 10;

/// The build that this machine is to have: the one its overlay was made on, else the
/// newest; made if there is none.
///
/// # Errors
/// There is none and none can be made.
pub(crate) fn for_machine(overlay: Option<&Path>, platform: &Path, quiet: bool) -> Result<Debian, Error> {
    let options = Options { cache_dir: None, quiet };
    if let Some(path) = overlay
        && fs::metadata(path).is_ok_and(|m| m.len() > 0)
    {
        let why = |reason: String| Error::bad(format!("overlay {}: {reason}", path.display()));
        let file = File::open(path).map_err(|e| why(format!("cannot open: {e}; check the path")))?;
        let base = overlay::base_of(&file).map_err(|e| why(e.to_string()))?;
        return image::debian::with_identity(&options, &base)?.ok_or_else(|| {
            why("the build of the Debian image that it was made on is not there any more, or has changed; \
                 name another file"
                .into())
        });
    }
    Ok(image::debian::ensure(&options, |stage| set_up(stage, platform, quiet))?)
}

/// Builds the image from the packages that are current.
///
/// # Errors
/// As [`image::debian::build`].
pub(crate) fn build(platform: &Path, quiet: bool) -> Result<Debian, ImageError> {
    let options = Options { cache_dir: None, quiet };
    image::debian::build(&options, |stage| set_up(stage, platform, quiet))
}

/// The image's disk as this machine's: shared, with an overlay of its own.
pub(crate) fn root(image: &Debian, overlay: Option<&Path>) -> Disk {
    let place = match overlay {
        Some(path) => Place::Kept(path.to_owned()),
        // where the image is there is room, and sparse files are known
        None => Place::Passing(image.folder.clone()),
    };
    Disk {
        path: image.disk.clone(),
        read_only: false,
        overlay: Some(Overlay { base: image.identity(), place }),
    }
}

/// The user's public keys, one a line: who may log in as root.
pub(crate) fn keys(quiet: bool) -> String {
    let Some(home) = std::env::var_os("HOME").map(PathBuf::from) else { return String::new() };
    let mut files: Vec<PathBuf> = fs::read_dir(home.join(".ssh"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "pub"))
        .collect();
    files.sort();
    let mut out = String::new();
    for path in files {
        match read_keys(&path) {
            Ok(keys) => out += &keys,
            Err(e) if !quiet => eprintln!("kluis: {} is left out: {e}", path.display()),
            Err(_) => {}
        }
    }
    out
}

fn read_keys(path: &Path) -> std::io::Result<String> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() || meta.len() > MAX_KEYS {
        return Err(std::io::Error::other("no file of public keys"));
    }
    Ok(public_keys(&fs::read_to_string(path)?))
}

/// Lines that begin as a public key does (*sshd(8)*, AUTHORIZED_KEYS FILE FORMAT).
fn public_keys(text: &str) -> String {
    let kinds = ["ssh-", "ecdsa-", "sk-"];
    let lines = text.lines().map(str::trim).filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Runs the set-up in a machine of this same program.
fn set_up(stage: &Stage, platform: &Path, quiet: bool) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("cannot start a machine: {e}");
    let mut command = Command::new("/proc/self/exe");
    command.arg("--platform").arg(platform).args(["run", "--quiet", "--cpus", "2", "--memory", "2G"]);
    for (number, disk) in stage.disks.iter().enumerate() {
        let mut disk = disk.clone().into_os_string();
        disk.push(if number == 0 { "" } else { ",ro" });
        command.arg("--disk").arg(disk);
    }
    command.args(["--", "sh", "-c", stage.script]);
    // the script ends when its input does: with this process
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let _open = child.stdin.take();
    let (lines_in, lines) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
    for stream in streams.into_iter().flatten() {
        let lines_in = lines_in.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream.take(MAX_OUTPUT)).split(b'\n').map_while(Result::ok) {
                if lines_in.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
    }
    drop(lines_in);
    let mut watch = Watch::new(stage.packages, quiet);
    lines.iter().for_each(|line| watch.line(line));
    let status = child.wait().map_err(cannot)?;
    if status.success() && watch.done { Ok(()) } else { Err(watch.failure(&status.to_string())) }
}

/// What is shown while the set-up runs.
struct Watch {
    bar: Option<ProgressBar>,
    plain: bool,
    step: String,
    packages: usize,
    configured: usize,
    done: bool,
    last: VecDeque<String>,
}

impl Watch {
    fn new(packages: usize, quiet: bool) -> Self {
        let bar = (!quiet && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_message("Starting a machine to set the image up");
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let plain = !quiet && bar.is_none();
        let last = VecDeque::new();
        Self { bar, plain, step: String::new(), packages, configured: 0, done: false, last }
    }

    fn line(&mut self, line: String) {
        if let Some(step) = line.strip_prefix("step: ") {
            self.done = step == "Done";
            self.step = step.chars().filter(|c| !c.is_control()).collect();
            if self.plain {
                eprintln!("{}", self.step);
            }
            self.show();
        } else if line.starts_with("Setting up ") {
            self.configured += 1;
            if self.plain && self.configured.is_multiple_of(PLAIN_EVERY) {
                eprintln!("{}", self.now());
            }
            self.show();
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn show(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.now());
        }
    }

    /// How far it is.
    fn now(&self) -> String {
        match self.configured {
            0 => self.step.clone(),
            n => format!("{}, {n} of {}", self.step, self.packages),
        }
    }

    /// Why it did not get to the end, in one line.
    fn failure(&self, status: &str) -> String {
        let said: Vec<String> = self
            .last
            .iter()
            .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
            .filter(|line: &String| !line.trim().is_empty())
            .collect();
        format!("at \"{}\" ({status}); it said last: {}", self.step, said.join(" | "))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_are_passed_on() {
        let text =
            "# mine\nssh-ed25519 AAAA me\n\n-----BEGIN OPENSSH PRIVATE KEY-----\n  ecdsa-sha2-nistp256 BB\n";
        assert_eq!(public_keys(text), "ssh-ed25519 AAAA me\necdsa-sha2-nistp256 BB\n");
    }

    #[test]
    fn set_up_is_done_only_when_it_says_so() {
        let mut watch = Watch::new(3, true);
        for line in
            ["step: Configuring packages", "Setting up a (1) ...", "Setting up b (1) ...", "oh\x1b[31m no"]
        {
            watch.line(line.into());
        }
        assert_eq!((watch.configured, watch.done), (2, false));
        let why = watch.failure("exit status: 1");
        assert!(why.starts_with("at \"Configuring packages\" (exit status: 1)"), "{why}");
        assert!(why.ends_with("| oh[31m no"), "{why}");
        watch.line("step: Done".into());
        assert!(watch.done);
        (0..100).for_each(|n| watch.line(n.to_string()));
        assert_eq!(watch.last.len(), LAST_LINES);
    }
}
