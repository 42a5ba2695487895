//! The steps of the story.

use super::client::{Client, Met};
use super::machine::{Answer, Machine, PORT, SIZE, SOCKET};
use super::story::{Story, by};
use super::thief::Thief;
use super::variants::Shared;
use super::{Interrupted, plain, project};
use crate::control::{self, Ask};
use crate::exit::Error;
use crate::leave_out::leaves_out;
use crate::{attest, units};
use dcap::{TcbStatus, hex};
use enclave_image::inspect;
use manufacturer::Manufacturer;
use serde_json::Value;
use sgx_abi::AttributeFlags;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes by which a line is known again.
const START: usize = 12;
/// Most bytes of a socket's path (*unix(7)*).
const MAX_SOCKET: usize = 107;

/// All of them.
///
/// # Errors
/// Something cannot be done, or does not hold.
pub(super) fn all(story: &mut Story, platform: &Path, interrupted: &Interrupted) -> Result<(), Error> {
    story.chapter("What is in the box")?;
    let mut stage = Stage::set(story, platform, interrupted)?;
    let mut machine = stage.start(platform, "machine-1")?;
    stage.load(story, &mut machine)?;
    stage.root_looks(story, &mut machine)?;
    let quote = stage.client_gives_key(story, &mut machine)?;
    let (records, table) = stage.records_are_counted(story, &mut machine)?;
    let mut machine = stage.restart(story, machine, platform, &records, &table)?;

    story.chapter("Whom not to believe")?;
    let mut elsewhere = stage.start(&stage.elsewhere.clone(), "machine-3")?;
    stage.changed(story, &mut machine)?;
    stage.debug(story, &mut machine)?;
    stage.old(story, &mut machine)?;
    stage.foreign(story, &mut elsewhere)?;
    elsewhere.end()?;
    stage.replayed(story, &quote)?;
    stage.tampered(story, &mut machine)?;
    machine.end()
}

/// What the steps have in common.
struct Stage {
    work: tempfile::TempDir,
    shared: Shared,
    client: Client,
    /// Another platform.
    elsewhere: PathBuf,
    interrupted: Interrupted,
    started: Instant,
}

impl Stage {
    /// The enclave is built, the platform is there.
    fn set(story: &mut Story, platform: &Path, interrupted: &Interrupted) -> Result<Self, Error> {
        story.step("An enclave is built, and its code encrypted.")?;
        let work = work_folder()?;
        // both take long the first time, and then say how far they are
        image::ensure(&image::Options::default())?;
        let project = project::build(|| {
            eprintln!("kluis: building the enclave and its host program, which takes minutes the first time");
            Ok(())
        })?;
        let shared = Shared::new(&project, work.path().join("box"))?;
        let search = shared.search()?;
        let what = format!(
            "of {} pieces of its code, {} stand in the {} of ciphertext that go into the machine; in clear is the \
             loader of {}",
            search.windows,
            search.found,
            units::bytes(search.encrypted as u64),
            units::bytes(search.loader as u64)
        );
        story.check(by::MAKER, search.found == 0 && search.windows > 1000, what)?;

        let maker = maker(platform)?;
        let collateral = maker.issued(attest::now()?)?.collateral;
        let client = Client::new(maker.root()?, collateral, &shared.sig)?;
        let elsewhere = image::default_folder()?.join("demo").join("elsewhere");
        let interrupted = interrupted.clone();
        Ok(Self { work, shared, client, elsewhere, interrupted, started: Instant::now() })
    }

    fn start(&mut self, platform: &Path, name: &str) -> Result<Machine, Error> {
        self.started = Instant::now();
        Machine::start(platform, &self.shared.folder, &self.work.path().join(name), &self.interrupted)
    }

    /// The enclave is in the machine.
    fn load(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step(&format!("A {SIZE} starts, and loads the enclave."))?;
        self.shared.put_key("clinic")?;
        machine.has_done("load clinic")?;
        let loaded = in_epc(machine, &self.shared.sig.enclavehash)?;
        let what = format!(
            "measured while it was loaded, it is what was signed (EINIT): MRENCLAVE {}…; {:.1} s after the start",
            &inspect::hex(&self.shared.sig.enclavehash)[..16],
            self.started.elapsed().as_secs_f64()
        );
        story.check(by::PROCESSOR, loaded["initialized"] == true, what)?;
        let sealed = self.shared.read("clinic.sealed")?;
        let what = format!(
            "its loader has decrypted it inside, and sealed the key of the code ({} bytes)",
            sealed.len()
        );
        story.check(by::ENCLAVE, !sealed.is_empty(), what)?;
        self.shared.take_key("clinic")?;
        let what = "takes away the key itself, which the machine was given for this first start";
        story.check(by::MAKER, !self.shared.folder.join("clinic.key").exists(), what)
    }

