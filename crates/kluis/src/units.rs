//! Quantities as people write them: memory, durations, disks.

use net::{Protocol, Publish};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The longest path of a Unix socket (*unix(7)*).
const MAX_SOCKET: usize = 107;

/// Memory in bytes from a number with a binary unit: `512M`, `4G`, `1.5GiB`.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "" if !number.is_empty() => {
            return Err(format!("needs a unit: write {number}M or {number}G"));
        }
        _ => return Err("is no amount of memory: write it as 512M or 4G".into()),
    };
    let bytes = decimal(number).map(|n| n * f64::from(2u32).powi(shift));
    match bytes {
        // floats hold such numbers exactly up to 2^53
        Some(bytes) if bytes >= 1.0 && bytes <= (1u64 << 53) as f64 => Ok(bytes as u64),
        Some(0.0) => Err("is no memory at all: write it as 512M or 4G".into()),
        Some(_) => Err("is out of range: write it as 512M or 4G".into()),
        None => Err("is no amount of memory: write it as 512M or 4G".into()),
    }
}

/// A physical address: hexadecimal with 0x, or decimal.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn address(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "is no address: write it as 0x140000000".into())
}

/// What to trace, and the file that the lines go to: `sgx`, `sgx=FILE`. Without a
/// file they go to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace(pub(crate) Option<PathBuf>);

/// See [`Trace`].
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn trace(text: &str) -> Result<Trace, String> {
    match text.split_once('=') {
        None if text == "sgx" => Ok(Trace(None)),
        Some(("sgx", file)) if !file.is_empty() => Ok(Trace(Some(file.into()))),
        _ => Err("cannot be traced: write sgx, or sgx=FILE".into()),
    }
}

/// Where to serve a debugger, and whether the machine waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gdb {
    /// The port.
    pub(crate) address: SocketAddr,
    /// Nothing is executed before a debugger has come.
    pub(crate) waits: bool,
    /// It sees x86-64 even before the machine has entered 64-bit mode.
    pub(crate) long: bool,
}

/// `ADDRESS:PORT` or `PORT` of this host, with `,nowait`, `,64` and `,remote`: see [`Gdb`].
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn gdb(text: &str) -> Result<Gdb, String> {
    let mut words = text.split(',');
    let place = words.next().unwrap_or_default();
    let (mut waits, mut long, mut remote) = (true, false, false);
    for word in words {
        match word {
            "nowait" => waits = false,
            "64" => long = true,
            "remote" => remote = true,
            _ => return Err("is no port for gdb: write it as 127.0.0.1:1234 or 127.0.0.1:1234,nowait".into()),
        }
    }
    let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address = place.parse().or_else(|_| place.parse().map(here));
    let address = address.map_err(|_| "is no port for gdb: write it as 127.0.0.1:1234".to_string())?;
    if !address.ip().is_loopback() && !remote {
        return Err(
            "gives other hosts full control of the machine: use 127.0.0.1 and ssh -L, or add ,remote".into(),
        );
    }
    Ok(Gdb { address, waits, long })
}

/// A duration from a number, of seconds or with a unit: `30`, `30s`, `500ms`,
/// `5m`, `1.5h`.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "is no duration: write it as 500ms, 30s, 5m or 1h".to_string();
    let (number, unit) = split(text);
    let seconds = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(wrong()),
    };
    let seconds = decimal(number).ok_or_else(wrong)? * seconds;
    // a hundred years: so that it can be added to any point in time
    match Duration::try_from_secs_f64(seconds) {
        Ok(d) if !d.is_zero() && seconds < 3.2e9 => Ok(d),
        _ => Err("is out of range: write it as 500ms, 30s, 5m or 1h".into()),
    }
}

/// A disk: a file, and whether the guest may only read it (`,ro`).
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn disk(text: &str) -> Result<machine::Disk, String> {
    let (path, read_only) = match text.rsplit_once(',') {
        Some((path, "ro")) => (path, true),
        Some((path, "rw")) => (path, false),
        _ => (text, false),
    };
    match path {
        "" => Err("names no file: write it as FILE or FILE,ro".into()),
        path => Ok(machine::Disk { path: PathBuf::from(path), read_only, overlay: None }),
    }
}

/// A folder of the host and where the guest finds it.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) host: machine::Share,
    /// An absolute path without superfluous parts.
    pub(crate) guest: String,
}

