//! Tests that run inside: `kluis enclave test`.
#![cfg(enclave_test)]

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use enclave::enclave_test;
use enclave::random::Rng;
use enclave::report::{self, ReportError};
use enclave::sgx_abi::Report;
use enclave_channel::{Binding, Evidence, KeyPair, Sender};
use payroll_interface::record::BadRecord;
use payroll_interface::study::{self, BadStudy, Party, Study};
use payroll_interface::{Chunk, Payroll, Refusal};

use zerocopy::{FromBytes, IntoBytes};

use crate::tally::{Tally, Total, table};
use crate::{Office, Open};

/// Parties with their keys: two contribute, all receive.
fn study(minimum: u32) -> (Study, Vec<KeyPair>) {
    let keys: Vec<_> = (0..3).map(|_| KeyPair::generate(&mut Rng)).collect();
    let parties = keys
        .iter()
        .zip(["north", "south", "office"])
        .map(|(key, name)| Party {
            name: name.into(),
            key: key.public().clone(),
            contributes: name != "office",
            receives: true,
        })
        .collect();
    let groups = vec!["nurse".to_string(), "cook".to_string()];
    (Study { title: "pay".into(), groups, minimum, parties }, keys)
}

/// Lines for so many people, whose pay begins with this.
fn lines(people: core::ops::Range<u32>, group: &str, pay: u32) -> String {
    people.map(|n| format!("person {n},{group},{}.50\n", pay + n)).collect()
}

/// An upload in chunks of this text.
fn upload(open: &Open, from: &KeyPair, chunks: &[&str]) -> Vec<Chunk> {
    let (upload, mut sender) =
        Sender::new(from, &open.description.key, &study::records(&open.binding), &mut Rng);
    let seal = |(number, text): (usize, &&str)| {
        let last = number + 1 == chunks.len();
        let ciphertext = sender.seal(text.as_bytes(), last);
        Chunk { upload: upload.clone(), number: number as u32, last, ciphertext }
    };
    chunks.iter().enumerate().map(seal).collect()
}

#[enclave_test]
fn a_study_from_its_key_to_its_results() {
    let (study, keys) = study(3);
    let office = Office(enclave::sync::Mutex::new(None));
    assert_eq!(office.results(0), Err(Refusal::Closed));
    let sealed = office.create(study).unwrap();
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(office.open(&changed), Err(Refusal::State));
    let description = office.open(&sealed).unwrap();
    assert_eq!(office.open(&sealed).unwrap(), description, "the key outlasts the enclave");

    let mut open = office.0.lock();
    let open = open.as_mut().unwrap();
    let north = lines(0..4, "nurse", 1000) + &lines(0..4, "nurse", 10) + &lines(0..2, "cook", 9);
    let north = upload(open, &keys[0], &[&north]);
    assert_eq!(open.records(0, &north[0]), Ok(true));
    assert_eq!(open.results(0), Err(Refusal::Incomplete(vec!["south".into()])));
    let south = [lines(0..3, "nurse", 2000), String::new(), lines(0..3, "cook", 1)];
    let south = upload(open, &keys[1], &[&south[0], &south[1], &south[2]]);
    assert_eq!(
        south.iter().map(|chunk| open.records(1, chunk)).collect::<Vec<_>>(),
        [Ok(false), Ok(false), Ok(true)]
    );

    for (party, key) in keys.iter().enumerate() {
        let sealed = open.results(party).unwrap();
        let purpose = study::results(&open.binding);
        let message = sealed.open(key, &open.description.key, &purpose).unwrap();
        let (counted, table): (Option<Vec<u8>>, String) = postcard::from_bytes(&message).unwrap();
        let own = [Some(&north), Some(&south), None][party].map(|upload| upload[0].upload.clone());
        assert_eq!(counted, own);
        // 1011, 1013, 1015, 1017 and 2000.5, 2001.5, 2002.5; of cooks, 2 without the south
        assert_eq!(table, "group,people,mean,deviation\nnurse,7,1437,489\ncook,,,\n");
    }
}

/// A report, to the enclave that it was made for.
struct Local(Report);

impl Evidence for Local {
    type Refusal = ReportError;

