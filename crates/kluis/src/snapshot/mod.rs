//! `kluis snapshot`: machines on disk.
//!
//! * [`owner`]: what this command keeps in a snapshot beside the machine
//! * [`target`]: a file that is there whole or not at all
//! * [`prepare`]: a machine that is ready for a command, for `snapshot prepare` and `run --warm`

pub(crate) mod owner;
pub(crate) mod prepare;
pub(crate) mod target;

use crate::cli::SnapshotCommand;
use crate::control::{self, Ask};
use crate::exit::{self, Error};
use crate::transfer::Transfer;
use crate::{platform, units};
use machine::Snapshot;
use machine::snapshot::{OverlayRecord, PlaceRecord};
use owner::{Owner, Session};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use target::Target;

/// Does what was asked.
///
/// # Errors
/// The machine or the file is not what it must be.
pub(crate) fn main(command: &SnapshotCommand, platform: &Path, json: bool) -> Result<u8, Error> {
    match command {
        SnapshotCommand::Take { file, stop, vm } => {
            let target = Target::new(file, false)?;
            let mut transfer = Transfer::new("Writing the snapshot");
            let ask = Ask::Snapshot { stop: *stop };
            let answer =
                control::ask_with(*vm, &ask, Some(target.file()), &mut |done, all| transfer.at(done, all))?;
            drop(transfer);
            target.keep()?;
            control::print(&answer, json)?;
        }
        SnapshotCommand::Prepare { file, run } => return prepare::main(file, run, platform, json),
        SnapshotCommand::Inspect { file } => inspect(file, json)?,
        SnapshotCommand::Verify { file } => {
            let mut transfer = Transfer::new("Reading the snapshot");
            let read = open(file)?.0.verify(&mut |done, all| transfer.at(done, all));
            drop(transfer);
            read.map_err(|e| of_file(file, &e))?;
            let told = format!("{} is whole.\n", file.display());
            if json { crate::print_json(&json!({ "whole": true }))? } else { crate::print(&told)? }
        }
    }
    Ok(exit::OK)
}

/// An error with the name of the file it is of.
pub(crate) fn of_file(file: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::bad(format!("{}: {e}", file.display()))
}

/// Opens a snapshot that this command made.
///
/// # Errors
/// It is none.
pub(crate) fn open(file: &Path) -> Result<(Snapshot, Owner), Error> {
    let snapshot = Snapshot::open(file).map_err(|e| of_file(file, &e))?;
    let owner = Owner::of(&snapshot)
        .map_err(|e| of_file(file, &format!("is of another version of Kluis ({e}); take it anew")))?;
    Ok((snapshot, owner))
}

fn inspect(file: &Path, json: bool) -> Result<(), Error> {
    let (snapshot, owner) = open(file)?;
    let (about, contents) = (snapshot.about(), snapshot.contents());
    if json {
        return crate::print_json(&json!({
            "kluis": about.kluis,
            "taken": about.taken,
            "model": about.model,
            "cpus": about.cpus,
            "memory": about.memory,
            "epc": about.epc,
            "disks": about.disks,
            "platform": owner.platform,
            "session": owner.session,
            "pages": contents.pages,
        }));
    }
    let cpus = if about.cpus == 1 { "1 processor".into() } else { format!("{} processors", about.cpus) };
    let state = match owner.session {
        Session::Serial => "on the serial port",
        Session::Idle => "ready for a command",
        Session::Command { .. } => "a command runs",
    };
    let mut text = String::new();
    let _ = writeln!(text, "Taken     {} by Kluis {}", platform::utc(about.taken), about.kluis);
    let _ = writeln!(
        text,
        "Machine   {}, {cpus}, {}, {} of EPC",
        about.model,
        units::bytes(about.memory),
        units::bytes(about.epc)
    );
    for disk in &about.disks {
        let how = match &disk.overlay {
            _ if disk.read_only => ",ro".into(),
            None => String::new(),
            Some(OverlayRecord { place: PlaceRecord::Held { .. }, .. }) => {
                ", what was written to it is here".into()
            }
            Some(OverlayRecord { place: PlaceRecord::Kept(file), .. }) => format!(", overlay {}", file.path),
        };
        let _ = writeln!(text, "Disk      {}{how}", disk.file.path);
    }
    let _ = writeln!(text, "Guest     {state}");
    let _ = writeln!(text, "Content   {} that are not zeros", units::bytes(contents.pages * 4096));
    let _ = writeln!(text, "Platform  {}", owner.platform);
    crate::print(&text)
}
