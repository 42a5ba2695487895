//! The steps of the story.

use super::client::{Client, Met};
use super::machine::{Machine, PORT, SIZE};
use super::story::{Story, by};
use super::thief::Thief;
use super::variants::Shared;
use super::{plain, project};
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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// All of them.
///
/// # Errors
/// Something cannot be done, or does not hold.
pub(super) fn all(story: &mut Story, platform: &Path, interrupted: &Arc<AtomicBool>) -> Result<(), Error> {
    story.chapter("What is in the box")?;
    let mut stage = Stage::set(story, platform, interrupted)?;
    let mut machine = stage.start(platform, "machine")?;
    stage.load(story, &mut machine)?;
    stage.root_looks(story, &mut machine)?;
    let quote = stage.client_gives_key(story, &mut machine)?;
    let (records, table) = stage.records_are_counted(story, &mut machine)?;
    let mut machine = stage.restart(story, machine, platform, &records, &table)?;

    story.chapter("Whom not to believe")?;
    let mut elsewhere = stage.start(&stage.elsewhere.clone(), "elsewhere")?;
    stage.changed(story, &mut machine)?;
    stage.debug(story, &mut machine)?;
    stage.old(story, &mut machine)?;
    stage.foreign(story, &mut elsewhere)?;
    elsewhere.end()?;
    stage.replayed(story, &quote)?;
    stage.tampered(story, &mut machine)?;
    machine.end()
}

/// Bytes by which a line is known again.
const START: usize = 12;

/// What the steps have in common.
struct Stage {
    work: tempfile::TempDir,
    shared: Shared,
    client: Client,
    /// The name of the root that the client believes.
    root: String,
    /// Another platform.
    elsewhere: PathBuf,
    interrupted: Arc<AtomicBool>,
    started: Instant,
}

impl Stage {
    /// The enclave is built, the platform is there.
    fn set(story: &mut Story, platform: &Path, interrupted: &Arc<AtomicBool>) -> Result<Self, Error> {
        story.step("An enclave is built, and its code encrypted.")?;
        // both take long the first time, and then say how far they are
        image::ensure(&image::Options::default())?;
        let project = project::build(|| {
            eprintln!("kluis: building the enclave and its host program, which takes minutes the first time");
            Ok(())
        })?;
        let work = tempfile::Builder::new().prefix("kluis-demo-").tempdir();
        let work =
            work.map_err(|e| Error::failed(format!("cannot make a folder: {e}; set TMPDIR to another")))?;
        let shared = Shared::new(&project, work.path().join("box"))?;
        let search = shared.search()?;
        let what = format!(
            "of {} pieces of its code, {} stand in the {} that go into the machine; in clear is a loader of {}",
            search.windows,
            search.found,
            units::bytes(search.encrypted as u64),
            units::bytes(search.loader as u64)
        );
        story.check(by::MAKER, search.found == 0 && search.windows > 1000, what)?;

        let maker = maker(platform)?;
        let root = maker.root()?;
        let name = root.certificate().common_name().to_owned();
        let collateral = maker.issued(attest::now()?)?.collateral;
        let elsewhere = image::default_folder()?.join("demo").join("elsewhere");
        let client = Client::new(root, collateral, &shared.sig)?;
        let interrupted = interrupted.clone();
        Ok(Self { work, shared, client, root: name, elsewhere, interrupted, started: Instant::now() })
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
        let hash = inspect::hex(&self.shared.sig.enclavehash);
        let what = format!(
            "measured while it was loaded, it is what was signed (EINIT): MRENCLAVE {}…; {:.1} s after the start",
            &hash[..16],
            self.started.elapsed().as_secs_f64()
        );
        story.check(by::PROCESSOR, self.in_epc(machine)?["initialized"] == true, what)?;
        self.shared.take_key("clinic")?;
        let sealed = self.shared.read("clinic.sealed")?;
        let what = format!(
            "its loader has decrypted it inside, and sealed the key of the code ({} bytes): the key itself, which \
             the machine had for this first start, is gone from it",
            sealed.len()
        );
        story.check(by::ENCLAVE, !sealed.is_empty(), what)
    }

    /// The machine's root is curious.
    fn root_looks(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The machine's root looks for it.")?;
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
        let what = format!("all {} of EPC read as ones by physical address, /dev/mem", size("physical"));
        story.check(by::ROOT, ones("physical"), what)?;
        let what = format!(
            "by the same way other memory shows what it holds: {} of {} bytes are no ones",
            count("control", "not_ones"),
            count("control", "bytes")
        );
        story.check(by::ROOT, count("control", "not_ones") > 0, what)
    }

