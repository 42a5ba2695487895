//! A line of the parties' records: `person,group,pay`.

use alloc::string::String;

use enclave_interface::{Deserialize, Serialize};

use crate::study::NAME;

/// First line of a file of records.
pub const HEADER: &str = "person,group,pay";

/// Most that a record, and all of a person's together, pay: cents.
pub const MOST_PAY: u64 = 100_000_000_000;

/// One payment. A person may have several, which count as one person's pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who; the same name is the same person, within a party's records of a group.
    pub person: &'a str,
    /// The person's group.
    pub group: &'a str,
    /// How much, in cents.
    pub pay: u64,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum BadRecord {
    /// It has not three fields, or one in quotes.
    Fields,
    /// The person's name is empty, or too long.
    Person,
    /// The study has no such group.
    Group(String),
    /// The pay is no amount such as 1234.56, or too much.
    Pay,
}

impl core::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Fields => write!(f, "a record is {HEADER}, without quotes"),
            Self::Person => write!(f, "a person has 1 to {NAME} bytes"),
            Self::Group(group) => write!(f, "the study has no group {group:?}"),
            Self::Pay => write!(f, "pay is an amount such as 1234.56, up to {}", MOST_PAY / 100),
        }
    }
}

impl<'a> Record<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &'a str) -> Result<Self, BadRecord> {
        let mut fields = line.split(',');
        let (Some(person), Some(group), Some(pay), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(BadRecord::Fields);
        };
        if line.contains('"') {
            return Err(BadRecord::Fields);
        }
        if person.is_empty() || person.len() > NAME {
            return Err(BadRecord::Person);
        }
        Ok(Self { person, group, pay: cents(pay).ok_or(BadRecord::Pay)? })
    }
}

/// An amount with up to two decimals, in hundredths.
fn cents(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let number = |digits: &str| {
        let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        all.then(|| digits.parse::<u64>().ok())?
    };
    let part = match part.len() {
        1 => number(part)? * 10,
        2 => number(part)?,
        _ => return None,
    };
    let cents = number(whole)?.checked_mul(100)?.checked_add(part)?;
    (cents <= MOST_PAY).then_some(cents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_three_fields() {
        let read = |line| Record::read(line).map(|record| record.pay);
        for (line, pay) in [
            ("Ada,nurse,1234.56", 123_456),
            ("Ada,nurse,1234.5", 123_450),
            ("Ada,nurse,0", 0),
            ("Ada,,1000000000.00", MOST_PAY),
        ] {
            assert_eq!(read(line), Ok(pay), "{line}");
        }
        for (line, why) in [
            ("", BadRecord::Fields),
            ("Ada,nurse", BadRecord::Fields),
            ("Ada,nurse,1,2", BadRecord::Fields),
            ("\"Ada\",nurse,1", BadRecord::Fields),
            (",nurse,1", BadRecord::Person),
            ("Ada,nurse,", BadRecord::Pay),
            ("Ada,nurse,-1", BadRecord::Pay),
            ("Ada,nurse,+1", BadRecord::Pay),
            ("Ada,nurse,1.", BadRecord::Pay),
            ("Ada,nurse,1.234", BadRecord::Pay),
            ("Ada,nurse,1e3", BadRecord::Pay),
            ("Ada,nurse,1000000000.01", BadRecord::Pay),
            ("Ada,nurse,99999999999999999999", BadRecord::Pay),
        ] {
            assert_eq!(read(line), Err(why), "{line}");
        }
    }
}