    /// The machine's root is curious.
    fn root_looks(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The machine's root looks for it.")?;
        let epc = control::ask(Some(machine.pid()), &Ask::Inspect)?.value["epc_bytes"].as_u64();
        let seen = machine.has_done("peek")?;
        let count = |way: &str, what: &str| seen[way][what].as_u64().unwrap_or(0);
        let ones = |way: &str| count(way, "bytes") > 0 && count(way, "not_ones") == 0;
        let size = |way: &str| units::bytes(count(way, "bytes"));
        story.check(
            by::ROOT,
            ones("range"),
            format!("{} in its address range read as ones", size("range")),
        )?;
        let debugger = seen["debugger"].as_str().unwrap_or_default();
        let what = format!("a debugger's way, /proc/self/mem, is {debugger}");
        story.check(by::ROOT, debugger.starts_with("refused"), what)?;
        let whole = epc == Some(count("physical", "bytes"));
        let what = format!("all {} of EPC read as ones by physical address, /dev/mem", size("physical"));
        story.check(by::ROOT, whole && ones("physical"), what)?;
        let what = "by the same way the firmware's tables are found where they are";
        story.check(by::ROOT, seen["tables"] == true, what)
    }

    /// The client has the enclave prove what it is. The quote that it was shown.
    fn client_gives_key(&mut self, story: &mut Story, machine: &mut Machine) -> Result<Vec<u8>, Error> {
        story.step(
            "A client outside has it prove what it is, and only then gives it the key of its records.",
        )?;
        machine.has_done(&format!("listen vsock:{PORT}"))?;
        let made = machine.has_done("certify quote")?;
        let quote = self.shared.read("quote")?;
        machine.ask("serve")?;
        let given = match self.client.give_key(machine.socket())? {
            Met::Given(given) => given,
            Met::Refused(_, why) => {
                return story
                    .check(by::CLIENT, false, format!("the enclave is believed; but {why}"))
                    .map(|()| quote);
            }
        };
        let served = machine.answer()?.map_err(Error::Unmet)?;
        let what = format!(
            "has made the quote of {} bytes that the client was shown, in {:.1} s",
            quote.len(),
            made["ms"].as_f64().unwrap_or(0.0) / 1000.0
        );
        story.check(by::QUOTING, quote == given.quote, what)?;
        let verdict = &given.attested.verdict;
        let what =
            format!("signed below \"{}\", a software platform, which it was told to believe", verdict.root);
        story.check(by::CLIENT, verdict.software_platform, what)?;
        let what = format!("the platform's TCB is {}, by TCB info and QE identity", verdict.tcb.status);
        story.check(by::CLIENT, verdict.tcb.status == TcbStatus::UpToDate, what)?;
        let report = &verdict.report;
        let what = format!(
            "MRENCLAVE {}…, MRSIGNER {}…, product {}, version {}, no debug enclave",
            &hex::encode(&report.mrenclave)[..8],
            &hex::encode(&report.mrsigner)[..8],
            report.isvprodid,
            report.isvsvn
        );
        let wanted = &self.shared.sig;
        let same = report.mrenclave == wanted.enclavehash
            && report.mrsigner == sgx::sigstruct::mrsigner(wanted)
            && (report.isvprodid, report.isvsvn) == (wanted.isvprodid, wanted.isvsvn)
            && !report.attributes.flags.contains(AttributeFlags::DEBUG);
        story.check(by::CLIENT, same, what)?;
        story.check(by::CLIENT, given.bound, "REPORTDATA bind the key of this very connection (RA-TLS)")?;
        let what = format!(
            "has the key of the records, and seals it; through its host went {} bytes of a TLS that ends inside",
            served["in"].as_u64().unwrap_or(0) + served["out"].as_u64().unwrap_or(0)
        );
        let has = machine.tried("seal key.sealed")?.is_ok();
        story.check(by::ENCLAVE, has, what)?;
        Ok(given.quote)
    }