    /// The client has the enclave prove what it is. The quote.
    fn client_gives_key(&mut self, story: &mut Story, machine: &mut Machine) -> Result<Vec<u8>, Error> {
        story.step(
            "A client outside has it prove what it is, and only then gives it the key of its records.",
        )?;
        machine.has_done(&format!("listen vsock:{PORT}"))?;
        let made = machine.has_done("certify quote")?;
        let quote = self.shared.read("quote")?;
        let what = format!(
            "a quote of {} bytes for a key of TLS that was made inside, in {:.1} s",
            quote.len(),
            made["ms"].as_f64().unwrap_or(0.0) / 1000.0
        );
        story.check(by::QUOTING, !quote.is_empty(), what)?;
        machine.ask("serve")?;
        let (attested, bound) = match self.client.give_key(machine.socket())? {
            Met::Given(attested, bound) => (attested, bound),
            Met::Refused(_, why) => {
                return story
                    .check(by::CLIENT, false, format!("the enclave is believed; but {why}"))
                    .map(|()| quote);
            }
        };
        let served = machine.answer()?.map_err(Error::Unmet)?;
        let verdict = &attested.verdict;
        let what =
            format!("signed below \"{}\", a software platform, which it was told to believe", verdict.root);
        story.check(by::CLIENT, verdict.root == self.root && verdict.software_platform, what)?;
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
        story.check(by::CLIENT, bound, "REPORTDATA bind the key of this very connection (RA-TLS)")?;
        let what = format!(
            "has the key of the records; its host has passed on {} bytes of TLS and knows none of it",
            served["in"].as_u64().unwrap_or(0) + served["out"].as_u64().unwrap_or(0)
        );
        story.check(by::ENCLAVE, served["kept"] == true, what)?;
        Ok(quote)
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
        self.shared.write("records", &records)?;
        machine.has_done("records records")?;
        machine.has_done("results table")?;
        let encrypted = self.shared.read("table")?;
        let what = format!(
            "{} of records, {} of table pass it; no line of either is found in them",
            units::bytes(records.len() as u64),
            units::bytes(encrypted.len() as u64)
        );
        let expected = plain::table(csv)?;
        let starts = csv.lines().chain(expected.lines()).filter_map(|line| line.as_bytes().get(..START));
        let starts: HashSet<_> = starts.collect();
        let stands = |bytes: &[u8]| bytes.windows(START).any(|window| starts.contains(window));
        story.check(by::ROOT, !stands(&encrypted) && !stands(&records), what)?;
        let table = self.client.decrypt(&encrypted);
        let what = format!(
            "decrypted, it is the table that comes out without an enclave, in {} groups",
            expected.lines().count() - 1
        );
        story.check(by::CLIENT, table.as_deref() == Some(&expected), what)?;
        story.show(&columns(&expected))?;
        Ok((records, expected))
    }

    /// The key outlasts the machine.
    fn restart(
        &mut self,
        story: &mut Story,
        mut machine: Machine,
        platform: &Path,
        records: &[u8],
        table: &str,
    ) -> Result<Machine, Error> {
        story.step("The machine is switched off, and another one starts.")?;
        machine.has_done("seal key.sealed")?;
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
        self.shared.write("records", records)?;
        machine.has_done("records records")?;
        machine.has_done("results table")?;
        let same = self.client.decrypt(&self.shared.read("table")?).as_deref() == Some(table);
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
        let tried = machine.tried("load changed clinic")?;
        refused_by(
            story,
            by::PROCESSOR,
            &tried,
            "EINIT",
            "does not start it with the signature that it has",
        )?;
        machine.has_done("load changed changed")?;
        self.shared.take_key("changed")?;
        is_refused(&self.client, story, machine, "signed once more by the same maker, it runs", "mrenclave")
    }

    /// The enclave is open to a debugger.
    fn debug(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The same enclave as a debug build.")?;
        self.load_as(machine, "debug")?;
        is_refused(&self.client, story, machine, "it runs, MRENCLAVE is the same", "debug")
    }

    /// The enclave is of a version with known defects.
    fn old(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The same enclave as the version before.")?;
        self.load_as(machine, "old")?;
        let tried = machine.tried("unseal key.sealed")?;
        refused_by(
            story,
            by::ENCLAVE,
            &tried,
            "sealed",
            "gets no key for what a later version has sealed (EGETKEY)",
        )?;
        is_refused(&self.client, story, machine, "it runs, MRENCLAVE is the same", "security-version")
    }

    fn load_as(&self, machine: &mut Machine, signature: &str) -> Result<(), Error> {
        self.shared.put_key("clinic")?;
        machine.has_done(&format!("load clinic {signature}"))?;
        self.shared.take_key("clinic")
    }

