//! Records, as far as the study needs them.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use payroll_interface::record::{BadRecord, MOST_PAY, Record};
use payroll_interface::study::Study;
use sha2::{Digest, Sha256};

/// A person, by a name that says nothing: which parts of memory are touched does not tell
/// the host who is counted.
type Person = [u8; 16];

/// A party's people while they are counted.
pub struct Tally {
    /// Goes into people's names here.
    salt: [u8; 32],
    /// By group: what each person was paid in all.
    groups: Vec<BTreeMap<Person, u64>>,
}

impl Tally {
    pub fn new(study: &Study) -> Self {
        Self { salt: enclave::random::bytes(), groups: vec![BTreeMap::new(); study.groups.len()] }
    }

    /// People counted so far.
    pub fn people(&self) -> usize {
        self.groups.iter().map(BTreeMap::len).sum()
    }

    /// Counts whole lines.
    ///
    /// # Errors
    /// A line that is no record of the study's, and its number from 1.
    pub fn add(&mut self, study: &Study, lines: &[u8]) -> Result<(), (u32, BadRecord)> {
        for (line, number) in lines.split_inclusive(|byte| *byte == b'\n').zip(1..) {
            self.record(study, line).map_err(|why| (number, why))?;
        }
        Ok(())
    }

    fn record(&mut self, study: &Study, line: &[u8]) -> Result<(), BadRecord> {
        // a line without its end may be the beginning of another
        let line = line.strip_suffix(b"\n").ok_or(BadRecord::Fields)?;
        let line = core::str::from_utf8(line).map_err(|_| BadRecord::Fields)?;
        let record = Record::read(line)?;
        let group = study.groups.iter().position(|group| group == record.group);
        let group = group.ok_or_else(|| BadRecord::Group(record.group.to_string()))?;
        let digest = Sha256::new_with_prefix(self.salt).chain_update(record.person).finalize();
        let person = core::array::from_fn(|n| digest[n]);
        let paid = self.groups[group].entry(person).or_default();
        *paid += record.pay;
        if *paid > MOST_PAY { Err(BadRecord::Pay) } else { Ok(()) }
    }

    /// What is kept of it.
    pub fn totals(&self) -> Vec<Total> {
        self.groups.iter().map(|people| people.values().copied().collect()).collect()
    }
}

/// A party's people of one group, or several parties'.
#[derive(Clone, Copy, Default)]
pub struct Total {
    people: u64,
    /// Of what each was paid.
    sum: u128,
    /// Of its squares.
    squares: u128,
}

impl FromIterator<u64> for Total {
    fn from_iter<T: IntoIterator<Item = u64>>(paid: T) -> Self {
        paid.into_iter().fold(Self::default(), |total, paid| {
            let paid = u128::from(paid);
            Self { people: total.people + 1, sum: total.sum + paid, squares: total.squares + paid * paid }
        })
    }
}

impl Total {
    fn and(self, other: &Self) -> Self {
        Self {
            people: self.people + other.people,
            sum: self.sum + other.sum,
            squares: self.squares + other.squares,
        }
    }

    /// Mean and standard deviation, in whole units of money; of some people. With people
    /// and pay as they are limited, nothing here comes near to 128 bits.
    fn mean_and_deviation(&self) -> (u128, u128) {
        let people = u128::from(self.people);
        let mean = self.sum / people;
        let variance = (people * self.squares - self.sum * self.sum) / (people * people);
        let rounded = |cents: u128| (cents + 50) / 100;
        (rounded(mean), rounded(variance.isqrt()))
    }
}

/// The study's result, as lines of text, of the totals of each party by group.
///
/// A group is told only if it has the minimum of people also without those of any one
/// party: what a party knows of its own people does not help it to the others'. There are
/// no figures over all groups, from which one could take those that are told.
pub fn table(study: &Study, parties: &[&[Total]]) -> String {
    let mut text = String::from("group,people,mean,deviation\n");
    for (n, group) in study.groups.iter().enumerate() {
        let all = parties.iter().fold(Total::default(), |all, party| all.and(&party[n]));
        let enough = |party: &&[Total]| all.people - party[n].people >= u64::from(study.minimum);
        text += group;
        if parties.iter().all(enough) {
            let (mean, deviation) = all.mean_and_deviation();
            text += &alloc::format!(",{},{mean},{deviation}\n", all.people);
        } else {
            text += ",,,\n";
        }
    }
    text
}
