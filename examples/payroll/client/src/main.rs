//! What a party of a study does at home: the only place where its records are in clear.

mod files;
mod sample;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use enclave_channel::{Binding, Evidence, KeyPair, Sender, Told};
use enclave_transport::{Client, Limits, frame};
use payroll_interface::record::{HEADER, Record};
use payroll_interface::study::{self, Description};
use payroll_interface::{Chunk, LINES, OfficeClient};
use rand_core::OsRng;

const USAGE: &str = "\
usage: payroll-client key FILE                   make a key; its public half is printed
       payroll-client sample PEOPLE SEED         a made-up payroll
       payroll-client study ENDPOINT             the study there, and its fingerprint
       payroll-client encrypt ENDPOINT FINGERPRINT KEY RECORDS.csv UPLOAD
       payroll-client send ENDPOINT UPLOAD
       payroll-client results ENDPOINT FINGERPRINT KEY [UPLOAD]

ENDPOINT is tcp:HOST:PORT or unix:SOCKET. Nothing is encrypted for a study that has not the
FINGERPRINT that you have from its operator. With UPLOAD, results count only if they are
of it.";

type Failure = Box<dyn std::error::Error>;

fn connect(endpoint: &str) -> Result<OfficeClient<Client>, Failure> {
    Ok(OfficeClient(Client::connect(&endpoint.parse()?, Limits::default())?))
}

/// The study there, if the evidence is that it is the one that was agreed on.
fn agreed<E: Evidence>(office: &OfficeClient<Client>, evidence: &E) -> Result<(Description, Binding), Failure>
where
    Failure: From<E::Refusal>,
{
    let description = office.study()?;
    let binding = description.binding();
    evidence.says(&binding)?;
    Ok((description, binding))
}

/// Number of the party whose key this is.
fn party(description: &Description, key: &KeyPair) -> Result<u16, Failure> {
    let found = description.study.parties.iter().position(|party| party.key == *key.public());
    Ok(found.ok_or("the study has no party with this key")? as u16)
}

fn study(endpoint: &str) -> Result<(), Failure> {
    let description = connect(endpoint)?.study()?;
    let study = &description.study;
    println!("{}\ngroups       {}", study.title, study.groups.join(", "));
    println!("minimum      {} people, whichever party's are left out", study.minimum);
    for party in &study.parties {
        let role = match (party.contributes, party.receives) {
            (true, true) => "contributes and receives",
            (true, false) => "contributes",
            (false, true) => "receives",
            (false, false) => "takes no part",
        };
        println!("party        {}, {role}: {}", party.name, party.key);
    }
    let enclave: String = description.enclave.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("enclave      {enclave}, as it says");
    if description.debug {
        println!("             its host can look in: DEBUG");
    }
    println!("fingerprint  {}", description.binding());
    Ok(())
}

fn encrypt(endpoint: &str, fingerprint: &str, key: &str, records: &str, upload: &str) -> Result<(), Failure> {
    let key = files::key(key)?;
    let (description, binding) = agreed(&connect(endpoint)?, &Told(fingerprint))?;
    if description.debug {
        return Err("the host of this enclave can look into it: it is a debug enclave".into());
    }
    let party = party(&description, &key)?;
    let lines = std::fs::read_to_string(records).map_err(|e| format!("cannot read {records}: {e}"))?;
    let chunks = chunks(&description, &lines).map_err(|e| format!("{records}, {e}"))?;
    let (name, mut sender) = Sender::new(&key, &description.key, &study::records(&binding), &mut OsRng);
    let file = File::create_new(upload).map_err(|e| format!("cannot make {upload}: {e}"))?;
    let mut file = BufWriter::new(file);
    frame::write(&mut file, &party.to_le_bytes())?;
    for (number, chunk) in chunks.iter().enumerate() {
        let last = number + 1 == chunks.len();
        let ciphertext = sender.seal(chunk.as_bytes(), last);
        let chunk = Chunk { upload: name.clone(), number: number as u32, last, ciphertext };
        frame::write(&mut file, &chunk.encode())?;
    }
    file.flush()?;
    println!("encrypted {} records", chunks.iter().map(|chunk| chunk.lines().count()).sum::<usize>());
    Ok(())
}

