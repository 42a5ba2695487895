//! The results as ratios: a table for people, the same as data.

use std::fmt;

use serde::Serialize;

use crate::systems::{Kind, Outcome, Plan, Status};

/// Classes of the standing seventeen, in the order of the table.
const STANDING: [&str; 3] = ["integer", "fp", "os"];

/// Everything one run of the benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Factor of the work.
    pub(crate) scale: f64,
    /// Runs of each workload; the best counts.
    pub(crate) repeat: u32,
    /// How it went on each system.
    pub(crate) systems: Vec<Outcome>,
    /// The workloads, in the order they ran.
    pub(crate) workloads: Vec<Row>,
    /// Geometric means by class, of the standing seventeen, of all.
    pub(crate) means: Vec<Mean>,
}

/// Ratios of times; `None` where a system gave none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Ratios {
    /// TCG's time over native time.
    pub(crate) tcg_over_native: Option<f64>,
    /// Kluis's time over native time.
    pub(crate) kluis_over_native: Option<f64>,
    /// TCG's time over Kluis's time: above 1, Kluis is the faster.
    pub(crate) kluis_speed_over_tcg: Option<f64>,
    /// The time of Kluis before a change over native time.
    pub(crate) before_over_native: Option<f64>,
    /// Kluis's time before the change over that after it: above 1, it has become faster.
    pub(crate) kluis_speed_over_before: Option<f64>,
}

/// One workload.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// Its class.
    pub(crate) class: String,
    /// Best time of its fixed work on the host, in milliseconds.
    pub(crate) native_ms: Option<f64>,
    /// Likewise under TCG.
    pub(crate) tcg_ms: Option<f64>,
    /// Likewise in Kluis.
    pub(crate) kluis_ms: Option<f64>,
    /// Likewise in Kluis before a change.
    pub(crate) before_ms: Option<f64>,
    /// Their ratios.
    #[serde(flatten)]
    pub(crate) ratios: Ratios,
}

/// Geometric means of the ratios of several workloads.
#[derive(Debug, Serialize)]
pub(crate) struct Mean {
    /// Of which.
    pub(crate) of: String,
    /// How many they are.
    pub(crate) workloads: usize,
    /// Each over the workloads that have that ratio.
    #[serde(flatten)]
    pub(crate) ratios: Ratios,
}

impl Report {
    /// Makes the ratios.
    pub(crate) fn new(plan: &Plan, systems: Vec<Outcome>) -> Report {
        let workloads: Vec<Row> = plan.expected.iter().filter_map(|name| Row::new(name, &systems)).collect();
        let mut means = Vec::new();
        let mut mean = |of: &str, chosen: &dyn Fn(&Row) -> bool| {
            let rows: Vec<&Row> = workloads.iter().filter(|r| chosen(r)).collect();
            if !rows.is_empty() {
                means.push(Mean::new(of, &rows));
            }
        };
        for class in STANDING {
            mean(class, &|r| r.class == class);
        }
        mean("integer, fp, os", &|r| STANDING.contains(&r.class.as_str()));
        mean("busybox", &|r| r.class == "busybox");
        mean("all", &|_| true);
        Report { scale: plan.scale, repeat: plan.repeat, systems, workloads, means }
    }

    /// Whether nothing that could run failed or answered wrongly.
    pub(crate) fn passed(&self) -> bool {
        let good = |o: &Outcome| matches!(o.status, Status::Ok | Status::Absent);
        self.systems.iter().all(good)
    }
}

fn ratio(over: Option<f64>, under: Option<f64>) -> Option<f64> {
    let (over, under) = over.zip(under)?;
    (over > 0.0 && under > 0.0).then(|| over / under)
}

