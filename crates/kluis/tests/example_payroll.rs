//! `examples/payroll`: parties with 100,000 records, encrypted for an enclave in a machine,
//! which are in clear nowhere else; and results that are what a plain computation gives.

mod common;

use common::example::Example;
use common::search::{self, Found, Needles};
use common::session::Session;
use common::{output, text, turn};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// People in the records of each party that has some: of three, one only receives.
const PEOPLE: usize = 50_000;
const PARTIES: [&str; 3] = ["north", "south", "council"];
const GROUPS: [&str; 5] = ["nurse", "cook", "porter", "surgeon", "clerk"];

/// What is no secret: in the guest as the study's title, on its disk, and outside as part of
/// the command line.
const CONTROL: &str = "control-8d1f0c56a97be243";

/// Parties of a study, at home.
struct Parties {
    example: Example,
    client: PathBuf,
}

impl Parties {
    fn new() -> Self {
        let example = Example::new("payroll");
        let client = example.program("payroll-client");
        let parties = Self { example, client };
        std::fs::create_dir(parties.folder()).unwrap();
        for (seed, party) in (1..).zip(PARTIES) {
            if party != "council" {
                let sample = parties.works(&["sample", &PEOPLE.to_string(), &seed.to_string()]);
                std::fs::write(parties.at(party, "csv"), sample).unwrap();
            }
        }
        parties
    }

    /// The folder that the machine gets.
    fn folder(&self) -> PathBuf {
        self.example.user.path(CONTROL)
    }

    fn at(&self, party: &str, kind: &str) -> String {
        self.example.user.at(&format!("{party}.{kind}"))
    }

    /// Makes keys; writes what the study is.
    fn agree(&self) {
        let party = |name: &&str| {
            let key = self.works(&["key", &self.at(name, "key")]);
            serde_json::json!({
                "name": name, "key": key.trim(), "contributes": *name != "council", "receives": true,
            })
        };
        let parties: Vec<_> = PARTIES.iter().map(party).collect();
        let study =
            serde_json::json!({ "title": CONTROL, "groups": GROUPS, "minimum": 10, "parties": parties });
        std::fs::write(self.folder().join("study.json"), study.to_string()).unwrap();
    }

    /// A machine with the study's enclave; where it is reached, and the study's fingerprint.
    fn machine(&self) -> (Session, String, String) {
        let share = format!("{}:/study", self.folder().display());
        let run = ["run", "--timeout", "1000s", "--memory", "384M", "--epc", "64M", "--publish", "0:7000"];
        let host = ["--share", &share, "--", "/study", "tcp:0.0.0.0:7000"];
        let mut session = Session::start(&mut self.example.enclave(&[&run[..], &host].concat()));
        let endpoint = format!("tcp:{}", session.published(7000));
        session.hear(CONTROL);
        let fingerprint = session.hear_after("fingerprint ");
        (session, endpoint, fingerprint)
    }

    /// Exit code and what it says.
    fn client(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let out = output(Command::new(&self.client).args(args), b"");
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    }

    fn works(&self, args: &[&str]) -> String {
        let (code, said, errors) = self.client(args);
        assert_eq!(code, Some(0), "{args:?}: {said}{errors}");
        said
    }

    fn refused(&self, args: &[&str], why: &str) {
        let (code, said, errors) = self.client(args);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{args:?}: {errors}");
        assert!(errors.contains(why) && errors.lines().count() == 1, "{args:?}: {errors}");
    }
}

/// What is to be looked for: records, which are secret; the control and what was sent, which
/// are not.
struct Wanted {
    secret: Needles,
    control: Needles,
    sent: Needles,
}

impl Wanted {
    fn all(&self) -> [&Needles; 3] {
        [&self.secret, &self.control, &self.sent]
    }
}

/// What is found in the machine's process, and what the enclave's memory is.
fn found_in(
    machine: &Session,
    parties: &Parties,
    wanted: &Wanted,
    when: &str,
) -> (search::Process<3>, String) {
    let begin = Instant::now();
    let inspect = |args: &[&str]| -> serde_json::Value {
        let mut command = common::kluis();
        let out = output(command.env("XDG_RUNTIME_DIR", parties.example.user.at("")).args(args), b"");
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out.stderr)))
    };
    // the kernel's code, as a device reads it, tells which memory is the guest's
    let (at, len) = (0x100_0000u64, 4096usize);
    let bus = inspect(&["debug", "bus", &at.to_string(), &len.to_string(), "--json"]);
    let bus = bus["bytes"].as_str().unwrap();
    let byte = |n| u8::from_str_radix(&bus[2 * n..2 * n + 2], 16).unwrap();
    let kernel: Vec<u8> = (0..len).map(byte).collect();

    let process = search::process(wanted.all(), machine.pid(), (at, &kernel));
    let view = inspect(&["sgx", "inspect", "--json"]);
    let backend = view["memory"]["backend"].as_str().unwrap().to_owned();
    println!("{when}, in {:?}; the enclave's memory is {backend}", begin.elapsed());
    tell("the guest's memory", &process.guest);
    tell("the rest of the process", &process.rest);
    let closed = process.closed.iter().map(|(_, bytes)| bytes).sum::<u64>();
    println!("  closed: {closed} bytes in {:?}", process.closed);
    (process, backend)
}

