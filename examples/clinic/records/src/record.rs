//! A line of the records.

use core::fmt;

/// The first line of a file of records.
pub const HEADER: &str = "patient,district,age,systolic,diastolic";

/// A patient, when last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where the patient lives.
    pub district: &'a str,
    /// In years.
    pub age: u8,
    /// Blood pressure in mmHg, the higher value.
    pub systolic: u16,
    /// The lower one.
    pub diastolic: u16,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// It has not five fields.
    Fields,
    /// The district has no name, or one of more than 32 bytes.
    District,
    /// The age is no number up to 130.
    Age,
    /// A blood pressure is no number from 20 to 400.
    Pressure,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fields => "it has not the five fields patient,district,age,systolic,diastolic",
            Self::District => "the district has no name, or one of more than 32 bytes",
            Self::Age => "the age is no number up to 130",
            Self::Pressure => "a blood pressure is no number from 20 to 400",
        })
    }
}

impl core::error::Error for BadRecord {}

impl<'a> Record<'a> {
    /// Reads a line, without its end. Who the patient is, is not looked at.
    ///
    /// # Errors
    /// It is no record.
    pub fn read(line: &'a str) -> Result<Self, BadRecord> {
        let mut fields = line.split(',');
        let mut next = || fields.next().ok_or(BadRecord::Fields);
        let [_, district, age, systolic, diastolic] = [next()?, next()?, next()?, next()?, next()?];
        if fields.next().is_some() {
            return Err(BadRecord::Fields);
        }
        if district.is_empty() || district.len() > 32 {
            return Err(BadRecord::District);
        }
        let age = age.parse().ok().filter(|age| *age <= 130).ok_or(BadRecord::Age)?;
        let pressure = |text: &str| {
            text.parse().ok().filter(|value| (20..=400).contains(value)).ok_or(BadRecord::Pressure)
        };
        Ok(Self { district, age, systolic: pressure(systolic)?, diastolic: pressure(diastolic)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_records_or_it_is_told_why_not() {
        let record = Record { district: "North", age: 61, systolic: 142, diastolic: 88 };
        assert_eq!(Record::read("p1,North,61,142,88"), Ok(record));
        let long = "x".repeat(33);
        for (line, why) in [
            ("", BadRecord::Fields),
            ("p1,North,61,142", BadRecord::Fields),
            ("p1,North,61,142,88,", BadRecord::Fields),
            ("p1,,61,142,88", BadRecord::District),
            (&alloc::format!("p1,{long},61,142,88"), BadRecord::District),
            ("p1,North,131,142,88", BadRecord::Age),
            ("p1,North,-1,142,88", BadRecord::Age),
            ("p1,North,61,19,88", BadRecord::Pressure),
            ("p1,North,61,142,401", BadRecord::Pressure),
            ("p1,North,61,142, 88", BadRecord::Pressure),
        ] {
            assert_eq!(Record::read(line), Err(why), "{line}");
        }
    }
}
