//! What is counted: patients of a district and an age group, their mean blood pressure, and
//! how many of them have a high one (from 140, or from 90 the lower value).

use crate::Record;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

/// The table's first line.
pub const HEADER: &str = "district,age,patients,mean systolic,high";
/// Groups of fewer patients are left out: a mean of three tells of each.
pub const MIN_PATIENTS: u32 = 20;
/// Most districts: a table is not to grow with what a clinic writes.
const MAX_GROUPS: usize = 1000;

/// Sums by group.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(String, AgeGroup), Sums>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AgeGroup {
    UpTo39,
    UpTo64,
    From65,
}

#[derive(Debug, Default)]
struct Sums {
    patients: u32,
    systolic: u64,
    high: u32,
}

impl Tally {
    /// Counts a record; false if there would be too many groups.
    #[must_use]
    pub fn count(&mut self, record: &Record<'_>) -> bool {
        let age = match record.age {
            0..=39 => AgeGroup::UpTo39,
            40..=64 => AgeGroup::UpTo64,
            _ => AgeGroup::From65,
        };
        let group = (record.district.to_string(), age);
        if self.0.len() >= MAX_GROUPS && !self.0.contains_key(&group) {
            return false;
        }
        let sums = self.0.entry(group).or_default();
        sums.patients += 1;
        sums.systolic += u64::from(record.systolic);
        sums.high += u32::from(record.systolic >= 140 || record.diastolic >= 90);
        true
    }

    /// The table, as lines of text. Means have one digit, rounded down.
    pub fn table(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for ((district, age), sums) in self.0.iter().filter(|(_, sums)| sums.patients >= MIN_PATIENTS) {
            let age = match age {
                AgeGroup::UpTo39 => "0-39",
                AgeGroup::UpTo64 => "40-64",
                AgeGroup::From65 => "65-",
            };
            let tenths = sums.systolic * 10 / u64::from(sums.patients);
            let (patients, high) = (sums.patients, sums.high);
            text += &format!("{district},{age},{patients},{}.{},{high}\n", tenths / 10, tenths % 10);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_and_small_ones_left_out() {
        let mut tally = Tally::default();
        let mut count = |line: &str| assert!(tally.count(&Record::read(line).unwrap()));
        for n in 0..20 {
            count(&format!("a,North,64,{},80", 130 + n));
            count("b,South,65,120,90");
        }
        (0..19).for_each(|_| count("c,South,39,120,70"));
        let table = format!("{HEADER}\nNorth,40-64,20,139.5,10\nSouth,65-,20,120.0,20\n");
        assert_eq!(tally.table(), table);
    }

    #[test]
    fn there_are_not_more_groups_than_a_table_may_have() {
        let mut tally = Tally::default();
        let mut count = |n: usize| {
            tally.count(&Record { district: &format!("d{n}"), age: 1, systolic: 100, diastolic: 70 })
        };
        assert!((0..MAX_GROUPS).all(&mut count));
        assert!(count(0) && !count(MAX_GROUPS));
    }
}
