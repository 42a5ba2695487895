//! The proxies that the host's apt uses, for apt in a guest: where the host fetches
//! packages through one, the guest has no other way to them either.
//!
//! They are what `apt-config` tells and the environment variables that apt heeds
//! (*apt-transport-http(1)*). A proxy on the host itself is out of a guest's reach;
//! exactly that service is let through, at a port of the gateway, and the guest is told
//! the gateway's address instead.

use net::GATEWAY;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::process::{Command, Stdio};

/// The options of apt that name proxies.
const OPTIONS: [&str; 2] = ["Acquire::http::Proxy", "Acquire::https::Proxy"];

/// What a guest is to have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    /// The guest's settings (*apt.conf(5)*).
    pub(crate) settings: String,
    /// Services of the host that they name, by the gateway's TCP port.
    pub(crate) services: BTreeMap<u16, SocketAddrV4>,
}

impl Proxies {
    /// Those of the host's apt; none if it has none, or there is no apt. The ports in
    /// `taken` lead to other services of the host's loopback already.
    pub(crate) fn of_host(taken: &BTreeSet<u16>) -> Self {
        let told = Command::new("apt-config")
            .args(["dump", "Acquire"])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let told = told.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let variable = |name: &str| std::env::var(name).ok();
        let mut proxies = Self::default();
        for (option, value) in options(&told, variable) {
            let value = proxies.as_seen_by_guest(&value, taken, own_address);
            let _ = writeln!(proxies.settings, "{option} \"{value}\";");
        }
        proxies
    }

    /// The same proxy for a guest. `own` gives where a name and port lead if that is on
    /// the host itself.
    fn as_seen_by_guest(
        &mut self,
        value: &str,
        taken: &BTreeSet<u16>,
        own: impl Fn(&str, u16) -> Option<SocketAddrV4>,
    ) -> String {
        let Some(proxy) = Address::parse(value) else { return value.to_owned() };
        let Some(service) = own(proxy.host, proxy.port) else { return value.to_owned() };
        let free = |port: &u16| match self.services.get(port) {
            Some(other) => *other == service,
            None => !taken.contains(port) || (service.ip().is_loopback() && service.port() == *port),
        };
        match (service.port()..=u16::MAX).chain(1..service.port()).find(free) {
            Some(port) => {
                self.services.insert(port, service);
                format!("{}{GATEWAY}:{port}{}", proxy.before, proxy.after)
            }
            None => value.to_owned(),
        }
    }
}

/// A proxy's address, `SCHEME://[USER@]HOST[:PORT][/…]`, in parts.
struct Address<'a> {
    /// All before the host.
    before: &'a str,
    host: &'a str,
    port: u16,
    /// All after the port.
    after: &'a str,
}

impl<'a> Address<'a> {
    /// `None` for what is none, as `DIRECT`.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let place = &authority[authority.rfind('@').map_or(0, |at| at + 1)..];
        let (host, port) = match place.rsplit_once(':') {
            // not within an IPv6 address
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => {
                let usual = match scheme {
                    "https" => 443,
                    "socks5h" => 1080,
                    _ => 80,
                };
                (place, usual)
            }
        };
        let before = text.len() - rest.len() + authority.len() - place.len();
        let after = &rest[authority.len()..];
        (!host.is_empty() && port != 0).then_some(Self { before: &text[..before], host, port, after })
    }
}

/// Where a name leads, if that is on this host.
fn own_address(host: &str, port: u16) -> Option<SocketAddrV4> {
    (host, port).to_socket_addrs().ok()?.find_map(|address| match address {
        SocketAddr::V4(address) if net::is_own(*address.ip()) => Some(address),
        _ => None,
    })
}

/// apt's options that name proxies, of what `apt-config dump` told, and in their place
/// those of the environment.
fn options(told: &str, variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = told.lines().filter_map(option).collect();
    for option in OPTIONS {
        let name = if option.contains("https") { "https_proxy" } else { "http_proxy" };
        if !found.iter().any(|(known, _)| known == option)
            && let Some(value) = variable(name).filter(|value| value.contains("://") && is_plain(value))
        {
            found.push((option.to_owned(), value));
        }
    }
    if !found.is_empty() {
        let direct = variable("no_proxy").unwrap_or_default();
        let hosts = direct.split(',').map(str::trim).filter(|host| is_name(host));
        // the last one holds
        found.extend(hosts.flat_map(|host| OPTIONS.map(|o| (format!("{o}::{host}"), "DIRECT".to_owned()))));
    }
    found
}

