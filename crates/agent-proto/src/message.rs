//! The messages and their layout in a frame's payload.

use crate::frame::{Decoder, FrameError, put_frame};
use crate::wire::{EncodeError, Malformed, Reader, put_bytes, put_count};
use alloc::string::String;
use alloc::vec::Vec;

/// A terminal for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tty {
    /// Height in characters.
    pub rows: u16,
    /// Width in characters.
    pub cols: u16,
    /// The terminal's type, for `TERM`; empty leaves the guest's default.
    pub term: Vec<u8>,
}

/// A command to run. No string holds a zero byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program (a path, or a name looked up in `PATH`) and its arguments;
    /// empty runs a login shell.
    pub argv: Vec<Vec<u8>>,
    /// Variables added to the guest's own environment, as name and value.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Folder to run in; empty is the home folder.
    pub cwd: Vec<u8>,
    /// Run on a terminal of its own instead of pipes.
    pub tty: Option<Tty>,
}

/// A shared folder to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its virtio-fs tag (*virtio 1.2 §5.11.4*).
    pub tag: Vec<u8>,
    /// The folder to mount it on, an absolute path; made if it is missing.
    pub target: Vec<u8>,
    /// Nothing may be changed in it.
    pub read_only: bool,
}

/// One of a command's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, on [`PORT_STDOUT`](crate::PORT_STDOUT).
    Stdout,
    /// Standard error, on [`PORT_STDERR`](crate::PORT_STDERR).
    Stderr,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code; 126 and 127 are also the agent's own, for a
    /// program that cannot be executed and one that is not found.
    Code(u8),
    /// A signal of this number (Linux x86-64 numbering) killed it.
    Signal(u8),
}

/// What the host says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToGuest {
    /// Run a command.
    Exec(Exec),
    /// Standard input ends after this many bytes, counted since `Exec`.
    StdinEof {
        /// Bytes sent to [`PORT_STDIN`](crate::PORT_STDIN) for this command.
        total: u64,
    },
    /// The terminal has a new size, in characters.
    Winsize {
        /// Height.
        rows: u16,
        /// Width.
        cols: u16,
    },
    /// Send this signal (Linux x86-64 numbering, 1 to 64) to the command's
    /// process group.
    Signal(u8),
    /// Nobody reads this output any more: the command is to see its pipe
    /// closed (`SIGPIPE`). Without effect on a terminal.
    CloseOutput(Stream),
    /// Mount a shared folder, for all commands to come.
    Mount(Mount),
    /// End everything, write out disks and power off.
    Shutdown,
    /// The machine has started from a snapshot: nothing random and no clock of its
    /// is what it should be until this is obeyed.
    Resume {
        /// True time, in nanoseconds since 1970.
        wall_ns: u64,
        /// Fresh random bytes.
        seed: [u8; SEED_LEN],
    },
}

/// Bytes of randomness in a [`ToGuest::Resume`].
pub const SEED_LEN: usize = 64;

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToHost {
    /// The agent is ready and speaks this protocol version.
    Hello {
        /// [`VERSION`](crate::VERSION) of the guest.
        version: u32,
    },
    /// The command ended. Its output is complete once the host has read these
    /// many bytes from the two ports, counted since `Exec`.
    Exit {
        /// How it ended.
        status: ExitStatus,
        /// Bytes sent to [`PORT_STDOUT`](crate::PORT_STDOUT).
        stdout: u64,
        /// Bytes sent to [`PORT_STDERR`](crate::PORT_STDERR).
        stderr: u64,
    },
    /// [`ToGuest::Resume`] was obeyed: numbers drawn from now on are no other
    /// machine's.
    Resumed,
    /// A frame from the host was not obeyed; the text says why. No other
    /// answer to that frame follows.
    Refused {
        /// The reason, for people.
        reason: String,
    },
}

const EXEC: u8 = 0x01;
const STDIN_EOF: u8 = 0x02;
const WINSIZE: u8 = 0x03;
const SIGNAL: u8 = 0x04;
const CLOSE_OUTPUT: u8 = 0x05;
const SHUTDOWN: u8 = 0x06;
const MOUNT: u8 = 0x07;
const RESUME: u8 = 0x08;
const HELLO: u8 = 0x81;
const EXIT: u8 = 0x82;
const REFUSED: u8 = 0x83;
const RESUMED: u8 = 0x84;

/// `Refused` is cut to this many bytes: a reason is a line, not a log.
const MAX_REASON: usize = 4096;

