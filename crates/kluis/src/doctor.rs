//! `kluis doctor`: what this host offers and what is missing.

use crate::exit::{self, Error};
use crate::{host, image, sizes, units};
use jail::files::Strength;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Available memory below which a Linux guest does not get far, in bytes.
const LEAST_MEMORY: u64 = 512 << 20;
/// Address space that Kluis wants beside the guest's memory, in bytes.
const OWN_SPACE: u64 = 1 << 30;

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// There.
    Ok,
    /// Not there.
    Missing,
    /// Worth knowing, and of no consequence for `kluis run`.
    Note,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    status: Status,
    /// `kluis run` does not work without it.
    needed: bool,
    /// What was found.
    found: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, status: Status, found: impl Into<String>) -> Self {
        Self { name: name.into(), status, needed: false, found: found.into(), remedy: None }
    }

    fn of(name: impl Into<String>, there: bool, found: impl Into<String>) -> Self {
        Self::new(name, if there { Status::Ok } else { Status::Missing }, found)
    }

    fn needed(mut self) -> Self {
        self.needed = true;
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        if self.status == Status::Missing {
            self.remedy = Some(remedy.into());
        }
        self
    }
}

#[derive(Serialize)]
struct Report {
    /// `kluis run` can work.
    ok: bool,
    checks: Vec<Check>,
}

/// Tells what there is; the exit code says whether `kluis run` can work.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn main(json: bool) -> Result<u8, Error> {
    let checks = checks();
    let ok = checks.iter().all(|c| !c.needed || c.status != Status::Missing);
    if json {
        crate::print_json(&Report { ok, checks })?;
    } else {
        crate::print(&text(&checks, ok))?;
    }
    Ok(if ok { exit::OK } else { exit::NOT_ABLE })
}

fn text(checks: &[Check], ok: bool) -> String {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Missing => "missing",
            Status::Note => "note",
        };
        out += &format!("{status:<8}{:<width$}  {}\n", check.name, check.found);
        if let Some(remedy) = &check.remedy {
            out += &format!("{:<8}{:<width$}  -> {remedy}\n", "", "");
        }
    }
    out += if ok {
        "`kluis run` can work here.\n"
    } else {
        "`kluis run` cannot work here: see what is missing above.\n"
    };
    out
}

fn checks() -> Vec<Check> {
    let mut checks = processor();
    checks.push(executable_memory());
    checks.push(memory());
    checks.push(address_space());
    checks.extend(guest_image());
    checks.push(secret_memory());
    checks.push(locked_memory());
    checks.push(kvm());
    checks.extend(confinement());
    checks
}

fn processor() -> Vec<Check> {
    let default = sizes::Size::by_name(sizes::DEFAULT).map_or("", |s| s.model);
    let models = cpu::Model::all();
    let check = |model: &cpu::Model| {
        let missing = cpu::thunk::host_missing(model);
        let found = match missing.is_empty() {
            true => "the host's processor has what it needs".to_string(),
            false => format!("the host's processor lacks {}", missing.join(", ")),
        };
        let check = Check::of(format!("model {}", model.name), missing.is_empty(), found).remedy(
            "Kluis lets the host execute vector instructions: use a host with AVX2, or let its hypervisor pass them on",
        );
        if model.name == default { check.needed() } else { check }
    };
    models.iter().map(check).collect()
}

fn executable_memory() -> Check {
    let there = cpu::thunk::Thunks::new().is_some();
    let found = if there { "can be mapped" } else { "the kernel refuses it" };
    Check::of("executable memory", there, found).needed().remedy(
        "a security policy forbids it (SELinux execmem, systemd MemoryDenyWriteExecute): allow it for kluis",
    )
}

fn memory() -> Check {
    let name = "memory";
    match host::memory() {
        None => Check::new(name, Status::Note, "/proc/meminfo cannot be read"),
        Some((total, free)) => Check::of(
            name,
            free >= LEAST_MEMORY,
            format!("{} available of {}", units::bytes(free), units::bytes(total)),
        )
        .needed()
        .remedy("a small Linux guest takes about 300 MiB: end other programs"),
    }
}

fn address_space() -> Check {
    let size = sizes::Size::by_name(sizes::DEFAULT).map_or(0, sizes::Size::memory);
    match getrlimit(Resource::As).current {
        None => Check::of("address space", true, "unlimited"),
        Some(limit) => Check::of(
            "address space",
            limit >= size + OWN_SPACE,
            format!("limited to {}", units::bytes(limit)),
        )
        .needed()
        .remedy("`ulimit -v unlimited`; guest memory is reserved in full, though taken only when touched"),
    }
}