/// An option that names a proxy, `NAME "VALUE";`, with a value.
fn option(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(' ')?;
    let value = value.strip_prefix('"')?.strip_suffix("\";")?;
    let ours = OPTIONS.iter().any(|option| match name.strip_prefix(option) {
        Some("") => true,
        Some(rest) => rest.strip_prefix("::").is_some_and(is_name),
        None => false,
    });
    (ours && !value.is_empty() && is_plain(value)).then(|| (name.to_owned(), value.to_owned()))
}

/// Whether it is the name of a host.
fn is_name(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(inside)
}

/// Whether it can stand in quotation marks as it is.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "Acquire \"\";\nAcquire::http \"\";\nAcquire::http::Proxy \"http://localhost:3142/\";\n\
        Acquire::http::Proxy::mirror.example \"DIRECT\";\nAcquire::http::Proxy-Auto-Detect \"/usr/bin/x\";\n\
        Acquire::http::Proxy::odd \"a\\b\";\nAcquire::http::Proxy::a\"b \"http://c\";\nAcquire::Retries \"3\";\n";

    fn found(told: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        options(told, variable).into_iter().map(|(name, value)| format!("{name} {value}")).collect()
    }

    #[test]
    fn settings_of_apt_go_before_those_of_the_environment() {
        let apts =
            ["Acquire::http::Proxy http://localhost:3142/", "Acquire::http::Proxy::mirror.example DIRECT"];
        assert_eq!(found(TOLD, &[]), apts);
        assert_eq!(found(TOLD, &[("http_proxy", "http://other:1")]), apts);
        assert_eq!(
            found("", &[("http_proxy", "http://a:1"), ("https_proxy", "b:2"), ("no_proxy", "c, .d,*,e.f")]),
            [
                "Acquire::http::Proxy http://a:1",
                "Acquire::http::Proxy::c DIRECT",
                "Acquire::https::Proxy::c DIRECT",
                "Acquire::http::Proxy::e.f DIRECT",
                "Acquire::https::Proxy::e.f DIRECT",
            ]
        );
        assert!(found("", &[("no_proxy", "c"), ("http_proxy", "http://a\"; b")]).is_empty());
    }

    #[test]
    fn proxy_on_the_host_is_the_gateways() {
        // the host is 127.0.0.1 and 192.0.2.1
        let own = |host: &str, port| match host {
            "localhost" => Some(SocketAddrV4::new([127, 0, 0, 1].into(), port)),
            "me" => Some(SocketAddrV4::new([192, 0, 2, 1].into(), port)),
            _ => None,
        };
        let mut proxies = Proxies::default();
        let taken = [3142, 8080].into();
        let mut seen = |value: &str| proxies.as_seen_by_guest(value, &taken, own);
        assert_eq!(seen("http://localhost:3142/"), "http://10.0.2.2:3142/");
        assert_eq!(seen("http://u:p@me:8080"), "http://u:p@10.0.2.2:8081");
        assert_eq!(seen("http://me:3142/x"), "http://10.0.2.2:3143/x");
        assert_eq!(seen("https://me:3142"), "https://10.0.2.2:3143");
        assert_eq!(seen("socks5h://localhost"), "socks5h://10.0.2.2:1080");
        for same in
            ["DIRECT", "http://elsewhere:3128/", "http://[::1]:3142/", "http://:1", "http://localhost:x"]
        {
            assert_eq!(seen(same), same);
        }
        let at = |ip: [u8; 4], port| SocketAddrV4::new(ip.into(), port);
        let services = [
            (1080, at([127, 0, 0, 1], 1080)),
            (3142, at([127, 0, 0, 1], 3142)),
            (3143, at([192, 0, 2, 1], 3142)),
            (8081, at([192, 0, 2, 1], 8080)),
        ];
        assert_eq!(proxies.services, services.into());
    }

    #[test]
    fn loopback_is_the_hosts_own() {
        assert_eq!(own_address("127.0.0.1", 3142), Some(SocketAddrV4::new([127, 0, 0, 1].into(), 3142)));
        assert_eq!(own_address("198.51.100.1", 3142), None);
    }
}