    /// Records go in, a table comes out. Both, encrypted and plain.
    fn records_are_counted(
        &mut self,
        story: &mut Story,
        machine: &mut Machine,
    ) -> Result<(Vec<u8>, String), Error> {
        let csv = project::records()?;
        let count = csv.lines().skip(1).count();
        story.step(&format!("{count} records go in encrypted, a table comes out encrypted."))?;
        let records = self.client.encrypt(csv)?;
        let encrypted = self.count(machine, &records)?;
        let what = format!(
            "the machine is given {} and gives {}: no line of records or table is found in them",
            units::bytes(records.len() as u64),
            units::bytes(encrypted.len() as u64)
        );
        let expected = plain::table(csv)?;
        let starts = csv.lines().chain(expected.lines()).filter_map(|line| line.as_bytes().get(..START));
        let starts: HashSet<_> = starts.collect();
        let stands = |bytes: &[u8]| bytes.windows(START).any(|window| starts.contains(window));
        story.check(by::CLIENT, !stands(&encrypted) && !stands(&records), what)?;
        let table = self.client.decrypt(&encrypted);
        let groups = expected.lines().count() - 1;
        let what =
            format!("decrypted, it is the table that comes out without an enclave, in {groups} groups");
        story.check(by::CLIENT, table.as_deref() == Some(&expected), what)?;
        story.show(&columns(&expected))?;
        Ok((records, expected))
    }

    /// The enclave reads records; the encrypted table.
    fn count(&self, machine: &mut Machine, records: &[u8]) -> Result<Vec<u8>, Error> {
        self.shared.write("records", records)?;
        machine.has_done("records records")?;
        machine.has_done("results table")?;
        let table = self.shared.read("table")?;
        self.shared.remove("table")?;
        Ok(table)
    }

    /// The key outlasts the machine.
    fn restart(
        &mut self,
        story: &mut Story,
        machine: Machine,
        platform: &Path,
        records: &[u8],
        table: &str,
    ) -> Result<Machine, Error> {
        story.step("The machine is switched off, and another one starts.")?;
        machine.end()?;
        let sealed = self.shared.read("key.sealed")?;
        let stands = sealed.windows(8).any(|window| self.client.key().windows(8).any(|part| part == window));
        let what =
            format!("the key of the records is sealed in {} bytes, in which none of it stands", sealed.len());
        story.check(by::CLIENT, !stands, what)?;
        let mut machine = self.start(platform, "machine-2")?;
        machine.has_done("load clinic")?;
        let alone = !self.shared.folder.join("clinic.key").exists();
        story.check(by::ENCLAVE, alone, "is decrypted by the sealed key of its code, without that key")?;
        machine.has_done("unseal key.sealed")?;
        let same = self.client.decrypt(&self.count(&mut machine, records)?).as_deref() == Some(table);
        story.check(
            by::CLIENT,
            same,
            "the same table of the same records, and nobody was asked for a key",
        )?;
        machine.has_done(&format!("listen vsock:{PORT}"))?;
        Ok(machine)
    }

    /// A byte of the enclave is changed.
    fn changed(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("An enclave of which one byte was changed.")?;
        self.shared.put_key("changed")?;
        let failed = |machine: &Machine| -> Result<Option<u64>, Error> {
            let epc = control::ask(Some(machine.pid()), &Ask::Inspect)?.value;
            Ok(epc["counters"]["failed"].as_u64())
        };
        let before = failed(machine)?;
        let tried = machine.tried("load changed clinic")?;
        story.check(
            by::PROCESSOR,
            failed(machine)? > before,
            "EINIT fails with the signature that it has",
        )?;
        refused_by(story, by::HOST, &tried, "SGX_INVALID_MEASUREMENT", "says why")?;
        machine.has_done("load changed changed")?;
        self.shared.take_key("changed")?;
        let what = "once its maker has signed that too, it starts, with another MRENCLAVE";
        let loaded = in_epc(machine, &self.shared.changed)?;
        story.check(by::PROCESSOR, loaded["initialized"] == true, what)?;
        is_refused(&self.client, story, machine, "mrenclave")
    }

