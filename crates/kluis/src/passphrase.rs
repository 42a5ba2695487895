//! Passphrases: from a file, or typed unseen.

use crate::exit::Error;
use platform::Passphrase;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// What is typed or read of one, at most: more is refused by its length.
const MOST: usize = Passphrase::MAX + 1;
/// Ctrl-C, Ctrl-D, Ctrl-U, backspace in its two forms.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const KILL: u8 = 0x15;
const ERASE: [u8; 2] = [0x08, 0x7f];

/// The passphrase for a new backup: the file's first line, or typed twice.
///
/// # Errors
/// It is too short or long, the two are not the same, or there is no terminal.
pub(crate) fn new(file: Option<&Path>) -> Result<Passphrase, Error> {
    if let Some(file) = file {
        return from_file(file);
    }
    let mut terminal = Terminal::open()?;
    let first = terminal.ask("Passphrase for the backup: ")?;
    let passphrase = Passphrase::new(first.to_vec())?;
    if *terminal.ask("The same again: ")? != *first {
        return Err(Error::bad("the two passphrases are not the same: nothing was written"));
    }
    Ok(passphrase)
}

/// The passphrase of a backup that there is: the file's first line, or typed.
///
/// # Errors
/// It cannot be one, or there is no terminal.
pub(crate) fn known(file: Option<&Path>) -> Result<Passphrase, Error> {
    if let Some(file) = file {
        return from_file(file);
    }
    Ok(Passphrase::new(Terminal::open()?.ask("Passphrase of the backup: ")?.to_vec())?)
}

fn from_file(path: &Path) -> Result<Passphrase, Error> {
    let fail = |e| Error::bad(format!("cannot read --passphrase-file {}: {e}", path.display()));
    let mut text = Zeroizing::new(Vec::with_capacity(MOST + 2));
    // a pipe is as good as a file
    File::open(path).map_err(fail)?.take(MOST as u64 + 2).read_to_end(&mut text).map_err(fail)?;
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(Passphrase::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())?)
}

/// The terminal of this process, whatever its standard streams are; as it was
/// when dropped.
struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    fn open() -> Result<Self, Error> {
        let none =
            |_| Error::bad("there is no terminal to ask for the passphrase on: give --passphrase-file FILE");
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(none)?;
        let before = tcgetattr(&file).map_err(|e| none(e.into()))?;
        let mut unseen = before.clone();
        // Without signals, so that Ctrl-C comes here and the terminal is never
        // left without an echo; and without lines, whose editing would need one.
        unseen.local_modes &= !(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON);
        // what another program may have left there
        unseen.special_codes[SpecialCodeIndex::VMIN] = 1;
        unseen.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&file, OptionalActions::Flush, &unseen).map_err(|e| none(e.into()))?;
        Ok(Self { file, before })
    }

    fn ask(&mut self, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let fail = |e: io::Error| Error::failed(format!("cannot use the terminal: {e}"));
        self.file.write_all(prompt.as_bytes()).map_err(fail)?;
        let line = line(&mut self.file);
        self.file.write_all(b"\n").map_err(fail)?;
        line.map_err(fail)?.ok_or_else(|| Error::bad("no passphrase was given: nothing was done"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before);
    }
}

/// A line as it is typed; `None` if the person gave up.
fn line(from: &mut impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MOST));
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        match byte[0] {
            b'\r' | b'\n' => return Ok(Some(line)),
            INTERRUPT => return Ok(None),
            END if line.is_empty() => return Ok(None),
            KILL => line.clear(),
            c if ERASE.contains(&c) => erase(&mut line),
            c if line.len() < MOST => line.push(c),
            _ => {}
        }
    }
}

/// Takes the last character away: in UTF-8, all of its bytes.
fn erase(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Option<Vec<u8>> {
        line(&mut &keys[..]).unwrap().map(|line| line.to_vec())
    }

    #[test]
    fn keys_edit_the_line() {
        assert_eq!(typed(b"hunter22\r"), Some(b"hunter22".to_vec()));
        assert_eq!(typed(b"hunter22\nmore"), Some(b"hunter22".to_vec()));
        assert_eq!(typed(b"hX\x7funtY\x08er\n"), Some(b"hunter".to_vec()));
        assert_eq!(typed("aé\x7fb\n".as_bytes()), Some(b"ab".to_vec()));
        assert_eq!(typed(b"wrong\x15right\n"), Some(b"right".to_vec()));
        assert_eq!(typed(b"\x7f\x7fa\n"), Some(b"a".to_vec()));
        assert_eq!(typed(b"half\x03"), None);
        assert_eq!(typed(b"\x04"), None);
        assert_eq!(typed(b"cut off"), None);
        let long = typed(&[&[b'x'; 5000][..], b"\n"].concat()).unwrap();
        assert!(Passphrase::new(long).is_err(), "never cut to a length that would do");
    }

    #[test]
    fn first_line_of_a_file_counts() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("words");
        let same = |text: &[u8], other: &[u8]| {
            std::fs::write(&path, text).unwrap();
            let a = from_file(&path).unwrap();
            std::fs::write(&path, other).unwrap();
            a == from_file(&path).unwrap()
        };
        assert!(same(b"correct horse", b"correct horse\n"));
        assert!(same(b"correct horse\r\nmore", b"correct horse\n"));
        assert!(!same(b"correct horse ", b"correct horse"));
        for bad in [&b""[..], b"\ncorrect horse", b"short\n", &[b'x'; 5000]] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(from_file(&path).err().unwrap().code(), 2);
        }
        assert_eq!(from_file(&tmp.path().join("none")).err().unwrap().code(), 2);
    }
}