/// The records as lines that the enclave takes, in pieces; at least one.
fn chunks(description: &Description, text: &str) -> Result<Vec<String>, String> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(format!("line 1: it is not {HEADER}"));
    }
    let mut chunks = vec![String::new()];
    for (line, number) in lines.zip(2..) {
        // here a mistake costs a correction, there a study
        let record = Record::read(line).map_err(|e| format!("line {number}: {e}"))?;
        if !description.study.groups.iter().any(|group| group == record.group) {
            return Err(format!("line {number}: the study has no group {:?}", record.group));
        }
        if chunks.last().is_some_and(|chunk| chunk.len() + line.len() >= LINES) {
            chunks.push(String::new());
        }
        chunks.last_mut().into_iter().for_each(|chunk| *chunk += &format!("{line}\n"));
    }
    Ok(chunks)
}

/// An upload from its file: whose it is, and its chunks.
fn read(upload: &str) -> Result<(u16, Vec<Chunk>), Failure> {
    let file = File::open(upload).map_err(|e| format!("cannot read {upload}: {e}"))?;
    let mut file = BufReader::new(file);
    let mut next = || frame::read(&mut file, Chunk::MOST);
    let party = next()?.and_then(|frame| Some(u16::from_le_bytes(frame.try_into().ok()?)));
    let mut chunks = Vec::new();
    while let Some(frame) = next()? {
        chunks.extend(Chunk::decode(&frame));
    }
    match party {
        Some(party) if chunks.last().is_some_and(|chunk| chunk.last) => Ok((party, chunks)),
        _ => Err(format!("{upload} is no whole upload: encrypt the records again").into()),
    }
}

fn send(endpoint: &str, upload: &str) -> Result<(), Failure> {
    let (party, chunks) = read(upload)?;
    let office = connect(endpoint)?;
    let mut delivered = false;
    for chunk in chunks {
        delivered = office.records(party, chunk)??;
        if delivered {
            break;
        }
    }
    if !delivered {
        return Err("the host does not confirm the delivery: send it again".into());
    }
    println!("delivered");
    Ok(())
}

fn results(endpoint: &str, fingerprint: &str, key: &str, upload: Option<&str>) -> Result<(), Failure> {
    let key = files::key(key)?;
    let office = connect(endpoint)?;
    let (description, binding) = agreed(&office, &Told(fingerprint))?;
    let sealed = office.results(party(&description, &key)?)??;
    let message = sealed.open(&key, &description.key, &study::results(&binding));
    let message = message.ok_or("these results are not the enclave's for you")?;
    let (counted, table): (Option<Vec<u8>>, String) =
        postcard::from_bytes(&message).map_err(|_| "the results are none")?;
    if let Some(upload) = upload {
        let (_, chunks) = read(upload)?;
        if counted.as_ref() != chunks.first().map(|chunk| &chunk.upload) {
            return Err(format!("what was counted is not {upload}").into());
        }
    }
    print!("{table}");
    Ok(())
}

fn run(arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        ["key", file] => files::make_key(Path::new(file)),
        ["sample", people, seed] => sample::print(people.parse()?, seed.parse()?),
        ["study", endpoint] => study(endpoint),
        ["encrypt", endpoint, fingerprint, key, records, upload] => {
            encrypt(endpoint, fingerprint, key, records, upload)
        }
        ["send", endpoint, upload] => send(endpoint, upload),
        ["results", endpoint, fingerprint, key] => results(endpoint, fingerprint, key, None),
        ["results", endpoint, fingerprint, key, upload] => results(endpoint, fingerprint, key, Some(upload)),
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payroll-client: {error}");
            ExitCode::FAILURE
        }
    }
}
