//! What `guest/workloads` prints, read back.

use serde::Serialize;

/// One run of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// The workload.
    pub(crate) name: String,
    /// Its class.
    pub(crate) class: String,
    /// Its iterations.
    pub(crate) iterations: u64,
    /// Their time by the guest's clock, in nanoseconds.
    pub(crate) nanoseconds: u64,
    /// Whether it ran and its answer was right.
    pub(crate) verdict: Verdict,
}

/// What became of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The known answer.
    Ok,
    /// Another answer.
    Wrong,
    /// It could not run.
    Failed,
}

/// A line of meaning to the benchmark.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// Process 1 of the guest runs.
    InitStarted,
    /// The workloads begin; whether AVX2 is used.
    Begin { avx2: bool },
    /// A result.
    Sample(Sample),
    /// The workloads are through, after so many nanoseconds of the guest's clock.
    End { nanoseconds: u64 },
}

/// What Kluis's init writes to the kernel log when process 1 starts.
const INIT_STARTED: &str = "kluis-init: started";

/// Reads one line of console or standard output. The machine may print
/// anything: what is not understood is `None`.
pub(crate) fn parse(line: &str) -> Option<Line> {
    if line.contains(INIT_STARTED) {
        return Some(Line::InitStarted);
    }
    let mut words = line.split_ascii_whitespace();
    let parsed = match words.next()? {
        "workloads-begin" => match words.next()? {
            "avx2=1" => Line::Begin { avx2: true },
            "avx2=0" => Line::Begin { avx2: false },
            _ => return None,
        },
        "workload" => Line::Sample(Sample {
            name: words.next()?.to_owned(),
            class: words.next()?.to_owned(),
            iterations: words.next()?.parse().ok()?,
            nanoseconds: words.next()?.parse().ok()?,
            verdict: match words.next()? {
                "ok" => Verdict::Ok,
                "WRONG" => Verdict::Wrong,
                "FAILED" => Verdict::Failed,
                _ => return None,
            },
        }),
        "workloads-end" => Line::End { nanoseconds: words.next()?.parse().ok()? },
        _ => return None,
    };
    words.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_protocol() {
        assert_eq!(parse("[    1.234567] kluis-init: started\r"), Some(Line::InitStarted));
        assert_eq!(parse("workloads-begin avx2=0\r"), Some(Line::Begin { avx2: false }));
        assert_eq!(parse("workloads-end 17"), Some(Line::End { nanoseconds: 17 }));
        let Some(Line::Sample(sample)) = parse("workload fib integer 60 12345 WRONG\r") else {
            panic!("no sample");
        };
        assert_eq!((sample.name.as_str(), sample.class.as_str()), ("fib", "integer"));
        assert_eq!((sample.iterations, sample.nanoseconds), (60, 12345));
        assert_eq!(sample.verdict, Verdict::Wrong);
    }

    #[test]
    fn other_lines_are_not_results() {
        for line in [
            "",
            "workload",
            "workload fib integer 60 12345",
            "workload fib integer 60 12345 ok more",
            "workload fib integer -1 12345 ok",
            "workload fib integer 60 99999999999999999999999 ok",
            "workloads-begin avx2=2",
            "[ 1.0] random: crng init done",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
