//! `fuzz-targets list`, `fuzz-targets seeds FOLDER`, `fuzz-targets run TARGET FILE…`:
//! the targets' names, their seeds as files for a campaign, and inputs run once.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["list"] => {
            fuzz_targets::TARGETS.iter().for_each(|t| println!("{}", t.name));
            Ok(())
        }
        ["seeds", folder] => seeds(Path::new(folder)),
        ["run", target, files @ ..] if !files.is_empty() => run(target, files),
        _ => Err("usage: fuzz-targets list | seeds FOLDER | run TARGET FILE…".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn seeds(folder: &Path) -> Result<(), String> {
    for target in fuzz_targets::TARGETS {
        let dir = folder.join(target.name);
        fs::create_dir_all(&dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
        for (i, seed) in (target.seeds)().iter().enumerate() {
            let path = dir.join(format!("seed-{i}"));
            fs::write(&path, seed).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn run(name: &str, files: &[&str]) -> Result<(), String> {
    let target =
        fuzz_targets::target(name).ok_or_else(|| format!("no target {name}; see `fuzz-targets list`"))?;
    for file in files {
        let data = fs::read(file).map_err(|e| format!("cannot read {file}: {e}"))?;
        println!("{file}: {} bytes", data.len());
        (target.run)(&data);
    }
    Ok(())
}