    /// The enclave is the right one, the processor is another's.
    fn foreign(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("The right enclave, in a machine on somebody else's platform.")?;
        for kind in ["sig", "sealed"] {
            self.shared.write(&format!("foreign.{kind}"), &self.shared.read(&format!("clinic.{kind}"))?)?;
        }
        let tried = machine.tried("load clinic foreign")?;
        refused_by(
            story,
            by::ENCLAVE,
            &tried,
            "encrypted",
            "the sealed key of its code does not open it there",
        )?;
        self.load_as(machine, "foreign")?;
        machine.has_done(&format!("listen vsock:{PORT}"))?;
        let but = "with the key of its code it runs, and MRENCLAVE is the same";
        if leaves_out("foreign-root") {
            let (root, collateral) = maker_root(&self.elsewhere)?;
            let client = self.client.who_believes(root, collateral);
            return is_refused(&client, story, machine, but, "foreign-root");
        }
        is_refused(&self.client, story, machine, but, "foreign-root")
    }

    /// Somebody shows a quote that was another's.
    fn replayed(&mut self, story: &mut Story, quote: &[u8]) -> Result<(), Error> {
        story.step("A server without an enclave, which shows the quote of before.")?;
        let thief = Thief::wait(self.work.path(), quote)?;
        let met = self.client.give_key(&thief.socket)?;
        refused(story, met, "every signature of it is genuine", "report-data")?;
        let heard = thief.heard();
        story.check(by::CLIENT, heard == 0, format!("the server has heard {heard} bytes"))
    }

    /// A line of the EPC's memory is changed.
    fn tampered(&mut self, story: &mut Story, machine: &mut Machine) -> Result<(), Error> {
        story.step("A line of the enclave's memory is changed behind the processor's back.")?;
        machine.has_done("load clinic")?;
        machine.has_done("unseal key.sealed")?;
        // its control structure, which the processor reads whenever it enters
        let secs = self.in_epc(machine)?["secs_page"].as_u64().and_then(|page| u32::try_from(page).ok());
        let drill = Ask::Tamper { drill: "flip".into(), page: secs };
        let done = control::ask(Some(machine.pid()), &drill)?;
        let change = done.value["change"].as_str().unwrap_or_default();
        let tried = machine.tried("records records")?;
        let what = format!("{change}, in its SECS: that does not verify, and the enclave is not entered");
        story.check(by::PROCESSOR, tried.is_err(), what)?;
        let tried = machine.tried("load clinic")?;
        story.check(
            by::PROCESSOR,
            tried.is_err(),
            "the EPC is locked: no other enclave starts until a reset",
        )?;
        let epc = control::ask(Some(machine.pid()), &Ask::Inspect)?;
        let lost = epc.value["loss"].as_str().unwrap_or_default().to_owned();
        story.check(by::PROCESSOR, epc.value["lost"] == true, format!("says why: {lost}"))
    }

    /// What the processor tells of the enclave.
    fn in_epc(&self, machine: &Machine) -> Result<Value, Error> {
        let epc = control::ask(Some(machine.pid()), &Ask::Inspect)?.value;
        let mrenclave = inspect::hex(&self.shared.sig.enclavehash);
        let mut enclaves = epc["enclaves"].as_array().into_iter().flatten();
        let found = enclaves.find(|enclave| enclave["mrenclave"] == mrenclave);
        found.cloned().ok_or_else(|| Error::Unmet("the enclave is not in the EPC".into()))
    }
}

/// The client meets the enclave that is loaded, and refuses it for breaking this rule.
fn is_refused(
    client: &Client,
    story: &mut Story,
    machine: &mut Machine,
    but: &str,
    rule: &'static str,
) -> Result<(), Error> {
    machine.has_done("certify other-quote")?;
    machine.ask("serve")?;
    let met = client.give_key(machine.socket())?;
    let served = machine.answer()?;
    refused(story, met, but, rule)?;
    let kept = matches!(&served, Ok(served) if served["kept"] == true);
    story.check(by::ENCLAVE, !kept, "has got no key")
}

/// A client's refusal for breaking this rule.
fn refused(story: &mut Story, met: Met, but: &str, rule: &'static str) -> Result<(), Error> {
    match met {
        Met::Refused(broken, why) => {
            story.check(by::CLIENT, broken == rule, format!("{but}, and is refused: {}", shortened(&why)))
        }
        Met::Given(..) => story.check(by::CLIENT, false, format!("{but}, and is refused ({rule})")),
    }
}

/// A refusal by the machine's side, whose words have this in them.
fn refused_by(
    story: &mut Story,
    who: &'static str,
    tried: &Result<Value, String>,
    word: &str,
    what: &str,
) -> Result<(), Error> {
    let why = tried.as_ref().err().map(String::as_str).unwrap_or_default();
    story.check(who, why.contains(word), format!("{what}: {}", shortened(why)))
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

/// What somebody would believe who believes anybody.
fn maker_root(folder: &Path) -> Result<(dcap::Root, dcap::Collateral), Error> {
    let maker = maker(folder)?;
    Ok((maker.root()?, maker.issued(attest::now()?)?.collateral))
}
