//! `kluis enclave inspect`: what enclaves are, of anybody's making.

use super::project::Project;
use super::{build, keys, sign};
use crate::exit::{self, Error};
use crate::units;
use enclave_image::inspect::{self, Measured, SigstructReport, StreamReport};
use enclave_image::sigstruct;
use serde::Serialize;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What is known of an enclave.
#[derive(Debug, Serialize)]
struct Report {
    /// What was asked for.
    file: PathBuf,
    /// Of NAME.sgxs.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamReport>,
    /// Of NAME.sig.
    #[serde(skip_serializing_if = "Option::is_none")]
    sigstruct: Option<SigstructReport>,
    /// What EINIT would refuse it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// Does what was asked.
///
/// # Errors
/// A file cannot be read, a processor would refuse the enclave, or it is not of `signer`.
pub(super) fn main(what: &[PathBuf], signer: Option<&str>, json: bool) -> Result<u8, Error> {
    let signer = signer.map(keys::mrsigner).transpose()?;
    let files = if what.is_empty() {
        let project = Project::find(None)?;
        let all = project.enclaves.iter().map(|enclave| build::names(&project.output(), &enclave.name).0);
        let all: Vec<_> = all.collect();
        if let Some(missing) = all.iter().find(|file| !file.is_file()) {
            return Err(Error::bad(format!(
                "{} is not there yet: `kluis enclave build` makes it",
                missing.display()
            )));
        }
        all
    } else {
        what.iter().map(|what| sign::stream(what)).collect::<Result<_, _>>()?
    };
    let reports = files.iter().map(|file| look(file)).collect::<Result<Vec<_>, _>>()?;
    match (&reports[..], json) {
        ([one], true) => crate::print_json(one)?,
        (all, true) => crate::print_json(&all)?,
        (all, false) => crate::print(&all.iter().map(text).collect::<Vec<_>>().join("\n"))?,
    }
    for report in reports {
        if let Some(why) = report.refused {
            return Err(Error::bad(why));
        }
        let name = report.file.display().to_string();
        match (&signer, &report.sigstruct) {
            (Some(expected), Some(sig)) => keys::is_of(&name, &sig.mrsigner, expected)?,
            (Some(expected), None) => {
                return Err(Error::bad(format!(
                    "{name} is not signed, and not by {expected} as --signer says: EINIT would refuse it \
                     (SGX_INVALID_SIG_STRUCT); `kluis enclave sign` signs it"
                )));
            }
            (None, _) => {}
        }
    }
    Ok(exit::OK)
}

fn look(file: &Path) -> Result<Report, Error> {
    let mut report = Report { file: file.to_owned(), stream: None, sigstruct: None, refused: None };
    let read_sig = |file: &Path| {
        let bytes = fs::read(file).map_err(|e| build::cannot("read", file, &e))?;
        sigstruct::read(&bytes).map_err(|e| Error::bad(format!("{} {e}", file.display())))
    };
    if file.extension().is_some_and(|extension| extension == "sig") {
        report.sigstruct = Some(inspect::sigstruct(&read_sig(file)?));
        return Ok(report);
    }
    let stream = inspect::stream(&build::read_stream(file)?);
    let beside = file.with_extension("sig");
    if beside.exists() {
        match read_sig(&beside) {
            Ok(sig) => report.sigstruct = Some(inspect::sigstruct(&sig)),
            Err(e) => report.refused = Some(e.to_string()),
        }
    }
    if report.sigstruct.as_ref().is_some_and(|sig| sig.mrenclave != stream.mrenclave) {
        report.refused = Some(format!(
            "{} is of another enclave than {} (SGX_INVALID_MEASUREMENT): one of the two was changed; build or sign \
             again",
            beside.display(),
            file.display()
        ));
    }
    report.stream = Some(stream);
    Ok(report)
}

fn text(report: &Report) -> String {
    let mut out = format!("{}\n", report.file.display());
    if let Some(stream) = &report.stream {
        out += &stream_text(stream);
    }
    match (&report.sigstruct, &report.refused) {
        (Some(sig), _) => out += &sigstruct_text(sig),
        (None, Some(_)) => {}
        (None, None) => out += "  not signed: `kluis enclave sign` does that\n",
    }
    out
}

fn stream_text(report: &StreamReport) -> String {
    let mut out = String::new();
    // writing to a string does not fail
    let _ = writeln!(out, "  MRENCLAVE  {}", report.mrenclave);
    let (size, memory) = (units::bytes(report.size), units::bytes(report.memory));
    let _ = writeln!(
        out,
        "  size       {size}, of which {memory} are added; an SSA frame has {} × 4 KiB",
        report.ssa_frame_pages
    );
    for range in &report.ranges {
        let measured = match range.measured {
            Measured::All => "measured",
            Measured::Partly => "measured in part",
            Measured::Not => "not measured",
            Measured::Empty => "zeros, not measured",
        };
        let decrypted = match &range.decrypted {
            Some(rights) if *rights == range.rights => ", ciphertext".to_owned(),
            Some(rights) => format!(", ciphertext; {rights} once decrypted, with SGX2"),
            None => String::new(),
        };
        let _ = writeln!(
            out,
            "  {:#011x}-{:#011x} {} {:<6} {:>9}  {measured}{decrypted}",
            range.start,
            range.end,
            range.rights,
            range.page_type.trim_start_matches("PT_"),
            units::bytes(range.end - range.start)
        );
    }
    if let Some(encrypted) = &report.encrypted {
        let (id, bytes) = (&encrypted.id, units::bytes(encrypted.ciphertext));
        let _ = writeln!(
            out,
            "  encrypted  {bytes} of ciphertext, build {id}; its loader, in clear, is at {:#x}",
            encrypted.loader
        );
    }
    for thread in &report.threads {
        let _ = writeln!(
            out,
            "  thread {:#x} enters at {:#x}, {} SSA frames at {:#x}, FS {:#x}, GS {:#x}",
            thread.tcs, thread.entry, thread.ssa_frames, thread.ssa, thread.fs, thread.gs
        );
    }
    warnings(&report.warnings, &mut out);
    out
}

/// What a SIGSTRUCT says, indented.
pub(super) fn sigstruct_text(report: &SigstructReport) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<10} {value}");
    };
    line("signed", &format!("{}, MRENCLAVE {}", report.date, report.mrenclave));
    line("MRSIGNER", &report.mrsigner);
    line("product", &format!("{}, security version {}", report.product, report.svn));
    if report.attributes.contains(&"KSS") {
        line("family", &report.family_id);
        line("extended", &report.extended_product_id);
    }
    let [xfrm, _] = report.xfrm;
    line(
        "attributes",
        &format!("{}, XFRM {xfrm:#x}, MISCSELECT {:#x}", report.attributes.join(" "), report.miscselect[0]),
    );
    if !report.free_attributes.is_empty() {
        line("", &format!("the host may choose {}", report.free_attributes.join(" ")));
    }
    warnings(&report.warnings, &mut out);
    out
}

fn warnings(warnings: &[String], out: &mut String) {
    for warning in warnings {
        let _ = writeln!(out, "  beware: {warning}");
    }
}