/// See [`Share`]: `HOST:GUEST`, `HOST:GUEST:ro`.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn share(text: &str) -> Result<Share, String> {
    let form = "write it as HOST:GUEST or HOST:GUEST:ro, e.g. .:/work";
    let (both, read_only) = match text.rsplit_once(':') {
        Some((both, "ro")) => (both, true),
        Some((both, "rw")) => (both, false),
        _ => (text, false),
    };
    let Some((path, guest)) = both.rsplit_once(':').filter(|(path, _)| !path.is_empty()) else {
        return Err(format!("does not name two folders: {form}"));
    };
    if !guest.starts_with('/') {
        return Err(format!("names no absolute path in the guest ({guest:?}): {form}"));
    }
    let parts: Vec<&str> = guest.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || parts.contains(&"..") {
        return Err(format!("cannot be mounted on {guest:?} in the guest: {form}"));
    }
    let host = machine::Share { path: PathBuf::from(path), read_only };
    Ok(Share { host, guest: format!("/{}", parts.join("/")) })
}

/// A port of the guest's sockets and the Unix socket for it: `PORT=SOCKET`.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn vsock(text: &str) -> Result<(u32, PathBuf), String> {
    let form = "write it as PORT=SOCKET, e.g. 5000=/tmp/service";
    let (port, path) = text.split_once('=').ok_or_else(|| format!("does not name a socket: {form}"))?;
    // the greatest number means any port
    let port = port.parse().ok().filter(|port| *port != u32::MAX);
    let port = port.ok_or_else(|| format!("names no port from 0 to {}: {form}", u32::MAX - 1))?;
    match path.len() {
        0 => Err(format!("does not name a socket: {form}")),
        1..=MAX_SOCKET => Ok((port, PathBuf::from(path))),
        _ => Err(format!("names a socket by more than {MAX_SOCKET} bytes: choose a shorter path")),
    }
}

/// What the guest is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// What the host reaches, by a NAT
    Nat,
    /// Nothing: there is no network device
    None,
}

/// A published port: `2222:22`, `[ADDR:]HOST:GUEST[/udp]`; an IPv6 address in
/// brackets.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence about it.
pub(crate) fn publish(text: &str) -> Result<Publish, String> {
    let wrong = || "is no pair of ports: write it as 2222:22, 0.0.0.0:8080:80 or 5353:53/udp".to_string();
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return Err(wrong()),
    };
    let (host, guest) = ports.rsplit_once(':').ok_or_else(wrong)?;
    let guest = guest.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
    let host = match host.parse() {
        Ok(port) => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        Err(_) => host.parse().map_err(|_| wrong()),
    }?;
    Ok(Publish { protocol, host, guest })
}

/// Number and unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// Digits with at most one point among them: none of what else a float's own
/// parser takes.
fn decimal(number: &str) -> Option<f64> {
    if number.len() > 20 {
        return None;
    }
    number.parse().ok()
}

