//! The bounded campaign: a fixed seed over every form, and planted bugs.

use std::sync::LazyLock;

use cpu::Model;
use cpu::ops::{Group, rows};
use difftest::campaign::{self, Report};
use difftest::forms::forms;
use difftest::plant;
use difftest::tester::{Task, Tester};

const SEED: u64 = 1;
const CASES: u64 = 300_000;

fn run(task: Task, group: Option<Group>) -> Report {
    let mut tester = Tester::new(Model::xeon_8370c()).expect("the host can run the tester");
    let mut forms = forms(tester.model());
    if let Some(group) = group {
        forms.retain(|form| form.row.group == group);
    }
    campaign::run(&mut tester, &forms, &task, |_, _| {})
}

static SAMPLE: LazyLock<Report> = LazyLock::new(|| {
    let count = forms(&Model::xeon_8370c()).len() as u64;
    run(Task { seed: SEED, cases: CASES.div_ceil(count), plant: None }, None)
});

#[test]
fn kluis_agrees_with_the_host_and_with_soft_float() {
    let report = &*SAMPLE;
    print!("{}", report.table());
    let described: Vec<_> = report.forms.iter().flat_map(|form| &form.described).take(5).collect();
    for text in &described {
        println!("{text}");
    }
    assert!(report.cases() >= CASES);
    assert_eq!(report.differences(), 0, "see the differences above");
}

#[test]
fn every_form_is_tested() {
    let untested: Vec<_> = SAMPLE.untested().map(|form| &form.form).collect();
    assert!(untested.is_empty(), "no case could be made for {untested:?}");
    let few: Vec<_> = SAMPLE.forms.iter().filter(|form| form.cases < 100).map(|form| &form.form).collect();
    assert!(few.is_empty(), "few cases for {few:?}");
    for (name, group) in SAMPLE.groups() {
        assert!(group.forms > 0, "{name}");
    }
}

#[test]
fn both_judges_see_many_cases_and_many_faults() {
    let groups = SAMPLE.groups();
    for name in ["Sse", "Avx", "X87"] {
        assert!(groups[name].judged > 1000, "{name}: {:?}", groups[name]);
    }
    let faults: u64 = groups.values().map(|group| group.faults).sum();
    assert!(faults * 20 > SAMPLE.cases(), "{faults} faults");
}

#[test]
fn a_planted_bug_in_each_group_is_found() {
    for group in plant::groups() {
        let report = run(Task { seed: SEED, cases: 24, plant: Some(group) }, Some(group));
        let wrong: u64 = report.forms.iter().map(|form| form.differences).sum();
        assert!(wrong > 0, "the bug in {group:?} was not found");
    }
}

#[test]
fn every_group_with_tested_forms_has_a_planted_bug() {
    let mut groups: Vec<Group> = forms(&Model::xeon_8370c()).iter().map(|form| form.row.group).collect();
    groups.sort();
    groups.dedup();
    for group in groups {
        assert!(plant::groups().any(|planted| planted == group), "{group:?}");
    }
    assert!(rows().count() > 100);
}

#[test]
fn equal_seeds_give_equal_reports() {
    let task = Task { seed: 99, cases: 40, plant: None };
    let text = |report: &Report| serde_json::to_string(report).expect("a report is plain data");
    let first = run(task, Some(Group::Shift));
    assert_eq!(text(&first), text(&run(task, Some(Group::Shift))));
}
