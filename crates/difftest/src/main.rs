//! The command `kluis-difftest`.

use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use clap::Parser;
use cpu::Model;
use cpu::ops::Group;
use difftest::campaign::{self, Report};
use difftest::forms::{self, Form};
use difftest::plant;
use difftest::tester::{Task, Tester};

/// Tests Kluis's interpreter against the host processor.
///
/// Executes every implemented user-mode instruction natively and in Kluis from
/// the same random states and compares registers, flags, memory and faults.
/// Exits with 0 if nothing differs, 1 if something does, 2 if it cannot work.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  kluis-difftest --cases 1000000 --jobs 2
  kluis-difftest --group Shift --seed 7
  kluis-difftest --code Adc_rm64_r64 --per-form 100000
  kluis-difftest --plant Arithmetic      # must exit with 1"
)]
struct Args {
    /// Cases over all chosen forms, divided evenly
    #[arg(long, default_value_t = 150_000)]
    cases: u64,
    /// Cases for each form, instead of --cases
    #[arg(long)]
    per_form: Option<u64>,
    /// Seed; equal seeds give equal cases
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this group, such as Arithmetic or Sse
    #[arg(long)]
    group: Option<String>,
    /// Only forms with this encoding (iced-x86's name) or mnemonic
    #[arg(long)]
    code: Option<String>,
    /// Processes
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Processor model
    #[arg(long, default_value = "xeon-8370c")]
    model: String,
    /// Plant a bug in this group
    #[arg(long)]
    plant: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Differences to describe
    #[arg(long, default_value_t = 10)]
    show: usize,
    /// List the forms and stop
    #[arg(long)]
    list: bool,
    /// Part of the work: number/count (used by --jobs)
    #[arg(long, hide = true)]
    shard: Option<String>,
}

fn main() -> ExitCode {
    // Readers may close the pipe early.
    // SAFETY: nothing else has set up signals yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let args = Args::parse();
    match campaign(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("kluis-difftest: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn model(args: &Args) -> anyhow::Result<Model> {
    Model::by_name(&args.model).with_context(|| {
        let names: Vec<_> = Model::all().iter().map(|m| m.name).collect();
        format!("no model {}; there are {}", args.model, names.join(", "))
    })
}

fn chosen(args: &Args) -> anyhow::Result<Vec<Form>> {
    let mut forms = forms::forms(&model(args)?);
    if let Some(group) = &args.group {
        forms.retain(|form| format!("{:?}", form.row.group).eq_ignore_ascii_case(group));
    }
    if let Some(code) = &args.code {
        forms.retain(|form| {
            form.name().eq_ignore_ascii_case(code)
                || format!("{:?}", form.code.mnemonic()).eq_ignore_ascii_case(code)
        });
    }
    if forms.is_empty() {
        bail!("no form is left to test; see --list for groups and encodings");
    }
    Ok(forms)
}

fn planted(args: &Args) -> anyhow::Result<Option<Group>> {
    let Some(name) = &args.plant else { return Ok(None) };
    let found = plant::groups().find(|group| format!("{group:?}").eq_ignore_ascii_case(name));
    found.map(Some).with_context(|| {
        let names: Vec<_> = plant::groups().map(|group| format!("{group:?}")).collect();
        format!("no planted bug for group {name}; there is one for {}", names.join(", "))
    })
}

fn campaign(args: &Args) -> anyhow::Result<bool> {
    let forms = chosen(args)?;
    if args.list {
        for form in &forms {
            println!("{:<16}{}", format!("{:?}", form.row.group), form.name());
        }
        return Ok(true);
    }
    let task = Task {
        seed: args.seed,
        cases: args.per_form.unwrap_or_else(|| args.cases.div_ceil(forms.len() as u64)),
        plant: planted(args)?,
    };
    let report = match (&args.shard, args.jobs) {
        (Some(shard), _) => run_shard(args, &forms, &task, Some(shard))?,
        (None, 0 | 1) => run_shard(args, &forms, &task, None)?,
        (None, jobs) => run_jobs(args, &task, jobs)?,
    };
    if args.shard.is_some() || args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(args, &report);
    }
    if let Some(form) = report.untested().next() {
        bail!("no case could be made for {}: the generator does not know its operands", form.form);
    }
    Ok(report.differences() == 0)
}

fn print(args: &Args, report: &Report) {
    let described = report.forms.iter().flat_map(|form| &form.described);
    for text in described.take(args.show) {
        println!("{text}");
    }
    print!("{}", report.table());
    let differing: Vec<_> = report.forms.iter().filter(|f| f.differences + f.misjudged > 0).collect();
    if !differing.is_empty() {
        println!("\nforms with differences: {}", differing.len());
        for form in differing {
            println!("  {:<40}{:>8} of {}", form.form, form.differences + form.misjudged, form.cases);
        }
    }
}

fn run_shard(args: &Args, forms: &[Form], task: &Task, shard: Option<&str>) -> anyhow::Result<Report> {
    let mut tester = Tester::new(model(args)?)?;
    let (number, count) = match shard {
        None => (0, 1),
        Some(text) => {
            let (number, count) = text.split_once('/').context("--shard is number/count")?;
            (number.parse::<usize>()?, count.parse::<usize>()?.max(1))
        }
    };
    let mine: Vec<_> = forms.iter().skip(number).step_by(count).copied().collect();
    let all = mine.len();
    let show = number == 0 && std::io::stderr().is_terminal();
    let report = campaign::run(&mut tester, &mine, task, |done, form| {
        if show {
            eprint!("\r{done}/{all} forms  {:<40}", form.form);
            let _ = std::io::stderr().flush();
        }
    });
    if show {
        eprint!("\r{:60}\r", "");
    }
    Ok(report)
}

/// One process for each part: the sandbox lies at fixed addresses.
fn run_jobs(args: &Args, task: &Task, jobs: usize) -> anyhow::Result<Report> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut children = Vec::new();
    for number in 0..jobs {
        let mut command = Command::new(&program);
        command
            .args(["--shard", &format!("{number}/{jobs}"), "--seed", &args.seed.to_string()])
            .args(["--per-form", &task.cases.to_string(), "--model", &args.model])
            .stdout(Stdio::piped());
        for (option, value) in [("--group", &args.group), ("--code", &args.code), ("--plant", &args.plant)] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        children.push(command.spawn().context("cannot start a worker process")?);
    }
    let mut report = Report { seed: args.seed, forms: Vec::new() };
    for child in children {
        let output = child.wait_with_output()?;
        if !matches!(output.status.code(), Some(0 | 1)) {
            bail!("a worker process ended with {}", output.status);
        }
        report.merge(serde_json::from_slice(&output.stdout).context("a worker's report is unreadable")?);
    }
    report.forms.sort_by(|a, b| (&a.group, &a.form).cmp(&(&b.group, &b.form)));
    Ok(report)
}
