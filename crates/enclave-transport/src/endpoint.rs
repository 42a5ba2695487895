//! Where a server is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The host, as a guest addresses it (*vsock(7)*, `VMADDR_CID_HOST`).
const HOST: u32 = 2;

/// An address, as text `tcp:HOST:PORT`, `unix:PATH`, `vsock:PORT` or `vsock:CID:PORT`.
///
/// In a machine, clients of the host's reach `tcp:0.0.0.0:PORT` if the port is published,
/// and `vsock:PORT` by a Unix socket (`kluis run --publish`, `--vsock-listen`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port: host, or address, and port.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of a machine or its host.
    Vsock {
        /// Who is called: 2, the host, if nothing is said. A server listens for everybody.
        cid: u32,
        /// The port.
        port: u32,
    },
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: write it as tcp:HOST:PORT, vsock:PORT, vsock:CID:PORT or unix:PATH")]
pub struct BadEndpoint(String);

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        parse(text).ok_or_else(|| BadEndpoint(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Endpoint> {
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "tcp" => {
            let (host, port) = rest.rsplit_once(':')?;
            (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| Endpoint::Tcp(rest.to_owned()))
        }
        "unix" => (!rest.is_empty()).then(|| Endpoint::Unix(rest.into())),
        "vsock" => {
            let (cid, port) = match rest.split_once(':') {
                Some((cid, port)) => (cid.parse().ok()?, port),
                None => (HOST, rest),
            };
            Some(Endpoint::Vsock { cid, port: port.parse().ok()? })
        }
        _ => None,
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: HOST, port } => write!(f, "vsock:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_text_and_back() {
        for (text, endpoint) in [
            ("tcp:127.0.0.1:7000", Endpoint::Tcp("127.0.0.1:7000".into())),
            ("tcp:[::1]:7000", Endpoint::Tcp("[::1]:7000".into())),
            ("tcp:payroll.example:7000", Endpoint::Tcp("payroll.example:7000".into())),
            ("unix:/tmp/a:b", Endpoint::Unix("/tmp/a:b".into())),
            ("vsock:7000", Endpoint::Vsock { cid: 2, port: 7000 }),
            ("vsock:3:7000", Endpoint::Vsock { cid: 3, port: 7000 }),
        ] {
            assert_eq!(text.parse(), Ok(endpoint.clone()));
            assert_eq!(endpoint.to_string(), text);
        }
        for text in
            ["", "7000", "tcp:7000", "tcp::7000", "tcp:a:65536", "unix:", "vsock:", "vsock:-1", "udp:a:1"]
        {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("is no address") && !error.contains('\n'), "{error}");
        }
    }
}
