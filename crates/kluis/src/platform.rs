//! `kluis platform`: the processor package that machines here are on, and its
//! secrets, which are the user's own.

use crate::cli::{Passphrases, PlatformCommand, UpdateArgs};
use crate::exit::{self, Error};
use crate::passphrase;
use dcap::Time;
use manufacturer::{Manufacturer, ManufacturerError};
use platform::{Info, Platform, PlatformError, Update};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The variable that names another folder than the default one.
const VARIABLE: &str = "KLUIS_PLATFORM";

impl From<ManufacturerError> for Error {
    fn from(e: ManufacturerError) -> Self {
        match e {
            ManufacturerError::Platform(e) => e.into(),
            ManufacturerError::Date => Self::bad(e),
            ManufacturerError::Key(_) | ManufacturerError::Sign(_) | ManufacturerError::Issue(_) => {
                Self::failed(e)
            }
        }
    }
}

impl From<PlatformError> for Error {
    fn from(e: PlatformError) -> Self {
        if e.is_failure() { Self::failed(e) } else { Self::bad(e) }
    }
}

/// The platform's folder: what `--platform` says, else `KLUIS_PLATFORM`, else
/// `kluis/platform` in the user's state folder.
///
/// # Errors
/// None of them names one.
pub(crate) fn folder(option: Option<&Path>) -> Result<PathBuf, Error> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = option.map(Path::to_owned).or(variable).or_else(platform::default_folder);
    let named = named.ok_or_else(|| {
        Error::bad("there is no folder for the platform: set HOME or XDG_STATE_HOME, or give --platform")
    })?;
    std::path::absolute(&named)
        .map_err(|e| Error::bad(format!("--platform {} is no folder: {e}", named.display())))
}

/// The platform that a machine is to be on: the one in `dir`, or a new one that
/// is written only by [`keep`], when the machine has started.
///
/// # Errors
/// There is one that cannot be used.
pub(crate) fn for_machine(dir: &Path) -> Result<Platform, Error> {
    Ok(Platform::load_or_draft(dir)?)
}

/// Writes a new platform and tells so; one that was there is left as it is.
///
/// # Errors
/// It cannot be written.
pub(crate) fn keep(platform: &mut Platform, quiet: bool) -> Result<(), Error> {
    if platform.is_new() {
        platform.save()?;
        if !quiet {
            eprintln!(
                "kluis: made a platform, the processor's own secrets, in {}: see `kluis platform --help`",
                platform.dir().display()
            );
        }
    }
    Ok(())
}

/// The platform's secrets as the processor has them in its fuses.
pub(crate) fn roots(platform: &Platform) -> sgx::keys::Roots {
    manufacturer::processor(&platform.fused())
}

/// Does what was asked with the platform in `dir`.
///
/// # Errors
/// It cannot be done.
pub(crate) fn main(command: &PlatformCommand, dir: &Path, json: bool) -> Result<u8, Error> {
    let (info, extra) = match command {
        PlatformCommand::Init => {
            let info = Platform::init(dir)?.info();
            Manufacturer::equip(dir)?;
            (info, Extra::default())
        }
        PlatformCommand::Show => {
            let info = Platform::peek(dir)?.ok_or_else(|| PlatformError::Missing(dir.to_owned()))?;
            (info, Extra::default())
        }
        PlatformCommand::Backup { file, passphrases } => backup(dir, file, passphrases)?,
        PlatformCommand::Restore { file, replace, passphrases } => restore(dir, file, *replace, passphrases)?,
        PlatformCommand::Update(UpdateArgs { svn_up, advisory, .. }) => {
            let update = match advisory {
                Some(id) => Update::Advisory(id.clone()),
                None if *svn_up => Update::SvnUp,
                None => Update::NewOwnerEpoch,
            };
            (Platform::update(dir, update)?, Extra::default())
        }
        PlatformCommand::Revoke => (Platform::update(dir, Update::Revoke)?, Extra::default()),
        PlatformCommand::Export { folder } => export(dir, folder)?,
    };
    let report = Report {
        location: dir.display().to_string(),
        created: utc(info.created),
        changed: utc(info.changed),
        kind: "software",
        attestation: Attestation::of(dir)?,
        info,
        extra,
    };
    if json {
        crate::print_json(&report)?;
    } else {
        crate::print(&text(&report, command))?;
    }
    Ok(exit::OK)
}

fn backup(dir: &Path, file: &Path, passphrases: &Passphrases) -> Result<(Info, Extra), Error> {
    // before anybody types: what is known to fail
    if Platform::peek(dir)?.is_none() {
        return Err(PlatformError::Missing(dir.to_owned()).into());
    }
    if file.symlink_metadata().is_ok() {
        return Err(PlatformError::BackupExists(file.to_owned()).into());
    }
    let passphrase = passphrase::new(passphrases.passphrase_file.as_deref())?;
    let info = Platform::backup(dir, file, &passphrase)?;
    Ok((info, Extra { backup: Some(file.display().to_string()), ..Extra::default() }))
}

fn restore(
    dir: &Path,
    file: &Path,
    replace: bool,
    passphrases: &Passphrases,
) -> Result<(Info, Extra), Error> {
    if !file.exists() {
        return Err(Error::bad(format!("there is no backup {}: check the path", file.display())));
    }
    if !replace && Platform::peek(dir)?.is_some() {
        return Err(PlatformError::Exists(dir.to_owned()).into());
    }
    let passphrase = passphrase::known(passphrases.passphrase_file.as_deref())?;
    let done = Platform::restore(dir, file, &passphrase, replace)?;
    let replaced = done.replaced.map(|path| path.display().to_string());
    Ok((done.info, Extra { replaced, ..Extra::default() }))
}