/// Looks through the machine's process, in which nothing may be.
fn look_into(machine: &Session, parties: &Parties, wanted: &Wanted, when: &str) {
    let (process, backend) = found_in(machine, parties, wanted, when);
    let search::Process { guest, rest, closed } = process;
    let [secret, control, sent] = guest;
    assert!(guest[0].bytes >= 384 << 20, "the guest's memory was not found");
    assert_ne!(control.hits, 0, "the control is not found: the search can fail");
    assert_ne!(sent.hits, 0, "what was sent is not found where it came by");
    assert_eq!(secret.hits, 0, "a record is in the guest's memory: {:?}", secret.first.map(|w| text(&w)));
    let [secret, control, _] = rest;
    assert_ne!(control.hits, 0, "the control is not found: the search can fail");
    if backend.starts_with("memfd_secret") {
        assert_eq!(secret.hits, 0, "a record is in the process: {:?}", secret.first.map(|w| text(&w)));
        assert!(closed.iter().any(|(name, _)| name.contains("secretmem")), "{closed:?}");
    } else {
        println!("not shown: without memfd_secret the host reads the enclave's memory by its processor");
    }
}

fn tell(what: &str, found: &[Found; 3]) {
    let [secret, control, sent] = found.map(|found| found.hits);
    let bytes = found[0].bytes;
    println!("  {what}: {bytes} bytes; records {secret}, control {control}, ciphertext {sent} windows");
}

/// What is found in what the guest has as disks, and in files that its process has open.
fn found_on_disks(machine: &Session, parties: &Parties, wanted: &Wanted) -> [Found; 3] {
    let image = image::ensure(&image::Options::default()).unwrap();
    let mut files = vec![image.kernel, image.initrd];
    files_of(&parties.folder(), &mut files);
    files_of(&parties.example.built(), &mut files);
    for open in std::fs::read_dir(format!("/proc/{}/fd", machine.pid())).unwrap().flatten() {
        files.extend(std::fs::read_link(open.path()).ok().filter(|file| file.is_file()));
    }
    let mut all = [Found::default(); 3];
    for file in &files {
        let found = search::look(wanted.all(), std::fs::File::open(file).unwrap());
        all.iter_mut().zip(&found).for_each(|(sum, found)| sum.add(found));
    }
    tell(&format!("{} files", files.len()), &all);
    all
}

/// Looks through them, where nothing may be either.
fn look_at_disks(machine: &Session, parties: &Parties, wanted: &Wanted) {
    let [secret, control, sent] = found_on_disks(machine, parties, wanted);
    assert_eq!(secret.hits, 0, "a record is on a disk: {:?}", secret.first.map(|w| text(&w)));
    assert_ne!(control.hits, 0, "the control is not found: the search can fail");
    assert!(sent.hits as usize >= wanted.sent.len(), "what was sent is kept");
}