impl Row {
    fn new(name: &str, systems: &[Outcome]) -> Option<Row> {
        let time = |kind: Kind| {
            let outcome = systems.iter().find(|o| o.system == kind)?;
            outcome.best_ms(name)
        };
        let (native_ms, tcg_ms, kluis_ms) = (time(Kind::Native), time(Kind::Tcg), time(Kind::Kluis));
        let before_ms = time(Kind::Before);
        let mut samples = systems.iter().flat_map(|o| &o.samples);
        Some(Row {
            name: name.to_owned(),
            class: samples.find(|s| s.name == name)?.class.clone(),
            native_ms,
            tcg_ms,
            kluis_ms,
            before_ms,
            ratios: Ratios {
                tcg_over_native: ratio(tcg_ms, native_ms),
                kluis_over_native: ratio(kluis_ms, native_ms),
                kluis_speed_over_tcg: ratio(tcg_ms, kluis_ms),
                before_over_native: ratio(before_ms, native_ms),
                kluis_speed_over_before: ratio(before_ms, kluis_ms),
            },
        })
    }
}

impl Mean {
    fn new(of: &str, rows: &[&Row]) -> Mean {
        let mean = |get: &dyn Fn(&Ratios) -> Option<f64>| {
            let logs: Vec<f64> = rows.iter().filter_map(|r| get(&r.ratios)).map(f64::ln).collect();
            (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
        };
        Mean {
            of: of.to_owned(),
            workloads: rows.len(),
            ratios: Ratios {
                tcg_over_native: mean(&|r| r.tcg_over_native),
                kluis_over_native: mean(&|r| r.kluis_over_native),
                kluis_speed_over_tcg: mean(&|r| r.kluis_speed_over_tcg),
                before_over_native: mean(&|r| r.before_over_native),
                kluis_speed_over_before: mean(&|r| r.kluis_speed_over_before),
            },
        }
    }
}

/// A number of a table, or a dash.
struct Cell(Option<f64>, usize);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.map_or("-".to_owned(), |x| format!("{x:.*}", self.1));
        f.pad(&text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.systems.iter().any(|o| o.system == Kind::Before);
        let line = |f: &mut fmt::Formatter<'_>, name: &str, class: &str, ms, r: &Ratios| {
            write!(
                f,
                "{name:<20} {class:<8} {:>10} {:>9} {:>9} {:>10}",
                Cell(ms, 2),
                Cell(r.tcg_over_native, 1),
                Cell(r.kluis_over_native, 1),
                Cell(r.kluis_speed_over_tcg, 2),
            )?;
            if before {
                let (time, gain) = (Cell(r.before_over_native, 1), Cell(r.kluis_speed_over_before, 2));
                write!(f, " {time:>9} {gain:>12}")?;
            }
            writeln!(f)
        };
        write!(
            f,
            "{:<20} {:<8} {:>10} {:>9} {:>9} {:>10}",
            "workload", "class", "native ms", "TCG x", "Kluis x", "Kluis/TCG"
        )?;
        if before {
            write!(f, " {:>9} {:>12}", "before x", "Kluis/before")?;
        }
        writeln!(f)?;
        for row in &self.workloads {
            line(f, &row.name, &row.class, row.native_ms, &row.ratios)?;
        }
        writeln!(f, "\ngeometric means")?;
        for mean in &self.means {
            line(f, &mean.of, &mean.workloads.to_string(), None, &mean.ratios)?;
        }
        writeln!(
            f,
            "\n{:<20} {:>10} {:>12} {:>15} {:>6} {:>5}",
            "system", "status", "to init ms", "to command ms", "clock", "AVX2"
        )?;
        for o in &self.systems {
            let avx2 = o.avx2.map_or("-", |yes| if yes { "yes" } else { "no" });
            writeln!(
                f,
                "{:<20} {:>10} {:>12} {:>15} {:>6} {avx2:>5}",
                o.system.name(),
                format!("{:?}", o.status).to_lowercase(),
                Cell(o.boot_to_init_ms, 0),
                Cell(o.boot_to_command_ms, 0),
                Cell(o.clock, 2),
            )?;
        }
        for o in &self.systems {
            if let Some(note) = &o.note {
                writeln!(f, "{}: {note}", o.system.name())?;
            }
        }
        writeln!(
            f,
            "\nTCG x, Kluis x: time over native time. Kluis/TCG: speed over TCG's, above 1 is faster."
        )?;
        if before {
            writeln!(f, "before x, Kluis/before: the same of Kluis before the change.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{Sample, Verdict};
    use std::time::Duration;

    fn outcome(system: Kind, status: Status, times: &[(&str, &str, u64)]) -> Outcome {
        let mut o = Outcome::new(system);
        o.status = status;
        for &(name, class, nanoseconds) in times {
            o.samples.push(Sample {
                name: name.into(),
                class: class.into(),
                iterations: 1,
                nanoseconds,
                verdict: Verdict::Ok,
            });
        }
        o
    }

    fn plan() -> Plan {
        Plan {
            names: Vec::new(),
            expected: ["fib", "sieve", "sort"].map(String::from).to_vec(),
            scale: 1.0,
            repeat: 2,
            boots: 1,
            timeout: Duration::ZERO,
            kluis_args: Vec::new(),
        }
    }

    fn report(kluis: Outcome) -> Report {
        let plan = plan();
        let native = [
            ("fib", "integer", 2_000_000),
            ("fib", "integer", 1_000_000),
            ("sieve", "integer", 1_000_000),
            ("sort", "busybox", 1_000_000),
        ];
        let tcg =
            [("fib", "integer", 2_000_000), ("sieve", "integer", 8_000_000), ("sort", "busybox", 3_000_000)];
        let systems =
            vec![outcome(Kind::Native, Status::Ok, &native), outcome(Kind::Tcg, Status::Ok, &tcg), kluis];
        Report::new(&plan, systems)
    }

    fn near(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn ratios_are_of_best_times_and_means_geometric() {
        let r = report(outcome(Kind::Kluis, Status::Ok, &[("fib", "integer", 500_000)]));
        assert_eq!(r.workloads[0].native_ms, Some(1.0), "the best of two");
        assert!(near(r.workloads[0].ratios.tcg_over_native, 2.0));
        assert!(near(r.workloads[0].ratios.kluis_over_native, 0.5));
        assert!(near(r.workloads[0].ratios.kluis_speed_over_tcg, 4.0));
        assert_eq!(r.workloads[1].ratios.kluis_over_native, None);
        let of = |name: &str| &r.means.iter().find(|m| m.of == name).unwrap().ratios;
        assert!(near(of("integer").tcg_over_native, 4.0));
        assert!(near(of("busybox").tcg_over_native, 3.0));
        assert!(near(of("all").tcg_over_native, 48f64.cbrt()));
        assert!(r.passed());
        let json = serde_json::to_value(&r).unwrap();
        assert_eq!(json["workloads"][0]["tcg_over_native"], 2.0);
        assert_eq!(json["systems"][2]["system"], "kluis");
    }

    #[test]
    fn a_kluis_of_before_has_columns_of_its_own() {
        let times = |ns| outcome(Kind::Kluis, Status::Ok, &[("fib", "integer", ns)]);
        let mut systems = vec![outcome(Kind::Native, Status::Ok, &[("fib", "integer", 1_000_000)])];
        systems.push(times(5_000_000));
        systems.push(Outcome { system: Kind::Before, ..times(10_000_000) });
        let plan = plan();
        let r = Report::new(&plan, systems);
        assert!(near(r.workloads[0].ratios.before_over_native, 10.0));
        assert!(near(r.means[0].ratios.kluis_speed_over_before, 2.0));
        assert!(r.to_string().contains("Kluis/before"));
        assert!(!report(times(1)).to_string().contains("before"));
    }

    #[test]
    fn a_system_that_fails_fails_the_run_and_an_absent_one_does_not() {
        for (status, passed) in [(Status::Wrong, false), (Status::Failed, false), (Status::Absent, true)] {
            let r = report(outcome(Kind::Kluis, status, &[]));
            assert_eq!(r.passed(), passed, "{status:?}");
            assert!(r.to_string().contains("fib"));
        }
    }
}
