//! `kluis enclave build`: programs by cargo, enclaves of them, signatures.
//!
//! What cargo and the compiler are told is fixed, so that one source gives one
//! measurement: flags of the user's environment are left out, paths of this machine
//! replaced, and code is made in one unit.

use super::args::BuildArgs;
use super::project::{self, Host, Project};
use super::{encrypted, keys};
use crate::exit::{self, Error};
use crate::units;
use crate::whole;
use enclave_abi::build::{FLAGS, PROFILE, TARGET, TEST_CFG};
use enclave_image::elf::Program;
use enclave_image::inspect::hex;
use enclave_image::{CodeKey, Config, SigningKey, encrypt, layout, sgxs, sigstruct};
use serde::Serialize;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An enclave that was built.
#[derive(Debug, Serialize)]
pub(super) struct Built {
    pub(super) name: String,
    /// NAME.sgxs.
    pub(super) stream: PathBuf,
    /// NAME.sig.
    pub(super) sigstruct: PathBuf,
    /// The program with its symbols.
    pub(super) program: PathBuf,
    pub(super) mrenclave: String,
    pub(super) mrsigner: String,
    /// Whether that is the key for development.
    development: bool,
    product: u16,
    svn: u16,
    pub(super) debug: bool,
    /// If it is encrypted: the file of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    /// Bytes of its address range.
    size: u64,
    /// Bytes of the pages that are added.
    pub(super) memory: u64,
}

/// Does what was asked.
///
/// # Errors
/// It cannot be built.
pub(super) fn main(args: &BuildArgs, json: bool) -> Result<u8, Error> {
    let project = Project::find(args.project.as_deref())?;
    let built = enclaves(&project, args, Purpose::Use)?;
    if let Some(host) = &project.host {
        self::host(&project, host, args, Purpose::Use)?;
    }
    if json {
        crate::print_json(&built)?;
    } else {
        crate::print(&built.iter().map(text).collect::<String>())?;
    }
    Ok(exit::OK)
}

fn text(built: &Built) -> String {
    let signer = if built.development { " (your key for development)" } else { "" };
    let debug = if built.debug { ", DEBUG: the host can look in" } else { "" };
    let key = built.key.as_ref().map(|key| format!("  ENCRYPTED  its key is {}\n", key.display()));
    format!(
        "{}\n  file       {}\n  MRENCLAVE  {}\n  MRSIGNER   {}{signer}\n{}  product {}, version {}{debug}\n  {} of memory in {}\n",
        built.name,
        built.stream.display(),
        built.mrenclave,
        built.mrsigner,
        key.unwrap_or_default(),
        built.product,
        built.svn,
        units::bytes(built.memory),
        units::bytes(built.size),
    )
}

/// What enclaves are built for. What is not for use is apart, and may be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be what they are.
    Use,
    /// To run their tests.
    Test,
    /// To be followed line by line.
    Debug,
}

impl Purpose {
    /// Folder of what is built.
    pub(super) fn output(self, project: &Project) -> PathBuf {
        match self {
            Self::Use => project.output(),
            Self::Test => project.test_output(),
            Self::Debug => project.debug_output(),
        }
    }

    /// Sets what cargo's profile is for the project's own packages: unoptimised and with
    /// debug assertions if it is to be debugged. What they depend on is as ever.
    fn profile(self, project: &Project, cargo: &mut Command) {
        if self != Self::Debug {
            return;
        }
        for package in &project.packages {
            for setting in ["opt-level=0", "debug-assertions=true"] {
                cargo.arg("--config").arg(format!("profile.release.package.{package}.{setting}"));
            }
        }
    }
}

