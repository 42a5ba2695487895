//! What goes into the machine: the enclave as its maker signed it, and what others make of it.

use super::project::Project;
use crate::enclave::keys;
use crate::exit::Error;
use enclave_image::elf::Program;
use enclave_image::{Statement, encrypt, sgxs, sigstruct};
use rustix::fs::OFlags;
use sgx_abi::{AttributeFlags, SecinfoFlags, Sigstruct};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes that are taken for a trace of the program, if they are found elsewhere.
const WINDOW: usize = 16;

/// Most bytes of a file that the machine has written.
const MAX_FILE: u64 = 16 << 20;

/// The folder that the machine shares. What is there may be the machine's: no link is followed.
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    /// Beside it, for files that are not whole yet.
    staging: PathBuf,
    /// What the maker has signed.
    pub(super) sig: Sigstruct,
    /// MRENCLAVE of the changed one.
    pub(super) changed: [u8; 32],
    stream: sgxs::Enclave,
    program: Vec<u8>,
    key: Option<PathBuf>,
}

/// Where the program was looked for, in bytes, and what of it was found.
pub(super) struct Search {
    pub(super) windows: usize,
    pub(super) found: usize,
    pub(super) encrypted: usize,
    pub(super) loader: usize,
}

impl Shared {
    /// Puts the enclave, the host program and the variants into a new folder:
    ///
    /// | file | |
    /// |---|---|
    /// | `clinic.sgxs`, `.sig` | as its maker signed it |
    /// | `old.sig` | the same pages, signed as the version before |
    /// | `debug.sig` | the same pages, signed as a debug enclave |
    /// | `changed.sgxs`, `.sig` | with a byte changed, and signed again |
    ///
    /// # Errors
    /// A file cannot be read or written, or a signature not made.
    pub(super) fn new(project: &Project, folder: PathBuf) -> Result<Self, Error> {
        let staging = folder.with_extension("staging");
        for folder in [&folder, &staging] {
            fs::create_dir(folder).map_err(|e| cannot(folder, &e))?;
        }
        let read = |path: &Path| fs::read(path).map_err(|e| cannot(path, &e));
        let (pages, signed) = (read(&project.stream)?, read(&project.sigstruct)?);
        let stream = sgxs::Enclave::read(&pages).map_err(Error::failed)?;
        let sig = sigstruct::read(&signed).map_err(Error::failed)?;
        let (program, key) = (read(&project.program)?, project.key.clone());
        let changed = changed(stream.clone())?;
        let shared = Self { folder, staging, sig, changed: changed.measure(), stream, program, key };
        shared.copy(&project.host, "clinic-host")?;
        shared.write("clinic.sgxs", &pages)?;
        shared.write("clinic.sig", &signed)?;
        shared.sign("old", |statement| statement.isvsvn -= 1)?;
        shared.sign("debug", |statement| statement.attributes.flags |= AttributeFlags::DEBUG)?;
        shared.write("changed.sgxs", &changed.write())?;
        shared.sign("changed", |statement| statement.mrenclave = changed.measure())?;
        Ok(shared)
    }

    /// The maker's word on something else than they have made.
    fn sign(&self, name: &str, change: impl FnOnce(&mut Statement)) -> Result<(), Error> {
        let mut statement = Statement::of(&self.sig);
        change(&mut statement);
        let sig = statement.sign(&keys::development()?).map_err(Error::failed)?;
        self.write(&format!("{name}.sig"), &sigstruct::write(&sig))
    }

    /// Puts the key of the program into the machine, for a first start.
    ///
    /// # Errors
    /// It cannot be copied.
    pub(super) fn put_key(&self, name: &str) -> Result<(), Error> {
        match &self.key {
            Some(key) => self.copy(key, &format!("{name}.key")),
            None => Ok(()),
        }
    }

    /// Takes it away again.
    ///
    /// # Errors
    /// It is still there.
    pub(super) fn take_key(&self, name: &str) -> Result<(), Error> {
        if self.key.is_some() { self.remove(&format!("{name}.key")) } else { Ok(()) }
    }

    /// Takes a file out of the machine.
    ///
    /// # Errors
    /// It is still there.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        fs::remove_file(&path).map_err(|e| cannot(&path, &e))
    }

    /// A file that was written in the machine.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.folder.join(name);
        let mut bytes = Vec::new();
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path);
        opened
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
            .map(|_| bytes)
            .map_err(|e| cannot(&path, &e))
    }

    /// A file for the machine.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let staged = self.staging.join(name);
        fs::write(&staged, bytes).map_err(|e| cannot(&staged, &e))?;
        self.place(name)
    }

    fn copy(&self, from: &Path, name: &str) -> Result<(), Error> {
        fs::copy(from, self.staging.join(name)).map_err(|e| cannot(from, &e))?;
        self.place(name)
    }

    /// Puts what is whole in the place of what is there.
    fn place(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        fs::rename(self.staging.join(name), &path).map_err(|e| cannot(&path, &e))
    }

    /// Looks for the program's code in the file that goes into the machine, but for the loader.
    ///
    /// # Errors
    /// The program cannot be read.
    pub(super) fn search(&self) -> Result<Search, Error> {
        let program = Program::read(&self.program).map_err(|e| Error::failed(format!("the program {e}")))?;
        let code = program.segments.iter().filter(|segment| segment.executable);
        let pieces = code.flat_map(|segment| segment.data.chunks_exact(WINDOW));
        // padding tells nothing
        let telling = |piece: &&[u8]| piece.iter().collect::<HashSet<_>>().len() >= WINDOW / 2;
        let wanted: HashSet<&[u8]> = pieces.filter(telling).collect();
        let loader = encrypt::payload(&self.stream).map_or(u64::MAX, |payload| payload.loader);
        let content = self.stream.pages.iter().filter_map(|page| Some((page.offset, page.data.as_ref()?)));
        let (inside, clear): (Vec<_>, Vec<_>) = content.partition(|(offset, _)| *offset < loader);
        let bytes: Vec<u8> = inside.iter().flat_map(|(_, data)| data.iter().copied()).collect();
        let found: HashSet<&[u8]> = bytes.windows(WINDOW).filter(|window| wanted.contains(window)).collect();
        let loader = clear.iter().map(|(_, data)| data.len()).sum();
        Ok(Search { windows: wanted.len(), found: found.len(), encrypted: bytes.len(), loader })
    }
}

/// The enclave with its last byte of code changed that is never executed: after the end of it.
fn changed(mut enclave: sgxs::Enclave) -> Result<sgxs::Enclave, Error> {
    let code = enclave
        .pages
        .iter_mut()
        .rev()
        .filter(|page| page.flags.contains(SecinfoFlags::X) && !page.flags.contains(SecinfoFlags::W));
    let mut last = code.filter_map(|page| page.data.as_mut()?.last_chunk_mut::<WINDOW>());
    let end = last.find(|bytes| **bytes == [0; WINDOW]);
    let end = end.ok_or_else(|| Error::failed("the enclave's code leaves no byte free to change"))?;
    end[WINDOW - 1] = 1;
    Ok(enclave)
}

fn cannot(path: &Path, e: &std::io::Error) -> Error {
    Error::failed(format!("{}: {e}", path.display()))
}
