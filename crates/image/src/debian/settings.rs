//! What is ours in the file tree: a machine's name, its remote logins, who may do what
//! with SGX, and everything off that a machine without a screen, a battery and a disk of
//! spinning rust starts for nothing. All of it lies in `/etc`, where a user changes it as
//! on any Debian, but for two links to what a machine is provisioned with.

use super::tree::Tree;
use crate::error::ImageError;
use std::io::Write;

/// Units that are not started (*systemctl(1)*, `mask`).
const MASKED: [&str; 37] = [
    // no screen and no serial login: people come through the agent
    "console-getty.service",
    "getty-static.service",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    // the machine has no such hardware, or its drivers are loaded already
    "cryptsetup.target",
    "integritysetup.target",
    "kmod-static-nodes.service",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "systemd-hwdb-update.service",
    "systemd-pstore.service",
    "systemd-tmpfiles-setup-dev.service",
    "veritysetup.target",
    // of use to few, and each costs a process
    "dev-hugepages.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "systemd-sysusers.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    // a machine that lives for minutes needs no housekeeping
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
];

const SSHD: &str = "\
# One key, made at the first start (kluis-host-key.service): others take long.
HostKey /etc/ssh/ssh_host_ed25519_key
# The second is of the host's user, for this boot.
AuthorizedKeysFile .ssh/authorized_keys /run/kluis/authorized_keys
PermitRootLogin prohibit-password
UseDNS no
";

const HOST_KEY: &str = "\
[Unit]
Description=SSH host key of this machine
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N '' -C kluis -f /etc/ssh/ssh_host_ed25519_key
";

const SSH_NEEDS: &str = "\
[Unit]
# without a network nobody can come
ConditionPathExists=/sys/class/net/eth0
Requires=kluis-host-key.service
After=kluis-host-key.service network.target
";

const DPKG: &str = "\
# As in the packages of the image itself.
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/man/*
path-exclude=/usr/lib/udev/hwdb.d/*
force-unsafe-io
";

/// As Intel's packages and Debian's rules for devices have it.
const USERS: &str = "\
# opens enclaves, where rules restrict that
g sgx -
# opens enclaves that derive provisioning keys
g sgx_prv -
u aesmd - \"Quotes of enclaves (AESM)\"
m aesmd sgx
m aesmd sgx_prv
";

const APT: &str = "\
APT::Install-Recommends \"false\";
Acquire::Languages \"none\";
";

/// Writes them; `sources` is where apt gets packages.
pub(super) fn write<W: Write>(tree: &mut Tree<W>, sources: &str) -> Result<(), ImageError> {
    for (path, mode) in [
        ("etc", 0o755),
        ("etc/apt", 0o755),
        ("etc/apt/apt.conf.d", 0o755),
        ("etc/dpkg", 0o755),
        ("etc/dpkg/dpkg.cfg.d", 0o755),
        ("etc/ssh", 0o755),
        ("etc/ssh/sshd_config.d", 0o755),
        ("etc/systemd", 0o755),
        ("etc/sysusers.d", 0o755),
        ("etc/systemd/journald.conf.d", 0o755),
        ("etc/systemd/system", 0o755),
        ("etc/systemd/system/ssh.service.d", 0o755),
        ("root", 0o700),
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("run", 0o755),
        ("tmp", 0o1777),
        ("mnt", 0o755),
        ("usr/local", 0o755),
        ("usr/local/bin", 0o755),
        ("usr/share/kluis", 0o755),
    ] {
        tree.folder(path, mode)?;
    }
    for (path, text) in [
        ("etc/hostname", "kluis\n"),
        ("etc/hosts", "127.0.0.1 localhost kluis\n::1 localhost ip6-localhost ip6-loopback\n"),
        ("etc/fstab", "# The root file system is mounted by Kluis.\n"),
        ("etc/apt/apt.conf.d/90kluis", APT),
        ("etc/apt/sources.list", sources),
        ("etc/dpkg/dpkg.cfg.d/kluis", DPKG),
        ("etc/ssh/sshd_config.d/kluis.conf", SSHD),
        ("etc/systemd/journald.conf.d/kluis.conf", "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n"),
        ("etc/systemd/system/kluis-host-key.service", HOST_KEY),
        ("etc/systemd/system/ssh.service.d/kluis.conf", SSH_NEEDS),
        ("etc/sysusers.d/kluis.conf", USERS),
    ] {
        tree.file(path, 0o644, text.as_bytes())?;
    }
    // what the host's apt uses, at each start (`handed`)
    tree.link("etc/apt/apt.conf.d/80kluis-host", "/run/kluis/apt.conf")?;
    // what a machine is provisioned with, by its platform and the day
    tree.link("usr/share/kluis/attestation", "/run/kluis/attestation")?;
    tree.link("usr/local/bin/kluis-quote", "/run/kluis/bin/kluis-quote")?;
    for unit in MASKED {
        tree.link(&format!("etc/systemd/system/{unit}"), "/dev/null")?;
    }
    Ok(())
}
