//! What parties have sent, as it came: a file for each, of frames.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use enclave_host::transport::frame;
use payroll_interface::{Chunk, Refusal};

/// The folder of uploads.
pub(crate) struct Archive {
    folder: PathBuf,
    /// Uploads that have not come to their end.
    parts: HashMap<u16, File>,
    /// Names of those that have.
    whole: HashMap<u16, Vec<u8>>,
}

impl Archive {
    /// The folder for so many parties; what they have delivered before is given to `take`,
    /// which tells whether that is all of an upload.
    pub(crate) fn open(
        folder: &Path,
        parties: u16,
        take: impl Fn(u16, Chunk) -> Result<bool, Refusal>,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut archive = Self { folder: folder.to_owned(), parts: HashMap::new(), whole: HashMap::new() };
        for party in 0..parties {
            let file = archive.file(party, "records");
            if !file.exists() {
                continue;
            }
            let mut file = BufReader::new(File::open(&file)?);
            while let Some(chunk) = next(&mut file) {
                let name = chunk.upload.clone();
                match take(party, chunk) {
                    Ok(true) => drop(archive.whole.insert(party, name)),
                    Ok(false) => {}
                    Err(refusal) => {
                        eprintln!("payroll-host: party {party} has to send again: {refusal}");
                        break;
                    }
                }
            }
        }
        Ok(archive)
    }

    /// Whether the upload that this chunk is of is there as a whole.
    pub(crate) fn has(&self, party: u16, chunk: &Chunk) -> bool {
        self.whole.get(&party) == Some(&chunk.upload)
    }

    /// Keeps a chunk of an upload, which begins with its first.
    pub(crate) fn keep(&mut self, party: u16, chunk: &Chunk) -> io::Result<()> {
        let part = self.file(party, "part");
        if chunk.number == 0 {
            self.parts.insert(party, File::create(&part)?);
        }
        let file = self.parts.get_mut(&party).ok_or(io::ErrorKind::NotFound)?;
        frame::write(file, &chunk.encode())?;
        if chunk.last {
            file.sync_all()?;
            self.parts.remove(&party);
            fs::rename(part, self.file(party, "records"))?;
            self.whole.insert(party, chunk.upload.clone());
        }
        Ok(())
    }

    fn file(&self, party: u16, kind: &str) -> PathBuf {
        self.folder.join(format!("{party}.{kind}"))
    }
}

/// The next chunk; none at the end, or where the file is damaged: what does not come is
/// missed.
fn next(file: &mut BufReader<File>) -> Option<Chunk> {
    Chunk::decode(&frame::read(file, Chunk::MOST).ok()??)
}