/// Writes what verifiers need.
fn export(dir: &Path, folder: &Path) -> Result<(Info, Extra), Error> {
    let maker = Manufacturer::equip(dir)?;
    let info = Platform::peek(dir)?.ok_or_else(|| PlatformError::Missing(dir.to_owned()))?;
    let issued = maker.issued(crate::attest::now()?)?;
    let cannot = |what: &Path, e| Error::failed(format!("cannot write {}: {e}", what.display()));
    std::fs::create_dir_all(folder).map_err(|e| cannot(folder, e))?;
    let files = [
        ("root.pem", dcap::pki::to_pem([issued.root.der()])),
        ("pck-chain.pem", issued.chain),
        ("collateral.json", issued.collateral.to_json()),
    ];
    for (name, text) in files {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(|e| cannot(&file, e))?;
    }
    let exported = Exported { folder: folder.display().to_string(), valid_until: issued.validity.until };
    Ok((info, Extra { exported: Some(exported), ..Extra::default() }))
}

/// What is told: nothing of it is secret.
#[derive(Debug, Serialize)]
struct Report {
    location: String,
    /// These two again as text, instead of the library's seconds.
    #[serde(skip)]
    created: String,
    #[serde(skip)]
    changed: String,
    /// Of what the processor is made.
    kind: &'static str,
    /// By what its quotes are known; absent until it has what its maker needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    attestation: Option<Attestation>,
    #[serde(flatten)]
    info: Info,
    #[serde(flatten)]
    extra: Extra,
}

/// By what the platform's quotes are known.
#[derive(Debug, Serialize)]
struct Attestation {
    /// SHA-256 of the root certificate.
    root_fingerprint: String,
    /// The kind of platform.
    fmspc: String,
    /// MRSIGNER of the architectural enclaves.
    mrsigner: String,
    /// Advisories that concern the security version: empty, if it is up to date.
    advisories: Vec<String>,
    /// Whether the certificate of the security version is revoked.
    revoked: bool,
}

impl Attestation {
    fn of(dir: &Path) -> Result<Option<Self>, Error> {
        let Some(maker) = Manufacturer::open(dir)? else { return Ok(None) };
        Ok(Some(Self {
            root_fingerprint: dcap::hex::encode(&maker.root()?.fingerprint()),
            fmspc: dcap::hex::encode(&manufacturer::FMSPC),
            mrsigner: dcap::hex::encode(&maker.mrsigner()),
            advisories: maker.advisories(),
            revoked: maker.is_revoked(),
        }))
    }

    /// What quotes of the platform are worth.
    fn standing(&self) -> String {
        match (self.revoked, self.advisories.as_slice()) {
            (true, _) => "revoked: `kluis platform update --svn-up` leads to another certificate".to_owned(),
            (false, []) => "up to date".to_owned(),
            (false, open) => format!("out of date: {}; `kluis platform update --svn-up`", open.join(", ")),
        }
    }
}

/// What `export` wrote.
#[derive(Debug, Serialize)]
struct Exported {
    folder: String,
    valid_until: Time,
}

/// What only some commands tell.
#[derive(Debug, Default, Serialize)]
struct Extra {
    /// The file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    /// Where the file of the platform before is.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<String>,
    /// What was written for verifiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    exported: Option<Exported>,
}

fn text(report: &Report, command: &PlatformCommand) -> String {
    let info = &report.info;
    let mut out = format!("Platform {}\n", info.id);
    let mut line = |name: &str, value: &str| out += &format!("{name:<12} {value}\n");
    line("location", &report.location);
    line("SVN", &format!("{} (CPUSVN {})", info.svn, info.cpusvn));
    line("owner epoch", &format!("number {}", info.owner_epoch_number));
    line("made", &report.created);
    if info.changed != info.created {
        line("changed", &report.changed);
    }
    line("kind", "software: protects from the VM, not from whoever controls the Kluis process;");
    line("", "not Intel's root");
    if let Some(attestation) = &report.attestation {
        line("root", &format!("SHA-256 {}", attestation.root_fingerprint));
        line("quotes", &attestation.standing());
    }
    if let Some(exported) = &report.extra.exported {
        let until = exported.valid_until;
        line(
            "exported",
            &format!("{}: root.pem, pck-chain.pem, collateral.json (until {until})", exported.folder),
        );
    }
    if let Some(file) = &report.extra.backup {
        line("backup", file);
    }
    if let Some(file) = &report.extra.replaced {
        line("replaced", &format!("{file} is the one before: remove it when nothing is sealed on it"));
    }
    match command {
        PlatformCommand::Init => {
            out += "\nWithout these secrets all data sealed on this platform is lost. Make a backup now:\n  kluis platform backup FILE\n";
        }
        PlatformCommand::Update(UpdateArgs { new_owner_epoch: true, .. }) => {
            out += "\nNo backup has this owner epoch. Make a new one:\n  kluis platform backup FILE\n";
        }
        _ => {}
    }
    out
}

/// A time in seconds since 1970 as people read it: `2026-11-24 02:29:02 UTC`.
pub(crate) fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of a day since 1970 in the Gregorian calendar, counted in
/// years that begin in March, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let (of_year, day) = (era * 400 + year, day - (153 * month + 2) / 5 + 1);
    if month < 10 { (of_year, month + 3, day) } else { (of_year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // by date -u -d @N
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (1_795_487_342, "2026-11-24 02:29:02 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
        // whatever a file says
        assert!(utc(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn failures_of_the_host_are_told_from_bad_input() {
        let missing = PlatformError::Missing("x".into());
        assert_eq!(Error::from(missing).code(), 2);
        let io = PlatformError::Io {
            what: "write",
            path: "x".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        assert_eq!(Error::from(io).code(), 125);
    }
}
