//! Quotes in a distribution on a disk: what the machine was provisioned with is laid
//! beside it in `/run`, for it depends on the platform and the day; and the service
//! through which programs get quotes of their enclaves is one of its units, that its first
//! client starts.
//!
//! Who may do what is as Intel's packages have it (*Intel SGX DCAP, driver/linux/README.md*):
//! everybody loads enclaves and asks the service, the group `sgx_prv` alone loads those that
//! derive provisioning keys.

use crate::root;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

/// What the initramfs was handed: programs, and a folder.
const PROGRAMS: [&str; 2] = ["aesmd", "kluis-quote"];
const FOLDER: &str = "usr/share/kluis/attestation";

/// Who may open the device below.
const GROUP: &str = "sgx_prv";
const ENCLAVE: &str = "/dev/sgx_enclave";
const PROVISION: &str = "/dev/sgx_provision";

const SOCKET_UNIT: &str = "\
[Unit]
Description=Socket of the service for quotes of enclaves

[Socket]
ListenStream=/run/aesmd/aesm.socket
SocketMode=0666
DirectoryMode=0755
";

const SERVICE_UNIT: &str = "\
[Unit]
Description=Quotes of enclaves (AESM)

[Service]
ExecStart=/run/kluis/bin/aesmd --inetd
StandardInput=socket
StandardOutput=journal
StandardError=journal
User=aesmd
StateDirectory=aesmd
StateDirectoryMode=0700
NoNewPrivileges=yes
";

/// Lays all of it out for the distribution at `to`, if the initramfs at `from` has it and
/// the machine has SGX.
pub(crate) fn lay_out(from: &Path, to: &Path, run: &Path, units: &Path) -> io::Result<()> {
    if !from.join("bin").join(PROGRAMS[0]).exists() || !Path::new(ENCLAVE).exists() {
        return Ok(());
    }
    let groups = fs::read_to_string(to.join("etc/group")).unwrap_or_default();
    let group = group(&groups, GROUP)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the system has no group {GROUP}")))?;
    files(from, run)?;
    let mode = fs::Permissions::from_mode;
    fs::set_permissions(ENCLAVE, mode(0o666))?;
    chown(PROVISION, None, Some(group))?;
    fs::set_permissions(PROVISION, mode(0o660))?;
    fs::create_dir_all(units)?;
    fs::write(units.join("kluis-aesmd.service"), SERVICE_UNIT)?;
    root::start(units, "sockets.target", "kluis-aesmd.socket", SOCKET_UNIT)
}

/// Copies the programs and the folder.
fn files(from: &Path, run: &Path) -> io::Result<()> {
    let programs = run.join("bin");
    fs::create_dir_all(&programs)?;
    for name in PROGRAMS {
        copy(&from.join("bin").join(name), &programs.join(name), 0o755)?;
    }
    let folder = run.join("attestation");
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(from.join(FOLDER))? {
        let entry = entry?;
        copy(&entry.path(), &folder.join(entry.file_name()), 0o644)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
}

/// The number of a group (*group(5)*).
fn group(file: &str, name: &str) -> Option<u32> {
    let mut lines = file.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let file = "root:x:0:\nsgx_prv_not:x:1:\nsgx:x:105:a,b\nsgx_prv:x:106:aesmd\nodd\nwrong:x:y:\n";
        assert_eq!(group(file, "sgx_prv"), Some(106));
        assert_eq!(group(file, "sgx"), Some(105));
        for none in ["sgx_pr", "odd", "wrong", "", "aesmd"] {
            assert_eq!(group(file, none), None, "{none}");
        }
    }

    #[test]
    fn programs_and_files_are_laid_out_for_everybody() {
        let tmp = std::env::temp_dir().join(format!("kluis-attestation-{}", std::process::id()));
        let (from, run) = (tmp.join("from"), tmp.join("run"));
        fs::create_dir_all(from.join("bin")).unwrap();
        fs::create_dir_all(from.join(FOLDER)).unwrap();
        for name in PROGRAMS {
            fs::write(from.join("bin").join(name), name).unwrap();
        }
        fs::write(from.join(FOLDER).join("root.pem"), "root").unwrap();
        files(&from, &run).unwrap();
        for (name, text, mode) in [
            ("bin/aesmd", "aesmd", 0o755),
            ("bin/kluis-quote", "kluis-quote", 0o755),
            ("attestation/root.pem", "root", 0o644),
        ] {
            assert_eq!(fs::read_to_string(run.join(name)).unwrap(), text);
            assert_eq!(fs::metadata(run.join(name)).unwrap().permissions().mode() & 0o777, mode);
        }
        fs::remove_dir_all(&tmp).unwrap();
    }
}