    /// The enclave is open to a debugger.
    fn debug(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The same enclave as a debug build.")?;
        let loaded = self.load_as(machine, "debug")?;
        let debug = loaded["attributes"].as_array().is_some_and(|all| all.iter().any(|one| one == "DEBUG"));
        story.check(by::PROCESSOR, debug, "it starts, with the same MRENCLAVE and the attribute DEBUG")?;
        is_refused(&self.client, story, machine, "debug")
    }

    /// The enclave is of a version with known defects.
    fn old(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The same enclave as the version before.")?;
        let loaded = self.load_as(machine, "old")?;
        let old = loaded["isvsvn"].as_u64().is_some_and(|svn| svn < u64::from(self.shared.sig.isvsvn));
        story.check(by::PROCESSOR, old, "it starts, with the same MRENCLAVE and a lower ISVSVN")?;
        let tried = machine.tried("unseal key.sealed")?;
        refused_by(story, by::ENCLAVE, &tried, "later version", "gets no key for what there is (EGETKEY)")?;
        is_refused(&self.client, story, machine, "security-version")
    }

    /// Loads the same pages with another signature; what the processor says of that.
    fn load_as(&self, machine: &mut Machine, signature: &str) -> Result<Value, Error> {
        self.shared.put_key("clinic")?;
        machine.has_done(&format!("load clinic {signature}"))?;
        self.shared.take_key("clinic")?;
        in_epc(machine, &self.shared.sig.enclavehash)
    }

    /// The enclave is the right one, the processor is another's.
    fn foreign(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The right enclave, in a machine on somebody else's platform.")?;
        let sealed = self.shared.read("clinic.sealed")?;
        self.shared.write("foreign.sig", &self.shared.read("clinic.sig")?)?;
        self.shared.write("foreign.sealed", &sealed)?;
        let tried = machine.tried("load clinic foreign")?;
        let closed = tried.is_err() && self.shared.read("foreign.sealed")? == sealed;
        story.check(
            by::ENCLAVE,
            closed,
            "stays closed: the sealed key of its code does not open it there",
        )?;
        let loaded = self.load_as(machine, "foreign")?;
        let what = "with the key of its code it starts, with the same MRENCLAVE";
        story.check(by::PROCESSOR, loaded["initialized"] == true, what)?;
        machine.has_done(&format!("listen vsock:{PORT}"))?;
        if leaves_out("foreign-root") {
            let maker = maker(&self.elsewhere)?;
            let client = self.client.who_believes(maker.root()?, maker.issued(attest::now()?)?.collateral);
            return is_refused(&client, story, machine, "foreign-root");
        }
        is_refused(&self.client, story, machine, "foreign-root")
    }

    /// Somebody shows a quote that was another's.
    fn replayed(&mut self, story: &mut Story, quote: &[u8]) -> Result<(), Error> {
        story.step("A server without an enclave, which shows the quote of before.")?;
        let thief = Thief::wait(self.work.path(), quote)?;
        let met = self.client.give_key(&thief.socket)?;
        refused(story, met, "report-data")?;
        let heard = thief.heard()?;
        story.check(by::THIEF, heard == 0, format!("has heard {heard} bytes of what is said in TLS"))
    }

    /// A line of the EPC's memory is changed.
    fn tampered(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("A line of the enclave's memory is changed behind the processor's back.")?;
        machine.has_done("load clinic")?;
        machine.has_done("unseal key.sealed")?;
        // its control structure, which the processor reads whenever it enters
        let loaded = in_epc(machine, &self.shared.sig.enclavehash)?;
        let secs = loaded["secs_page"].as_u64().and_then(|page| u32::try_from(page).ok());
        let secs = secs.ok_or_else(|| Error::failed("the processor does not say where the SECS is"))?;
        let drill = Ask::Tamper { drill: "flip".into(), page: Some(secs) };
        let done = control::ask(Some(machine.pid()), &drill)?;
        let change = done.value["change"].as_str().unwrap_or_default();
        let tried = machine.tried("records records")?;
        let epc = control::ask(Some(machine.pid()), &Ask::Inspect)?.value;
        let lost = epc["loss"].as_str().unwrap_or_default();
        let noticed = epc["lost"] == true && lost.contains(&format!("page {secs} "));
        let what = format!("{change}, in its SECS: {lost}");
        story.check(by::PROCESSOR, noticed, what)?;
        story.check(by::HOST, tried.is_err(), "the enclave is not entered any more")?;
        let tried = machine.tried("load clinic")?;
        story.check(by::HOST, tried.is_err(), "nor another one: the EPC is locked until a reset")
    }
}