    fn says(&self, binding: &Binding) -> Result<(), ReportError> {
        let body = report::verify_report(&self.0)?;
        // which enclave is trusted: this one
        let own = body.mrenclave == report::own().mrenclave && body.attributes == report::own().attributes;
        if own && body.reportdata == binding.report_data() { Ok(()) } else { Err(ReportError) }
    }
}

#[enclave_test]
fn the_studys_key_is_bound_to_the_enclave() {
    let office = Office(enclave::sync::Mutex::new(None));
    let target = report::targetinfo();
    let ask = |target: &[u8]| office.report(target);
    assert_eq!(ask(target.as_bytes()), Err(Refusal::Closed));
    let description = office.open(&office.create(study(3).0).unwrap()).unwrap();
    let evidence = || Local(Report::read_from_bytes(&ask(target.as_bytes()).unwrap()).unwrap());
    assert_eq!(evidence().says(&description.binding()), Ok(()));
    // of another key, of another study, changed, for another enclave, for none
    let mut other = description.clone();
    other.key = KeyPair::generate(&mut Rng).public().clone();
    assert_eq!(evidence().says(&other.binding()), Err(ReportError));
    other = description.clone();
    other.study.minimum += 1;
    assert_eq!(evidence().says(&other.binding()), Err(ReportError));
    let mut changed = evidence();
    changed.0.body.isvsvn += 1;
    assert_eq!(changed.says(&description.binding()), Err(ReportError));
    let elsewhere = Report::read_from_bytes(&ask(&[0; 512]).unwrap()).unwrap();
    assert_eq!(Local(elsewhere).says(&description.binding()), Err(ReportError));
    assert_eq!(ask(&target.as_bytes()[1..]), Err(Refusal::Target));
}

#[enclave_test]
fn uploads_are_whole_in_order_and_the_partys() {
    let (study, keys) = study(3);
    let mut open = Open::new(study, KeyPair::generate(&mut Rng));
    let text = lines(0..3, "nurse", 1);
    let good = upload(&open, &keys[0], &[&text, &text, &text]);
    let forged = |chunk: &Chunk, change: fn(&mut Chunk)| {
        let mut chunk = chunk.clone();
        change(&mut chunk);
        chunk
    };
    let other = upload(&open, &keys[1], &[&text]);
    assert_eq!(open.records(2, &good[0]), Err(Refusal::Party), "does not contribute");
    assert_eq!(open.records(3, &good[0]), Err(Refusal::Party));
    assert_eq!(open.records(0, &other[0]), Err(Refusal::Forged), "another's");
    assert_eq!(open.records(0, &good[1]), Err(Refusal::Order { expected: 0 }));
    assert_eq!(open.records(0, &good[0]), Ok(false));
    // the next chunk and no other, and nobody disturbs it
    assert_eq!(open.records(0, &good[2]), Err(Refusal::Order { expected: 1 }));
    assert_eq!(open.records(0, &forged(&good[2], |c| c.number = 1)), Err(Refusal::Forged));
    assert_eq!(open.records(0, &forged(&good[0], |c| c.number = 1)), Err(Refusal::Forged));
    assert_eq!(open.records(0, &forged(&good[1], |c| c.last = true)), Err(Refusal::Forged));
    assert_eq!(open.records(0, &forged(&good[1], |c| c.ciphertext[5] ^= 1)), Err(Refusal::Forged));
    assert_eq!(open.records(0, &forged(&good[1], |c| c.ciphertext.clear())), Err(Refusal::Forged));
    assert_eq!(open.records(0, &other[0]), Err(Refusal::Forged));
    assert_eq!(open.records(0, &forged(&good[0], |c| c.upload.clear())), Err(Refusal::Forged));
    assert_eq!(open.records(0, &good[1]), Ok(false));
    // begun again
    assert_eq!(open.records(0, &good[0]), Ok(false));
    assert_eq!(open.records(0, &good[2]), Err(Refusal::Order { expected: 1 }));
    assert_eq!(open.records(0, &good[1]), Ok(false));
    assert_eq!(open.records(0, &good[2]), Ok(true));
    assert_eq!(open.contributions[0].delivered.as_ref().unwrap().totals.len(), 2);
    // again is as good, another is refused
    assert_eq!(open.records(0, &good[0]), Ok(true));
    let another = upload(&open, &keys[0], &[&text]);
    assert_eq!(open.records(0, &another[0]), Err(Refusal::Delivered));
}

