//! The enclave of the demo: the project `examples/clinic`, which travels in this program, built
//! by `kluis enclave build --encrypted` as anybody's.

use crate::enclave::sdk;
use crate::exit::Error;
use crate::leave_out::leaves_out;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Paths, in the project's folder, and contents.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/clinic.rs"));
/// Says which version of the files there is.
const STAMP: &str = ".version";
/// What cargo makes, which stays when the files change.
const TARGET: &str = "target";

/// The project as it was built.
pub(super) struct Project {
    /// NAME.sgxs: ciphertext, and its loader.
    pub(super) stream: PathBuf,
    /// NAME.sig.
    pub(super) sigstruct: PathBuf,
    /// The enclave's program before it was encrypted.
    pub(super) program: PathBuf,
    /// The key that opens it.
    pub(super) key: Option<PathBuf>,
    /// The host's program.
    pub(super) host: PathBuf,
    /// Nobody builds another version meanwhile.
    _lock: File,
}

/// What `enclave build --json` tells of an enclave.
#[derive(Deserialize)]
struct Built {
    stream: PathBuf,
    sigstruct: PathBuf,
    program: PathBuf,
    key: Option<PathBuf>,
}

/// The records that are shipped.
pub(super) fn records() -> Result<&'static str, Error> {
    let found = FILES.iter().find(|(path, _)| *path == "records.csv");
    found.and_then(|(_, csv)| str::from_utf8(csv).ok()).ok_or_else(|| Error::failed("no records"))
}

/// Builds it in the cache's folder `demo`; `begun` is called if that will take long.
///
/// # Errors
/// The folder cannot be written, or cargo cannot build.
pub(super) fn build(begun: impl FnOnce() -> Result<(), Error>) -> Result<Project, Error> {
    let folder = image::default_folder()?.join("demo");
    let cannot =
        |path: &Path, e: &std::io::Error| Error::bad(format!("cannot write {}: {e}", path.display()));
    fs::create_dir_all(&folder).map_err(|e| cannot(&folder, &e))?;
    let lock = File::create(folder.join("lock")).map_err(|e| cannot(&folder, &e))?;
    lock.lock().map_err(|e| cannot(&folder, &e))?;
    let project = folder.join("clinic");
    let new = unpack(&project).map_err(|e| cannot(&project, &e))?;
    let long = new || !project.join(TARGET).exists();
    if long {
        begun()?;
    }
    let built = run(&project, long)?;
    let host = built.stream.with_file_name("clinic-host");
    let Built { stream, sigstruct, program, key } = built;
    Ok(Project { stream, sigstruct, program, key, host, _lock: lock })
}

/// Writes the files; whether they are others than there were.
fn unpack(folder: &Path) -> std::io::Result<bool> {
    let sdk = sdk::FILES.iter().map(|(path, text)| (Path::new("sdk").join(path), *text));
    let all = || FILES.iter().map(|(path, text)| (PathBuf::from(path), *text)).chain(sdk.clone());
    let mut digest = Sha256::new();
    for (path, text) in all() {
        digest.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
        digest.update(Sha256::digest(text));
    }
    let version = format!("{:x}\n", digest.finalize());
    let stamp = folder.join(STAMP);
    match fs::read_to_string(&stamp) {
        Ok(found) if found == version => return Ok(false),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::create_dir_all(folder)?;
    // files that are no more would be built as well
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != TARGET {
            fs::remove_dir_all(entry.path())?;
        }
    }
    for (path, text) in all() {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text)?;
    }
    fs::write(stamp, version)?;
    Ok(true)
}

fn run(project: &Path, long: bool) -> Result<Built, Error> {
    let cannot = |e: std::io::Error| Error::failed(format!("cannot start `kluis enclave build`: {e}"));
    let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
    command.args(["--json", "enclave", "build", "--project"]).arg(project);
    if !leaves_out("encryption") {
        command.arg("--encrypted");
    }
    // what cargo says is progress where it takes long, else a reason at most
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(if long { Stdio::inherit() } else { Stdio::piped() });
    let output = command.output().map_err(cannot)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::bad(format!("the demo's enclave cannot be built: {}", said.trim())));
    }
    let built: Vec<Built> = serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::failed(format!("`kluis enclave build` cannot be understood: {e}")))?;
    built.into_iter().next().ok_or_else(|| Error::failed("`kluis enclave build` has built no enclave"))
}
