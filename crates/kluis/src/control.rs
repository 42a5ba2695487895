//! The way to a machine that runs: a socket in the user's own runtime folder,
//! on which one line of JSON asks and one answers.
//!
//! Whoever may use it is the user whose process the machine is: it shows
//! nothing that they could not see, and does nothing that they could not do.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use machine::{MAX_BUS_BYTES, Paused, Running};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::exit::Error;
use crate::ps::{About, Now};
use crate::sgx::Epc;

/// Most bytes of a question.
const MAX_QUESTION: u64 = 4096;
/// Most bytes of an answer.
const MAX_ANSWER: u64 = 64 << 20;
/// How long either side may be silent. A drill waits up to 5 seconds for processors.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a snapshot may take: as long as a slow disk does for a large machine.
const SNAPSHOT: Duration = Duration::from_secs(3600);

/// Takes a snapshot into a file; the machine may be to end with it. Bytes done, and all,
/// are told meanwhile.
pub(crate) type TakeSnapshot = Box<dyn Fn(File, bool, &mut Told<'_>) -> Result<Answer, String> + Send>;

/// Is told how far something is: bytes done, and all.
pub(crate) type Told<'a> = dyn FnMut(u64, u64) + 'a;

/// What can be asked of a machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// What it is, and since when.
    About,
    /// Its EPC.
    Inspect,
    /// A drill on the memory of an EPC page, or of the first of an enclave.
    Tamper {
        /// Name of the drill.
        drill: String,
        /// The page.
        page: Option<u32>,
    },
    /// The loss of its EPC.
    Lose,
    /// To stand still.
    Pause,
    /// To go on.
    Resume,
    /// A snapshot, into the file that comes with the question.
    Snapshot {
        /// End the machine with it.
        stop: bool,
    },
    /// What a bus master reads.
    Bus {
        /// Physical address.
        address: u64,
        /// Bytes.
        length: u32,
    },
}

/// A line of what a machine says.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// It is at it: bytes done, and all.
    Progress(u64, u64),
    /// The last one: an answer.
    Ok(Answer),
    /// The last one: why there is none.
    Err(String),
}

impl Line {
    fn write(&self, mut to: &UnixStream) -> io::Result<()> {
        let mut text = serde_json::to_string(self)?;
        text.push('\n');
        to.write_all(text.as_bytes())
    }
}

/// What a machine answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) value: Value,
}

/// The folder of the sockets: in the user's runtime folder (*XDG Base Directory
/// Specification*), else one of their own among the temporary files.
fn folder() -> PathBuf {
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    match named {
        Some(runtime) => runtime.join("kluis"),
        None => std::env::temp_dir().join(format!("kluis-{}", rustix::process::getuid().as_raw())),
    }
}

/// Makes the folder, or checks that the one there is nobody else's.
fn own_folder() -> io::Result<PathBuf> {
    let dir = folder();
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let about = fs::symlink_metadata(&dir)?;
    let is_own =
        about.is_dir() && about.uid() == rustix::process::getuid().as_raw() && about.mode() & 0o077 == 0;
    if !is_own {
        let why = format!("{} must be a folder of yours alone (mode 0700)", dir.display());
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    Ok(dir)
}

/// The socket of this process's machine; gone when dropped.
pub(crate) struct Control {
    path: PathBuf,
    listener: UnixListener,
}

impl Control {
    /// Makes the socket.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn bind() -> io::Result<Control> {
        let path = own_folder()?.join(format!("{}.sock", std::process::id()));
        // of a process that had this number and crashed
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        Ok(Control { path, listener })
    }

    /// The socket's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Answers for a machine from now on.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(crate) fn serve(
        &self,
        running: Arc<Running>,
        about: About,
        snapshot: TakeSnapshot,
    ) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let mut machine = Machine { running, about, snapshot, paused: None, start: Instant::now() };
        thread::Builder::new().name("control".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // who asks and does not wait for the answer gets none
                let _ = machine.serve(&stream);
            }
        })?;
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads a question, and the file that may come with its first bytes.
fn question(stream: &UnixStream) -> io::Result<(String, Option<File>)> {
    let mut first = [0; MAX_QUESTION as usize];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut first)];
    let n = rustix::net::recvmsg(stream, into, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files.flatten().next().map(File::from);
    let mut line = String::new();
    let rest = stream.take(MAX_QUESTION - n as u64);
    BufReader::new((&first[..n]).chain(rest)).read_line(&mut line)?;
    Ok((line, file))
}

/// A machine that is asked.
struct Machine {
    running: Arc<Running>,
    about: About,
    snapshot: TakeSnapshot,
    /// As somebody has asked for.
    paused: Option<Paused>,
    start: Instant,
}

impl Machine {
    fn serve(&mut self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (line, file) = question(stream)?;
        let answer = serde_json::from_str(&line).map_err(|e| e.to_string());
        // who does not listen to that may still wait for the answer
        let mut told = |done, all| drop(Line::Progress(done, all).write(stream));
        match answer.and_then(|ask| self.answer(&ask, file, &mut told)) {
            Ok(answer) => Line::Ok(answer),
            Err(why) => Line::Err(why),
        }
        .write(stream)
    }