#[enclave_test]
fn lines_that_are_no_records_end_an_upload() {
    let (study, keys) = study(3);
    let mut open = Open::new(study, KeyPair::generate(&mut Rng));
    let mut refused = |text: &str, line: u32, why: BadRecord| {
        let good = lines(0..3, "nurse", 1);
        let chunks = upload(&open, &keys[0], &[&good, text, &good]);
        assert_eq!(open.records(0, &chunks[0]), Ok(false));
        assert_eq!(open.records(0, &chunks[1]), Err(Refusal::Record { line, why }));
        assert_eq!(open.records(0, &chunks[2]), Err(Refusal::Order { expected: 0 }));
    };
    refused("Ada,nurse,1\nBob,cook\n", 2, BadRecord::Fields);
    refused("Ada,nurse,1\nBob,cook,1", 2, BadRecord::Fields);
    refused("Ada,nurse,1\n\n", 2, BadRecord::Fields);
    refused("Ada,king,1\n", 1, BadRecord::Group("king".into()));
    refused("Ada,nurse,900000000\nAda,nurse,900000000\n", 2, BadRecord::Pay);
}

#[enclave_test]
fn studies_that_would_tell_of_persons_are_refused() {
    let (good, _) = study(3);
    let office = Office(enclave::sync::Mutex::new(None));
    let refused = |change: fn(&mut Study), why| {
        let mut study = good.clone();
        change(&mut study);
        assert_eq!(office.create(study), Err(Refusal::Study(why)));
    };
    refused(|study| study.minimum = 2, BadStudy::Minimum);
    refused(|study| study.groups.clear(), BadStudy::Groups);
    refused(|study| study.groups.push("cook".into()), BadStudy::Groups);
    refused(|study| study.groups.push("co\nok".into()), BadStudy::Name);
    refused(|study| study.parties.truncate(1), BadStudy::Parties);
    refused(|study| study.parties[0].contributes = false, BadStudy::Parties);
    refused(|study| study.parties[1].name = "north".into(), BadStudy::Parties);
    refused(|study| study.parties[1].key = study.parties[0].key.clone(), BadStudy::Parties);
    refused(|study| study.parties.iter_mut().for_each(|p| p.receives = false), BadStudy::Parties);
}

#[enclave_test]
fn a_group_is_told_only_without_any_one_party() {
    let (study, _) = study(5);
    let total = |people: u64| -> Total { (0..people).map(|n| 100 * (10 + n)).collect() };
    let cell = |parties: &[u64]| {
        let totals: Vec<_> = parties.iter().map(|&people| [total(people), total(0)]).collect();
        let totals: Vec<&[Total]> = totals.iter().map(|total| &total[..]).collect();
        table(&study, &totals).lines().nth(1).unwrap().to_string()
    };
    assert_eq!(cell(&[0, 0]), "nurse,,,");
    assert_eq!(cell(&[100, 4]), "nurse,,,");
    assert_eq!(cell(&[4, 100]), "nurse,,,");
    assert_eq!(cell(&[5, 5]), "nurse,10,12,1");
    assert_eq!(cell(&[4, 4]), "nurse,,,");
    assert_eq!(cell(&[4, 4, 4]), "nurse,12,12,1");
    // as large as people and pay can be
    let most = || -> Total { (0..200_000).map(|n| (n % 2) * payroll_interface::record::MOST_PAY).collect() };
    let (one, two) = ([most(), most()], [most(), most()]);
    let both = table(&study, &[&one, &two]);
    assert!(both.contains("nurse,400000,500000000,500000000\n"), "{both}");
}

#[enclave_test]
fn people_are_counted_once() {
    let (study, _) = study(3);
    let mut tally = Tally::new(&study);
    tally.add(&study, b"Ada,nurse,1\nAda,nurse,2.5\nAda,cook,1\nBob,nurse,0\n").unwrap();
    assert_eq!(tally.people(), 3);
}