/// A folder that goes with the process, in which sockets can be.
fn work_folder() -> Result<tempfile::TempDir, Error> {
    let work = tempfile::Builder::new().prefix("kluis-demo-").tempdir();
    let work = work.map_err(|e| Error::bad(format!("cannot make a folder: {e}; set TMPDIR to another")))?;
    if work.path().join("machine-1").join(SOCKET).as_os_str().as_bytes().len() > MAX_SOCKET {
        return Err(Error::bad(format!(
            "{} has too long a path for sockets in it: set TMPDIR to a shorter one",
            work.path().display()
        )));
    }
    Ok(work)
}

/// What the processor tells of an enclave.
fn in_epc(machine: &Machine, mrenclave: &[u8; 32]) -> Result<Value, Error> {
    let epc = control::ask(Some(machine.pid()), &Ask::Inspect)?.value;
    let mrenclave = inspect::hex(mrenclave);
    let mut enclaves = epc["enclaves"].as_array().into_iter().flatten();
    let found = enclaves.find(|enclave| enclave["mrenclave"] == mrenclave);
    found.cloned().ok_or_else(|| Error::Unmet(format!("no enclave with MRENCLAVE {mrenclave} is in the EPC")))
}

/// The client meets the enclave that is loaded, and refuses it for breaking this rule.
fn is_refused(
    client: &Client,
    story: &mut Story,
    machine: &mut Machine,
    rule: &'static str,
) -> Result<(), Error> {
    machine.has_done("certify other-quote")?;
    machine.ask("serve")?;
    let met = client.give_key(machine.socket())?;
    // whatever it was: what counts is what the enclave has now
    let _ = machine.answer()?;
    refused(story, met, rule)?;
    let tried = machine.tried("seal other.sealed")?;
    refused_by(story, by::ENCLAVE, &tried, "no key of records", "has got nothing")
}

/// A client's refusal for breaking this rule.
fn refused(story: &mut Story, met: Met, rule: &'static str) -> Result<(), Error> {
    match met {
        Met::Refused(broken, why) => {
            story.check(by::CLIENT, broken == rule, format!("refuses it: {}", shortened(&why)))
        }
        Met::Given(_) => story.check(by::CLIENT, false, format!("refuses it ({rule})")),
    }
}

/// A refusal by the machine's side, whose words have these in them.
fn refused_by(
    story: &mut Story,
    who: &'static str,
    tried: &Answer,
    words: &str,
    what: &str,
) -> Result<(), Error> {
    let why = tried.as_ref().err().map(String::as_str).unwrap_or_default();
    story.check(who, why.contains(words), format!("{what}: {}", shortened(why)))
}

/// Digests as people compare them.
fn shortened(text: &str) -> String {
    let word = |word: &str| match word.trim_end_matches([';', ',']) {
        digits if digits.len() >= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("{}…{}", &digits[..8], &word[digits.len()..])
        }
        _ => word.to_owned(),
    };
    // what to do about it is for those who wanted it otherwise
    let cause = text.split_once("; ").filter(|_| !text.ends_with(']')).map_or(text, |(cause, _)| cause);
    cause.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A table of text, in columns.
fn columns(csv: &str) -> String {
    let row = |line: &str| {
        let fields = line.split(',').zip([12, 6, 10, 15, 6]);
        fields.map(|(field, width)| format!("{field:<width$}")).collect::<String>() + "\n"
    };
    csv.lines().map(row).collect()
}

/// The maker of the platform there, which is made if it is not there yet.
fn maker(folder: &Path) -> Result<Manufacturer, Error> {
    let mut platform = crate::platform::for_machine(folder)?;
    let maker = Manufacturer::of_platform(&mut platform, || {
        eprintln!(
            "kluis: making the key that signs the platform's quoting enclave, which takes seconds, once"
        );
    })?;
    crate::platform::keep(&mut platform, false)?;
    Ok(maker)
}