fn files_of(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_of(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The same searches find records that do get out: some that a party sends as they are, and
/// that somebody leaves on the disk.
fn planted_are_found(machine: &Session, parties: &Parties, wanted: &Wanted, endpoint: &str, records: &[u8]) {
    let leak = parties.folder().join("leak");
    std::fs::write(&leak, records).unwrap();
    let mut client = TcpStream::connect(endpoint.strip_prefix("tcp:").unwrap()).unwrap();
    client.write_all(records).unwrap();
    // the host program has read of it, and wants no more: it is no message
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = client.read(&mut [0]);
    let (process, _) = found_in(machine, parties, wanted, "with records that were planted");
    for (place, found) in [
        ("the guest's memory", process.guest),
        ("the process", process.rest),
        ("a disk", found_on_disks(machine, parties, wanted)),
    ] {
        assert_ne!(found[0].hits, 0, "a record in {place} is not found");
    }
    std::fs::remove_file(leak).unwrap();
}

/// People, mean and deviation by group, of records as they are.
fn plain(records: &[String]) -> BTreeMap<&str, [f64; 3]> {
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for line in records.iter().flat_map(|text| text.lines().skip(1)) {
        let fields: Vec<_> = line.split(',').collect();
        groups.entry(fields[1]).or_default().push(fields[2].parse().unwrap());
    }
    let figures = |pay: Vec<f64>| {
        let people = pay.len() as f64;
        let mean = pay.iter().sum::<f64>() / people;
        let variance = pay.iter().map(|pay| (pay - mean).powi(2)).sum::<f64>() / people;
        [people, mean, variance.sqrt()]
    };
    groups.into_iter().map(|(group, pay)| (group, figures(pay))).collect()
}

#[test]
fn records_are_in_clear_inside_and_nowhere_else() {
    let _turn = turn();
    let parties = Parties::new();
    parties.agree();
    let (machine, endpoint, fingerprint) = parties.machine();
    let fingerprint = fingerprint.as_str();
    let study = parties.works(&["study", &endpoint]);
    assert!(study.contains(fingerprint) && !study.contains("DEBUG"), "{study}");

    let records = ["north", "south"].map(|party| std::fs::read_to_string(parties.at(party, "csv")).unwrap());
    for party in ["north", "south"] {
        let [key, csv, upload] = ["key", "csv", "upload"].map(|kind| parties.at(party, kind));
        let encrypt = ["encrypt", &endpoint, fingerprint, &key, &csv, &upload];
        assert_eq!(parties.works(&encrypt), format!("encrypted {PEOPLE} records\n"));
    }
    let other = fingerprint.replace(&fingerprint[..1], if fingerprint.starts_with('0') { "1" } else { "0" });
    let [key, csv] = ["key", "csv"].map(|kind| parties.at("north", kind));
    parties.refused(
        &["encrypt", &endpoint, &other, &key, &csv, &parties.at("x", "upload")],
        "not what was told",
    );

    let upload = |party| std::fs::read(parties.at(party, "upload")).unwrap();
    let plaintext: Vec<_> = records.iter().map(|text| text.split_once('\n').unwrap().1.as_bytes()).collect();
    let mut wanted = Wanted {
        secret: Needles::new(&plaintext),
        control: Needles::new(&[CONTROL.as_bytes()]),
        sent: Needles::new(&[&upload("north"), &upload("south")]),
    };
    println!("{} windows of {} records", wanted.secret.len(), 2 * PEOPLE);
    let [found] = search::look([&wanted.secret], plaintext[0]);
    assert_eq!(found.hits, plaintext[0].len() as u64 - 15, "the search finds what is there");

    let begin = Instant::now();
    let send = |party| parties.works(&["send", &endpoint, &parties.at(party, "upload")]);
    assert_eq!(send("north"), "delivered\n");
    parties.refused(&["results", &endpoint, fingerprint, &key], "records are missing of south");
    thread::scope(|scope| {
        let south = scope.spawn(|| send("south"));
        look_into(&machine, &parties, &wanted, "while records come in");
        assert_eq!(south.join().unwrap(), "delivered\n");
    });
    println!("{} records taken in {:?}", 2 * PEOPLE, begin.elapsed());

    // the same to all who receive, for each by its key
    let tables = PARTIES.map(|party| {
        let (key, upload) = (parties.at(party, "key"), parties.at(party, "upload"));
        let results = ["results", &endpoint, fingerprint, &key];
        let counted: &[&str] = if party == "council" { &[] } else { &[&upload] };
        parties.works(&[&results[..], counted].concat())
    });
    let [table, ..] = &tables;
    println!("{table}");
    assert!(tables.iter().all(|other| other == table), "{tables:?}");
    let (head, lines) = table.split_once('\n').unwrap();
    assert_eq!(head, "group,people,mean,deviation");
    let plain = plain(&records);
    assert_eq!(lines.lines().count(), plain.len());
    for line in lines.lines() {
        let (group, figures) = line.split_once(',').unwrap();
        let told: Vec<f64> = figures.split(',').map(|figure| figure.parse().unwrap()).collect();
        for (told, exact) in told.iter().zip(plain[group]) {
            assert!((told - exact).abs() < 0.52, "{group}: {told:?}, {exact:?}");
        }
    }
    let stranger = parties.at("stranger", "key");
    parties.works(&["key", &stranger]);
    parties.refused(&["results", &endpoint, fingerprint, &stranger], "no party with this key");

    // results are for the parties alone, too
    wanted.secret = Needles::new(&[&plaintext[..], &[lines.as_bytes()]].concat());
    look_into(&machine, &parties, &wanted, "after the results");
    look_at_disks(&machine, &parties, &wanted);
    planted_are_found(&machine, &parties, &wanted, &endpoint, &plaintext[0][..16 << 10]);

    // another start has the key, and what was sent
    drop(machine);
    let (_machine, endpoint, again) = parties.machine();
    assert_eq!(again, fingerprint);
    assert_eq!(parties.works(&["results", &endpoint, fingerprint, &key]), *table);
}

#[test]
fn its_own_tests_pass_inside() {
    let _turn = turn();
    let example = Example::new("payroll");
    let out = example.works(&["test", "--quiet", "--timeout", "500s", "--memory", "256M"]);
    assert!(text(&out.stdout).contains("7 passed; 0 failed"), "{}", text(&out.stdout));
}
