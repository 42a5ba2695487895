//! The table as it comes out without an enclave: counted here, by other code than inside.

use crate::exit::Error;
use std::collections::BTreeMap;

/// Fewest patients of a group that is told of.
const MIN_PATIENTS: usize = 20;

/// The table of these records, `patient,district,age,systolic,diastolic` below a first line.
///
/// # Errors
/// A line is none.
pub(super) fn table(csv: &str) -> Result<String, Error> {
    let mut groups: BTreeMap<(&str, usize), Vec<(u32, u32)>> = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let bad = || Error::failed(format!("{line:?} is no record"));
        let fields: Vec<&str> = line.split(',').collect();
        let [_, district, age, systolic, diastolic] = fields[..] else { return Err(bad()) };
        let [age, systolic, diastolic] = [age, systolic, diastolic].map(|text| text.parse::<u32>());
        let (Ok(age), Ok(systolic), Ok(diastolic)) = (age, systolic, diastolic) else { return Err(bad()) };
        let ages = [40, 65].iter().filter(|from| age >= **from).count();
        groups.entry((district, ages)).or_default().push((systolic, diastolic));
    }
    let mut table = String::from("district,age,patients,mean systolic,high\n");
    for ((district, ages), patients) in groups {
        if patients.len() < MIN_PATIENTS {
            continue;
        }
        let count = patients.len();
        let sum: u32 = patients.iter().map(|(systolic, _)| systolic).sum();
        let mean = (f64::from(sum) / count as f64 * 10.0).floor() / 10.0;
        let high =
            patients.iter().filter(|(systolic, diastolic)| *systolic >= 140 || *diastolic >= 90).count();
        table += &format!("{district},{},{count},{mean:.1},{high}\n", ["0-39", "40-64", "65-"][ages]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_table() {
        let line = |line: &str, times| format!("{line}\n").repeat(times);
        let csv = [
            line("patient,district,age,systolic,diastolic", 1),
            line("a,North,39,120,89", 20),
            line("a,North,40,140,80", 20),
            line("a,North,40,125,90", 5),
            line("a,East,65,139,89", 40),
            line("a,West,65,139,89", 19),
        ];
        let table = table(&csv.concat()).unwrap();
        let rows = "East,65-,40,139.0,0\nNorth,0-39,20,120.0,0\nNorth,40-64,25,137.0,25\n";
        assert_eq!(table, format!("district,age,patients,mean systolic,high\n{rows}"));
        assert!(super::table("h\na,b,c\n").is_err() && super::table("h\na,b,x,1,1\n").is_err());
    }
}
