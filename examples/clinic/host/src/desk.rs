//! What is asked of the host.

use std::fs;
use std::path::Path;
use std::time::Instant;

use clinic_interface::ClinicClient;
use enclave_host::transport::Listener;
use enclave_host::{Enclave, Files, KeyFile, Options};
use serde_json::{Value, json};

use crate::{Failure, USAGE, peek, quote, serve};

/// Bytes of a chunk's head in a file of records: its length, and whether it is the last.
const HEAD: usize = 5;

/// The enclave that is loaded, and where its clients come in.
#[derive(Default)]
pub(crate) struct Desk {
    enclave: Option<Enclave>,
    listener: Option<Listener>,
}

impl Desk {
    /// Does what a line asks for.
    ///
    /// # Errors
    /// It cannot be done, or the enclave refuses.
    pub(crate) fn answer(&mut self, words: &[&str]) -> Result<Value, Failure> {
        match *words {
            ["load", name] => self.load(name, name),
            ["load", name, signature] => self.load(name, signature),
            ["certify", file] => self.certify(Path::new(file)),
            ["listen", endpoint] => {
                self.listener = Some(Listener::bind(&endpoint.parse()?)?);
                Ok(json!({}))
            }
            ["serve"] => {
                let listener = self.listener.as_ref().ok_or("nobody listens yet")?;
                serve::one(self.enclave()?, listener)
            }
            ["peek"] => peek::all(self.enclave()?),
            ["records", file] => self.records(Path::new(file)),
            ["results", file] => self.results(Path::new(file)),
            ["seal", file] => {
                let sealed = ClinicClient(self.enclave()?).seal()??;
                fs::write(file, &sealed)?;
                Ok(json!({ "bytes": sealed.len() }))
            }
            ["unseal", file] => {
                ClinicClient(self.enclave()?).unseal(&fs::read(file)?)??;
                Ok(json!({}))
            }
            _ => Err(format!("{words:?} is no request\n{USAGE}").into()),
        }
    }

    fn enclave(&self) -> Result<&Enclave, Failure> {
        self.enclave.as_ref().ok_or_else(|| "no enclave is loaded".into())
    }

    fn load(&mut self, name: &str, signature: &str) -> Result<Value, Failure> {
        // its pages are free for the next
        self.enclave = None;
        let start = Instant::now();
        let files = Files::read(format!("{name}.sgxs"), format!("{signature}.sig"))?;
        // what is printed is not for whoever reads our answers
        let options = Options::new().allow_debug(true).print(|text| eprintln!("{text}"));
        let key = KeyFile::new(format!("{name}.key")).sealed(format!("{signature}.sealed"));
        let options = options.keys(key);
        self.enclave = Some(Enclave::load(files, options)?);
        Ok(json!({ "ms": start.elapsed().as_millis() as u64 }))
    }

    fn certify(&self, file: &Path) -> Result<Value, Failure> {
        let clinic = ClinicClient(self.enclave()?);
        let start = Instant::now();
        let report = clinic.report(&quote::target()?)??;
        let quote = quote::of(&report)?;
        clinic.certify(&quote)??;
        fs::write(file, &quote)?;
        Ok(json!({ "bytes": quote.len(), "ms": start.elapsed().as_millis() as u64 }))
    }

    /// A file of chunks: length (4, little-endian), 1 or 0 for the last or another, content.
    fn records(&self, file: &Path) -> Result<Value, Failure> {
        let clinic = ClinicClient(self.enclave()?);
        let bytes = fs::read(file)?;
        let mut rest = &bytes[..];
        let mut number = 0;
        while !rest.is_empty() {
            let cut = || format!("{} ends within chunk {number}", file.display());
            let (head, after) = rest.split_at_checked(HEAD).ok_or_else(cut)?;
            let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let (chunk, after) = after.split_at_checked(len).ok_or_else(cut)?;
            clinic.records(number, head[4] == 1, chunk)??;
            (rest, number) = (after, number + 1);
        }
        Ok(json!({ "chunks": number, "bytes": bytes.len() }))
    }

    fn results(&self, file: &Path) -> Result<Value, Failure> {
        let table = ClinicClient(self.enclave()?).results()??;
        fs::write(file, &table)?;
        Ok(json!({ "bytes": table.len() }))
    }
}