impl ToGuest {
    /// Appends this message as a frame.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`]; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Exec(exec) => put_frame(out, EXEC, |p| exec.put(p)),
            Self::StdinEof { total } => {
                put_frame(out, STDIN_EOF, |p| p.extend_from_slice(&total.to_le_bytes()))
            }
            Self::Winsize { rows, cols } => put_frame(out, WINSIZE, |p| {
                p.extend_from_slice(&rows.to_le_bytes());
                p.extend_from_slice(&cols.to_le_bytes());
            }),
            Self::Signal(n) => put_frame(out, SIGNAL, |p| p.push(*n)),
            Self::CloseOutput(s) => put_frame(out, CLOSE_OUTPUT, |p| {
                p.push(match s {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                });
            }),
            Self::Mount(mount) => put_frame(out, MOUNT, |p| mount.put(p)),
            Self::Shutdown => put_frame(out, SHUTDOWN, |_| {}),
            Self::Resume { wall_ns, seed } => put_frame(out, RESUME, |p| {
                p.extend_from_slice(&wall_ns.to_le_bytes());
                p.extend_from_slice(seed);
            }),
        }
    }

    /// Reads a message from a frame's type and payload.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with the payload.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(payload);
        let message = match kind {
            EXEC => Self::Exec(Exec::take(&mut r)?),
            STDIN_EOF => Self::StdinEof { total: r.u64()? },
            WINSIZE => Self::Winsize { rows: r.u16()?, cols: r.u16()? },
            SIGNAL => match r.u8()? {
                n @ 1..=64 => Self::Signal(n),
                _ => return Err(Malformed::BadValue("signal number")),
            },
            CLOSE_OUTPUT => Self::CloseOutput(match r.u8()? {
                1 => Stream::Stdout,
                2 => Stream::Stderr,
                _ => return Err(Malformed::BadValue("output stream")),
            }),
            MOUNT => Self::Mount(Mount::take(&mut r)?),
            SHUTDOWN => Self::Shutdown,
            RESUME => {
                let wall_ns = r.u64()?;
                let mut seed = [0; SEED_LEN];
                for byte in &mut seed {
                    *byte = r.u8()?;
                }
                Self::Resume { wall_ns, seed }
            }
            other => return Err(Malformed::UnknownType(other)),
        };
        r.finish()?;
        Ok(message)
    }

    /// The next message from the host's stream, or `None` when more bytes are
    /// needed.
    ///
    /// # Errors
    /// [`FrameError`] for one bad frame; calling again goes on after it.
    pub fn next(decoder: &mut Decoder) -> Result<Option<Self>, FrameError> {
        match decoder.next_frame()? {
            None => Ok(None),
            Some((kind, payload)) => Ok(Some(Self::decode(kind, payload)?)),
        }
    }
}

impl ToHost {
    /// Appends this message as a frame. A reason longer than 4096 bytes is cut.
    ///
    /// # Errors
    /// None today: every message fits. The result is there for those to come.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Hello { version } => put_frame(out, HELLO, |p| p.extend_from_slice(&version.to_le_bytes())),
            Self::Exit { status, stdout, stderr } => put_frame(out, EXIT, |p| {
                let (how, value) = match *status {
                    ExitStatus::Code(c) => (0, c),
                    ExitStatus::Signal(s) => (1, s),
                };
                p.extend_from_slice(&[how, value]);
                p.extend_from_slice(&stdout.to_le_bytes());
                p.extend_from_slice(&stderr.to_le_bytes());
            }),
            Self::Resumed => put_frame(out, RESUMED, |_| {}),
            Self::Refused { reason } => {
                let mut cut = reason.len().min(MAX_REASON);
                while !reason.is_char_boundary(cut) {
                    cut -= 1;
                }
                put_frame(out, REFUSED, |p| put_bytes(p, &reason.as_bytes()[..cut]))
            }
        }
    }

    /// Reads a message from a frame's type and payload.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with the payload.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(payload);
        let message = match kind {
            HELLO => Self::Hello { version: r.u32()? },
            EXIT => Self::Exit {
                status: match (r.u8()?, r.u8()?) {
                    (0, code) => ExitStatus::Code(code),
                    (1, signal @ 1..=64) => ExitStatus::Signal(signal),
                    _ => return Err(Malformed::BadValue("exit status")),
                },
                stdout: r.u64()?,
                stderr: r.u64()?,
            },
            RESUMED => Self::Resumed,
            REFUSED => {
                let bytes = r.bytes()?;
                let bytes = &bytes[..bytes.len().min(MAX_REASON)];
                Self::Refused { reason: String::from_utf8_lossy(bytes).into_owned() }
            }
            other => return Err(Malformed::UnknownType(other)),
        };
        r.finish()?;
        Ok(message)
    }

    /// The next message from the guest's stream, or `None` when more bytes are
    /// needed.
    ///
    /// # Errors
    /// [`FrameError`] for one bad frame; calling again goes on after it.
    pub fn next(decoder: &mut Decoder) -> Result<Option<Self>, FrameError> {
        match decoder.next_frame()? {
            None => Ok(None),
            Some((kind, payload)) => Ok(Some(Self::decode(kind, payload)?)),
        }
    }
}

impl Mount {
    fn put(&self, p: &mut Vec<u8>) {
        put_bytes(p, &self.tag);
        put_bytes(p, &self.target);
        p.push(self.read_only.into());
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (tag, target) = (r.c_string("tag")?, r.c_string("mount point")?);
        let read_only = match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed::BadValue("read-only flag")),
        };
        Ok(Self { tag, target, read_only })
    }
}

impl Exec {
    fn put(&self, p: &mut Vec<u8>) {
        put_count(p, self.argv.len());
        for arg in &self.argv {
            put_bytes(p, arg);
        }
        put_count(p, self.env.len());
        for (name, value) in &self.env {
            put_bytes(p, name);
            put_bytes(p, value);
        }
        put_bytes(p, &self.cwd);
        match &self.tty {
            None => p.push(0),
            Some(tty) => {
                p.push(1);
                p.extend_from_slice(&tty.rows.to_le_bytes());
                p.extend_from_slice(&tty.cols.to_le_bytes());
                put_bytes(p, &tty.term);
            }
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let argc = r.count(4)?;
        let argv = (0..argc).map(|_| r.c_string("argument")).collect::<Result<Vec<_>, _>>()?;
        let vars = r.count(8)?;
        let env = (0..vars)
            .map(|_| {
                let name = r.c_string("variable name")?;
                if name.is_empty() || name.contains(&b'=') {
                    return Err(Malformed::BadValue("variable name"));
                }
                Ok((name, r.c_string("variable value")?))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let cwd = r.c_string("folder")?;
        let tty = match r.u8()? {
            0 => None,
            1 => Some(Tty { rows: r.u16()?, cols: r.u16()?, term: r.c_string("terminal type")? }),
            _ => return Err(Malformed::BadValue("terminal flag")),
        };
        Ok(Self { argv, env, cwd, tty })
    }
}