/// Bytes in words, of the greatest unit that leaves a whole number or one
/// decimal.
pub(crate) fn bytes(n: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if n >> shift == 0 {
            continue;
        }
        return match n % (1 << shift) {
            0 => format!("{} {unit}", n >> shift),
            _ => format!("{:.1} {unit}", n as f64 / (1u64 << shift) as f64),
        };
    }
    format!("{n} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_name_two_folders() {
        for (text, path, guest, read_only) in [
            (".:/work", ".", "/work", false),
            ("/a b:/w x:ro", "/a b", "/w x", true),
            ("a:b:/w/:rw", "a:b", "/w", false),
            ("~:/./a//b", "~", "/a/b", false),
            ("ro:/ro:ro", "ro", "/ro", true),
        ] {
            let share = share(text).unwrap();
            assert_eq!((share.host.path.to_str().unwrap(), share.guest.as_str()), (path, guest), "{text}");
            assert_eq!(share.host.read_only, read_only, "{text}");
        }
        for (text, why) in [
            ("", "two folders"),
            ("/work", "two folders"),
            (":/work", "two folders"),
            ("/work:ro", "two folders"),
            (".:work", "absolute"),
            (".:", "absolute"),
            (".:/", "mounted on"),
            (".:/a/../b", "mounted on"),
        ] {
            let error = share(text).unwrap_err();
            assert!(error.contains(why) && error.contains("HOST:GUEST"), "{text}: {error}");
        }
    }

    #[test]
    fn vsock_ports_have_a_socket() {
        assert_eq!(vsock("5000=/run/a=b").unwrap(), (5000, PathBuf::from("/run/a=b")));
        assert_eq!(vsock("4294967294=x").unwrap().0, u32::MAX - 1);
        for text in ["", "5000", "=x", "-1=x", "4294967295=x", "4294967296=x", "5000=", "x=y"] {
            assert!(vsock(text).unwrap_err().contains("PORT=SOCKET"), "{text}");
        }
        assert!(vsock(&format!("1=/{}", "x".repeat(107))).unwrap_err().contains("107 bytes"));
    }

    #[test]
    fn addresses_and_traces() {
        assert_eq!(address("0x140000000"), Ok(0x1_4000_0000));
        assert_eq!(address("4096"), Ok(4096));
        for bad in ["", "0x", "0xg", "-1", "0x10000000000000000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(trace("sgx"), Ok(Trace(None)));
        assert_eq!(trace("sgx=a=b"), Ok(Trace(Some("a=b".into()))));
        for bad in ["", "sgx=", "cpu", "sgxx=f"] {
            assert!(trace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_binary_and_needs_a_unit() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("4G", 4 << 30),
            ("4g", 4 << 30),
            ("4 GiB", 4 << 30),
            ("1024M", 1 << 30),
            ("1.5G", 3 << 29),
            ("65536k", 64 << 20),
            ("1T", 1 << 40),
            ("384GB", 384 << 30),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        assert!(memory("1024").unwrap_err().contains("1024M"), "{:?}", memory("1024"));
        for wrong in ["", "G", "4X", "-4G", "4GG", "1e9M", "0M", "0.0000000001K", "99999999T", ".G", "1.2.3G"]
        {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
        assert!(memory(&"9".repeat(400)).is_err());
    }

    #[test]
    fn durations_have_units_and_an_end() {
        for (text, ms) in
            [("30", 30_000), ("30s", 30_000), ("500ms", 500), ("5m", 300_000), ("1.5h", 5_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "s", "0", "0s", "-1s", "5 weeks", "1e3s", "inf", "99999999999999999h", "NaN"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_debugger_is_of_this_host_unless_told_otherwise() {
        let of = |text| gdb(text).map(|g| (g.address.to_string(), g.waits));
        assert_eq!(of("127.0.0.1:1234"), Ok(("127.0.0.1:1234".into(), true)));
        assert_eq!(of("1234,nowait"), Ok(("127.0.0.1:1234".into(), false)));
        assert_eq!(of("[::1]:0"), Ok(("[::1]:0".into(), true)));
        assert_eq!((gdb("1").unwrap().long, gdb("1,64").unwrap().long), (false, true));
        assert_eq!(of("0.0.0.0:1,remote,nowait"), Ok(("0.0.0.0:1".into(), false)));
        assert!(of("0.0.0.0:1").unwrap_err().contains("full control"));
        for wrong in ["", "x", "1234,now", "127.0.0.1", "99999", "localhost:1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn disks_may_be_read_only_and_have_commas() {
        let of = |text| disk(text).map(|d| (d.path.display().to_string(), d.read_only));
        assert_eq!(of("a.img"), Ok(("a.img".into(), false)));
        assert_eq!(of("a.img,ro"), Ok(("a.img".into(), true)));
        assert_eq!(of("a,b.img,rw"), Ok(("a,b.img".into(), false)));
        assert_eq!(of("a,b.img"), Ok(("a,b.img".into(), false)));
        assert!(of("").is_err());
        assert!(of(",ro").is_err());
    }

    #[test]
    fn ports_are_published_on_loopback_unless_told() {
        let of = |text| publish(text).map(|p| (p.host.to_string(), p.guest, p.protocol));
        assert_eq!(of("2222:22"), Ok(("127.0.0.1:2222".into(), 22, Protocol::Tcp)));
        assert_eq!(of("0:22/tcp"), Ok(("127.0.0.1:0".into(), 22, Protocol::Tcp)));
        assert_eq!(of("0.0.0.0:8080:80"), Ok(("0.0.0.0:8080".into(), 80, Protocol::Tcp)));
        assert_eq!(of("[::1]:53:53/udp"), Ok(("[::1]:53".into(), 53, Protocol::Udp)));
        for wrong in
            ["", "22", "22:", ":22", "2222:0", "65536:22", "a:22", "1:2:3", "1:2/sctp", "::1:5:6", "1:2/"]
        {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_told_briefly() {
        assert_eq!(bytes(4 << 30), "4 GiB");
        assert_eq!(bytes(1536 << 20), "1.5 GiB");
        assert_eq!(bytes(28 << 20), "28 MiB");
        assert_eq!(bytes(100), "100 bytes");
    }
}