    fn answer(&mut self, ask: &Ask, file: Option<File>, told: &mut Told<'_>) -> Result<Answer, String> {
        let pause_state = |paused| Answer { text: String::new(), value: json!({ "paused": paused }) };
        match ask {
            Ask::About => {
                let uptime_seconds = self.start.elapsed().as_secs_f64();
                Now { paused: self.paused.is_some(), uptime_seconds, about: self.about.clone() }.answer()
            }
            Ask::Pause => {
                if self.paused.is_none() {
                    self.paused = Some(self.running.pause().map_err(|e| e.to_string())?);
                }
                Ok(pause_state(true))
            }
            Ask::Resume => match self.paused.take() {
                Some(_) => Ok(pause_state(false)),
                None => Err("the machine is not paused".into()),
            },
            Ask::Snapshot { stop } => {
                (self.snapshot)(file.ok_or("no file came with the question")?, *stop, told)
            }
            Ask::Inspect => {
                let epc = Epc::of(self.running.sgx());
                let value = serde_json::to_value(&epc).map_err(|e| e.to_string())?;
                Ok(Answer { text: epc.text(), value })
            }
            Ask::Tamper { drill, page } => tamper(&self.running, drill, *page),
            Ask::Lose => {
                self.running.lose_epc();
                let text = "The EPC's content is lost until the machine is reset.\n".into();
                Ok(Answer { text, value: json!({ "lost": true }) })
            }
            Ask::Bus { address, length } => {
                let bytes = self.running.bus_read(*address, MAX_BUS_BYTES.min(*length as usize));
                let value = json!({ "address": address, "bytes": hex(&bytes) });
                Ok(Answer { text: dump(*address, &bytes), value })
            }
        }
    }
}

fn tamper(running: &Running, drill: &str, page: Option<u32>) -> Result<Answer, String> {
    #[cfg(feature = "unchecked")]
    if crate::leave_out::leaves_out("integrity") {
        running.sgx().dram.disable_checks();
    }
    let report = running.tamper(drill.parse()?, page).map_err(|e| e.to_string())?;
    let text = format!("{report}\nThe next fetch of it will find that, and lock the EPC.\n");
    let value = json!({ "drill": drill, "page": report.page, "change": report.change });
    Ok(Answer { text, value })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dump(address: u64, bytes: &[u8]) -> String {
    let row = |(i, row): (usize, &[u8])| {
        let row: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:012x}  {}\n", address.wrapping_add(16 * i as u64), row.join(" "))
    };
    bytes.chunks(16).enumerate().map(row).collect()
}

/// The machines of this user that run, by process number, ascending.
pub(crate) fn machines() -> Vec<(u32, PathBuf)> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(folder())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let number = path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok()?;
            match UnixStream::connect(&path) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    // its process has crashed
                    let _ = fs::remove_file(&path);
                    None
                }
                _ => Some((number, path)),
            }
        })
        .collect();
    found.sort();
    found
}

/// Asks a machine: process `number`, or the only one there is.
///
/// # Errors
/// There is no such machine, or more than one to choose from; it cannot do that.
pub(crate) fn ask(number: Option<u32>, ask: &Ask) -> Result<Answer, Error> {
    ask_with(number, ask, None, &mut |_, _| {})
}

/// The same, with an open file for the machine to write; `told` hears how far it is.
///
/// # Errors
/// As of [`ask`].
pub(crate) fn ask_with(
    number: Option<u32>,
    ask: &Ask,
    file: Option<&File>,
    told: &mut Told<'_>,
) -> Result<Answer, Error> {
    let all = machines();
    let list = || all.iter().map(|(number, _)| number.to_string()).collect::<Vec<_>>().join(", ");
    let path = match (number, &all[..]) {
        (_, []) => return Err(Error::bad("no machine of yours runs: start one with `kluis run`")),
        (None, [(_, path)]) => path,
        (None, _) => {
            return Err(Error::bad(format!("machines {} run: name one with --vm (see `kluis ps`)", list())));
        }
        (Some(number), all) => {
            let found = all.iter().find(|(one, _)| *one == number);
            &found.ok_or_else(|| Error::bad(format!("--vm {number} does not run: there are {}", list())))?.1
        }
    };
    let answer = exchange(path, ask, file, if file.is_some() { SNAPSHOT } else { PATIENCE }, told)
        .map_err(|e| Error::failed(format!("the machine does not answer: {e}")))?;
    answer.map_err(Error::bad)
}

/// Asks the machine with this socket, which may take so long.
///
/// # Errors
/// It does not answer.
pub(crate) fn exchange(
    path: &Path,
    ask: &Ask,
    file: Option<&File>,
    patience: Duration,
    told: &mut Told<'_>,
) -> io::Result<Result<Answer, String>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = format!("{}\n", serde_json::to_string(ask)?);
    let files: Vec<BorrowedFd<'_>> = file.iter().map(|file| file.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    let from = [IoSlice::new(line.as_bytes())];
    let n = rustix::net::sendmsg(&stream, &from, &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&line.as_bytes()[n..])?;
    let mut lines = BufReader::new(stream.take(MAX_ANSWER));
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        match serde_json::from_str(&line)? {
            Line::Progress(done, all) => told(done, all),
            Line::Ok(answer) => return Ok(Ok(answer)),
            Line::Err(why) => return Ok(Err(why)),
        }
    }
}

/// Asks a machine and prints what it answers.
///
/// # Errors
/// As of [`ask`] and [`print()`].
pub(crate) fn main(number: Option<u32>, question: &Ask, json: bool) -> Result<u8, Error> {
    print(&ask(number, question)?, json)?;
    Ok(crate::exit::OK)
}

/// Prints an answer as the user wants it.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print(answer: &Answer, json: bool) -> Result<(), Error> {
    if json { crate::print_json(&answer.value) } else { crate::print(&answer.text) }
}