/// Builds all enclaves of a project.
///
/// # Errors
/// One cannot be built.
pub(super) fn enclaves(project: &Project, args: &BuildArgs, purpose: Purpose) -> Result<Vec<Built>, Error> {
    encrypted::check(project, args, purpose)?;
    let output = purpose.output(project);
    let key = keys::development()?;
    for enclave in &project.enclaves {
        // the same dependencies with and without tests: only the program is another
        let (command, own): (_, &[&str]) = match purpose {
            Purpose::Use | Purpose::Debug => ("build", &[]),
            Purpose::Test => ("rustc", &["--", "--cfg", TEST_CFG]),
        };
        let mut cargo = inside(command, project, args);
        purpose.profile(project, &mut cargo);
        cargo.args(["--package", &enclave.package, "--bin", &enclave.name]).args(own);
        done(cargo)?;
    }
    fs::create_dir_all(&output).map_err(|e| cannot("make", &output, &e))?;
    project
        .enclaves
        .iter()
        .map(|enclave| {
            let mut config = enclave.config.clone();
            // a failing test may say why
            config.debug |= purpose != Purpose::Use;
            let encryption = if args.encrypted {
                let loader = encrypted::loader(project, enclave, args)?;
                let (key, file) = encrypted::key(args, &output, &enclave.name)?;
                Some(Encryption { loader, key, file })
            } else {
                None
            };
            finish(&enclave.name, &config, &programs(project), &output, &key, encryption)
        })
        .collect()
}

/// With what an enclave is encrypted.
struct Encryption {
    /// The loader's program.
    loader: Vec<u8>,
    key: CodeKey,
    /// Where the key stands.
    file: PathBuf,
}

/// From the program to the two files.
fn finish(
    name: &str,
    config: &Config,
    programs: &Path,
    output: &Path,
    key: &SigningKey,
    encryption: Option<Encryption>,
) -> Result<Built, Error> {
    let program = programs.join(name);
    let file = fs::read(&program).map_err(|e| cannot("read", &program, &e))?;
    let of = |e: &dyn std::fmt::Display| Error::bad(format!("the enclave {name}: {e}"));
    let read = Program::read(&file)
        .map_err(|e| Error::bad(format!("the enclave {name} cannot be made: its program {e}")))?;
    let settings = config.settings();
    let made = match &encryption {
        None => layout::lay_out(&read, &settings).map_err(encrypt::EncryptError::from),
        Some(Encryption { loader, key, .. }) => {
            let loader = Program::read(loader).map_err(|e| of(&format_args!("its loader {e}")))?;
            encrypt::lay_out(&read, &loader, &settings, key)
        }
    };
    let made = made.map_err(|e| of(&format_args!("[package.metadata.enclave]: {e}")))?;
    let mrenclave = made.measure();
    let (stream, sig_file) = names(output, name);
    write(&stream, &made.write())?;
    let of_another = fs::read(&sig_file).ok().and_then(|bytes| sigstruct::read(&bytes).ok()).filter(|sig| {
        sig.enclavehash == mrenclave && sgx::sigstruct::mrsigner(sig) != key.public().mrsigner()
    });
    let development = of_another.is_none();
    let sig = match of_another {
        // signed by `kluis enclave sign`, and nothing has changed since
        Some(sig) => sig,
        None => {
            let statement = config.statement(mrenclave, super::sign::today()?);
            let sig = statement.sign(key).map_err(|e| of(&e))?;
            write(&sig_file, &sigstruct::write(&sig))?;
            sig
        }
    };
    Ok(Built {
        name: name.to_owned(),
        stream,
        sigstruct: sig_file,
        program,
        mrenclave: hex(&mrenclave),
        mrsigner: hex(&sgx::sigstruct::mrsigner(&sig)),
        development,
        product: sig.isvprodid,
        svn: sig.isvsvn,
        debug: sig.attributes.flags.contains(sgx_abi::AttributeFlags::DEBUG),
        key: encryption.map(|encryption| encryption.file),
        size: made.size,
        memory: made.pages.len() as u64 * sgx_abi::PAGE_SIZE as u64,
    })
}

/// NAME.sgxs and NAME.sig of an enclave.
pub(super) fn names(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.sgxs")), folder.join(format!("{name}.sig")))
}