/// The image, and apt which makes it: either is enough.
fn guest_image() -> Vec<Check> {
    let mut checks = Vec::new();
    let cache = image::folder();
    let found = cache.as_deref().and_then(image::peek);
    let have = found.is_some();
    checks.push(match (&cache, found) {
        (None, _) => {
            Check::of("guest image", false, "no folder for it").needed().remedy("set HOME or XDG_CACHE_HOME")
        }
        (Some(_), Some(found)) => Check::of(
            "guest image",
            true,
            format!("Linux {} in {}", found.manifest.kernel_release, folder_of(&found.kernel)),
        ),
        (Some(cache), None) => Check::new(
            "guest image",
            Status::Note,
            format!(
                "none yet in {}: `kluis image build`, or the first `kluis run`, makes it",
                cache.display()
            ),
        ),
    });
    let lacking: Vec<&str> = ["apt-get", "apt-cache"].into_iter().filter(|p| !host::in_path(p)).collect();
    let apt = match lacking.is_empty() {
        true => Check::of("apt", true, "there, to fetch the guest's packages"),
        false => Check::of("apt", false, format!("{} not found", lacking.join(" and "))),
    }
    .remedy("make the image on a Debian system and copy its cache folder, or use --kernel and --initrd");
    checks.push(if have { apt } else { apt.needed() });
    checks
}

fn folder_of(file: &Path) -> String {
    file.parent().unwrap_or(file).display().to_string()
}

/// `memfd_secret(2)`: looked for without calling it, by the kernel's own
/// `secretmem` parameters.
fn secret_memory() -> Check {
    let there = Path::new("/sys/module/secretmem").exists();
    // only root may read it
    let off = fs::read_to_string("/sys/module/secretmem/parameters/enable").is_ok_and(|v| v.trim() == "N");
    let found = match (there, off) {
        (true, false) => "the kernel has it: enclaves will be hidden from the host's kernel mappings",
        (true, true) => "switched off (secretmem.enable=0 on the kernel's command line)",
        (false, _) => "the kernel has none (Linux 5.14 or later, CONFIG_SECRETMEM)",
    };
    let status = if there && !off { Status::Ok } else { Status::Note };
    Check::new("memfd_secret", status, found)
}

/// What confines a machine's process.
fn confinement() -> [Check; 2] {
    // Landlock is for a thread: this one is tried on
    let tried = std::thread::spawn(|| jail::files::Files::none().confine()).join();
    let (status, found) = match tried {
        Ok(Ok(Strength::Full)) => (Status::Ok, "the kernel keeps a machine's process from all other files"),
        Ok(Ok(Strength::Partial)) => (Status::Note, "an older one: not all that it should refuse is refused"),
        _ => (Status::Note, "none: `kluis run` says so (Linux 5.13, CONFIG_SECURITY_LANDLOCK, lsm=landlock)"),
    };
    let there = fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nSeccomp:"));
    let filters = if there {
        Check::new("seccomp", Status::Ok, "a machine's process has the system calls it needs and no others")
    } else {
        Check::new("seccomp", Status::Note, "none: `kluis run` says so (CONFIG_SECCOMP_FILTER)")
    };
    [Check::new("Landlock", status, found), filters]
}

fn locked_memory() -> Check {
    let limit = match getrlimit(Resource::Memlock).current {
        None => "unlimited".to_string(),
        Some(limit) => units::bytes(limit),
    };
    Check::new(
        "locked memory",
        Status::Note,
        format!("limit {limit}; what enclaves have on the processor counts"),
    )
}

fn kvm() -> Check {
    let there = Path::new("/dev/kvm").exists();
    let found = if there { "there" } else { "not there" };
    Check::new("/dev/kvm", Status::Note, format!("{found}; not used: the processor is software"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_and_missing_says_no() {
        let missing = || Check::of("x", false, "gone").remedy("bring it");
        assert_eq!(missing().remedy.as_deref(), Some("bring it"));
        assert_eq!(Check::of("x", true, "here").remedy("bring it").remedy, None);
        let out = text(&[missing()], true);
        assert!(out.contains("missing x  gone\n") && out.contains("-> bring it\n"), "{out}");
        assert!(out.ends_with("can work here.\n"));
        assert!(text(&[missing().needed()], false).contains("cannot work here"));
    }

    #[test]
    fn every_model_and_the_notes_are_told() {
        let checks = checks();
        for name in ["model xeon-e-2288g", "model xeon-8370c", "memory", "guest image", "apt", "/dev/kvm"] {
            assert!(checks.iter().any(|c| c.name == name), "{name}");
        }
        assert!(checks.iter().all(|c| c.status != Status::Missing || c.remedy.is_some()));
    }
}
