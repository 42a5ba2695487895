//! Many forms, over several processes, and the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::forms::Form;
use crate::tester::{FormReport, Task, Tester};

/// Sums over a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GroupReport {
    /// Forms tested.
    pub forms: u64,
    /// Cases compared with the host.
    pub cases: u64,
    /// Cases that ended in an exception.
    pub faults: u64,
    /// Cases compared with the soft-float judge.
    pub judged: u64,
    /// Differences from the host.
    pub differences: u64,
    /// Differences from the soft-float judge.
    pub misjudged: u64,
}

/// What came of a campaign.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Seed.
    pub seed: u64,
    /// By form.
    pub forms: Vec<FormReport>,
}

impl Report {
    /// Sums by group, by name.
    pub fn groups(&self) -> BTreeMap<&str, GroupReport> {
        let mut groups = BTreeMap::<&str, GroupReport>::new();
        for form in &self.forms {
            let group = groups.entry(&form.group).or_default();
            group.forms += 1;
            group.cases += form.cases;
            group.faults += form.faults;
            group.judged += form.judged;
            group.differences += form.differences;
            group.misjudged += form.misjudged;
        }
        groups
    }

    /// All differences, of both judges.
    pub fn differences(&self) -> u64 {
        self.forms.iter().map(|form| form.differences + form.misjudged).sum()
    }

    /// All cases.
    pub fn cases(&self) -> u64 {
        self.forms.iter().map(|form| form.cases).sum()
    }

    /// Forms for which no case could be made: a fault of the tester.
    pub fn untested(&self) -> impl Iterator<Item = &FormReport> {
        self.forms.iter().filter(|form| form.cases == 0)
    }

    /// Takes over another part of the same campaign.
    pub fn merge(&mut self, other: Report) {
        self.forms.extend(other.forms);
    }

    /// The table by group.
    pub fn table(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:<14}{:>7}{:>12}{:>11}{:>13}{:>12}{:>13}",
            "group", "forms", "cases", "faults", "differences", "soft float", "differences"
        );
        let mut line = |name: &str, g: &GroupReport| {
            let _ = writeln!(
                text,
                "{name:<14}{:>7}{:>12}{:>11}{:>13}{:>12}{:>13}",
                g.forms, g.cases, g.faults, g.differences, g.judged, g.misjudged
            );
        };
        let mut all = GroupReport::default();
        for (name, g) in self.groups() {
            line(name, &g);
            all.forms += g.forms;
            all.cases += g.cases;
            all.faults += g.faults;
            all.judged += g.judged;
            all.differences += g.differences;
            all.misjudged += g.misjudged;
        }
        line("all", &all);
        text
    }
}

/// Runs the forms, telling `progress` of each.
pub fn run(
    tester: &mut Tester,
    forms: &[Form],
    task: &Task,
    mut progress: impl FnMut(usize, &FormReport),
) -> Report {
    let mut report = Report { seed: task.seed, forms: Vec::with_capacity(forms.len()) };
    for (i, form) in forms.iter().enumerate() {
        let done = tester.form(form, task);
        progress(i + 1, &done);
        report.forms.push(done);
    }
    report
}