/// Builds the host program beside the enclaves, static, so that it runs in any guest.
///
/// # Errors
/// It cannot be built.
pub(super) fn host(project: &Project, host: &Host, args: &BuildArgs, purpose: Purpose) -> Result<(), Error> {
    let mut cargo = build(project, args, &[STATIC.into()]);
    purpose.profile(project, &mut cargo);
    cargo.args(["--package", &host.package]);
    done(cargo)?;
    let output = purpose.output(project);
    fs::create_dir_all(&output).map_err(|e| cannot("make", &output, &e))?;
    copy_program(&programs(project).join(&host.name), &output.join(&host.name))
}

/// Where cargo leaves programs, until it builds others of the same name.
pub(super) fn programs(project: &Project) -> PathBuf {
    project.cargo_target().join(TARGET).join("release")
}

/// Copies a program from cargo's folder.
pub(super) fn copy_program(from: &Path, to: &Path) -> Result<(), Error> {
    let program = fs::read(from).map_err(|e| cannot("read", from, &e))?;
    write(to, &program)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(|e| cannot("write", to, &e))
}

/// The flag that links a program of the guest.
pub(super) const STATIC: &str = "-Ctarget-feature=+crt-static";

/// `cargo build` in a project with these flags and no others.
pub(super) fn build(project: &Project, args: &BuildArgs, flags: &[OsString]) -> Command {
    cargo("build", project, args, flags)
}

/// A command of cargo's in a project, for what runs in an enclave.
pub(super) fn inside(command: &str, project: &Project, args: &BuildArgs) -> Command {
    let flags: Vec<OsString> = FLAGS.iter().map(Into::into).chain(remapped(project)).collect();
    let mut cargo = cargo(command, project, args, &flags);
    for setting in PROFILE {
        cargo.args(["--config", setting]);
    }
    cargo
}

/// The same with another command of cargo's.
fn cargo(command: &str, project: &Project, args: &BuildArgs, flags: &[OsString]) -> Command {
    let mut cargo = project::cargo();
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"];
        let exact = ["RUSTFLAGS", "CARGO_INCREMENTAL"];
        if exact.contains(&&*text) || foreign.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\u{1f}")));
    cargo.current_dir(&project.root);
    cargo.args([command, "--release", "--target", TARGET, "--target-dir"]).arg(project.cargo_target());
    if args.offline {
        cargo.arg("--offline");
    }
    cargo
}

/// Folders of this machine, and the names that stand for them in what panics say and in
/// what a debugger finds in the program.
pub(super) fn folders(project: &Project) -> Vec<(PathBuf, &'static str)> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let target = (!project.target.starts_with(&project.root)).then(|| project.target.clone());
    let named = [(home, "/cargo"), (target, "/project/target"), (Some(project.root.clone()), "/project")];
    // the last that fits counts
    named.into_iter().filter_map(|(folder, name)| Some((folder?, name))).collect()
}

/// Flags that replace those folders.
fn remapped(project: &Project) -> Vec<OsString> {
    let remap = |(from, to): (PathBuf, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    };
    folders(project).into_iter().map(remap).collect()
}

/// Runs cargo; what it says goes to standard error.
pub(super) fn done(mut cargo: Command) -> Result<(), Error> {
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(project::no_cargo)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::bad("cargo could not build it: see above"))
}

/// Writes a file as a whole.
pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    whole::write(file, bytes).map_err(|e| cannot("write", file, &e))
}

pub(super) fn cannot(what: &str, file: &Path, e: &std::io::Error) -> Error {
    Error::bad(format!("cannot {what} {}: {e}", file.display()))
}

/// Reads the stream of an enclave, of anybody's making.
///
/// # Errors
/// It is none.
pub(super) fn read_stream(file: &Path) -> Result<sgxs::Enclave, Error> {
    let bytes = fs::read(file).map_err(|e| cannot("read", file, &e))?;
    sgxs::Enclave::read(&bytes).map_err(|e| Error::bad(format!("{} {e}", file.display())))
}
