//! `kluis serve collateral`: what the platform's maker issues, over TLS.
//!
//! The platform is read for each request, so that what was changed meanwhile shows.

use super::args::CollateralArgs;
use crate::exit::{self, Error};
use crate::whole;
use collateral::{Problem, Question};
use dcap::hex;
use dcap::issue::ORGANIZATION;
use http::header::HeaderValue;
use http::{Method, Response, StatusCode, Uri};
use https::authority::{AuthorityError, Name, is_private};
use https::{Authority, Key, Leaves, Limits, Server};
use manufacturer::{Manufacturer, ManufacturerError};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The certificate of the TLS authority in the platform's folder.
const TLS_CA: &str = "collateral-ca.pem";
/// Its name.
const NAME: Name<'_> = Name { common: "Kluis collateral service", organization: ORGANIZATION };

impl From<AuthorityError> for Error {
    fn from(e: AuthorityError) -> Self {
        Self::failed(e)
    }
}

/// Serves until told to end.
///
/// # Errors
/// There is no platform, or the address cannot be served.
pub(super) fn main(args: &CollateralArgs, platform: &Path, json: bool) -> Result<u8, Error> {
    check_address(args.listen, args.other_hosts)?;
    let maker = Manufacturer::equip(platform)?;
    let root_fingerprint = hex::encode(&maker.root()?.fingerprint());
    let authority = authority(maker)?;
    let limits = Limits::default();
    let server = Server::bind(args.listen, limits).map_err(|e| {
        Error::bad(format!("cannot listen at {}: {e}: choose another address with --listen", args.listen))
    })?;
    let address = server.address().map_err(Error::failed)?;
    let pem = dcap::pki::to_pem([authority.der()]);
    let tls_ca = args.tls_ca.clone().unwrap_or_else(|| platform.join(TLS_CA));
    write(&tls_ca, &pem).map_err(|e| Error::bad(format!("cannot write {}: {e}", tls_ca.display())))?;
    let ready = Ready {
        service: "collateral",
        address,
        url: format!("https://{address}/sgx/certification/v4/"),
        tls_ca,
        tls_ca_fingerprint: hex::encode(&Sha256::digest(authority.der())),
        root_fingerprint,
    };
    let leaves = Leaves::new(authority, addresses(args.listen.ip()))?;

    let folder = platform.to_owned();
    let handler = Box::new(move |method: &Method, target: &Uri| respond(&folder, method, target));
    let verbose = args.verbose;
    let log = Box::new(move |line: &str| {
        if verbose {
            // that nobody reads it any more ends no service
            let _ = writeln!(io::stderr(), "{} {line}", crate::platform::utc(unix_time()));
        }
    });
    let tell = || ready.tell(json).map_err(io::Error::other);
    server
        .run(leaves, handler, log, tell)
        .map_err(|e| Error::failed(format!("cannot serve at {address}: {e}")))?;
    Ok(exit::OK)
}

/// Refuses an address at which strangers could connect, or for which the authority cannot
/// vouch.
fn check_address(listen: SocketAddr, other_hosts: bool) -> Result<(), Error> {
    let ip = listen.ip();
    if !ip.is_loopback() && !other_hosts {
        let cause = format!("--listen {listen} is open to other hosts");
        return Err(Error::bad(format!("{cause}: add --other-hosts, or take an address of loopback")));
    }
    if !is_private(ip) {
        let cause = format!("--listen {listen} is no single address of loopback or a private network");
        return Err(Error::bad(format!("{cause}, and no certificate can be made for another: name one")));
    }
    Ok(())
}

/// By what addresses the service is reached: on this host, from a guest, and the one asked for.
fn addresses(listen: IpAddr) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), net::GATEWAY.into()];
    if !addresses.contains(&listen) {
        addresses.push(listen);
    }
    addresses
}

/// The authority for TLS: its key and dates follow from the platform, so that clients need to
/// be told once.
fn authority(maker: Manufacturer) -> Result<Authority, Error> {
    let life = maker.life()?;
    let key = maker.into_tls_key();
    let key = Key { public: key.public().sec1(), sign: Box::new(move |message| key.sign_der(message)) };
    let at = |time: dcap::Time| UNIX_EPOCH + Duration::from_secs(time.unix());
    Ok(Authority::new(NAME, key, at(life.from), at(life.until))?)
}

/// Writes a file as a whole, unless it says the same already.
fn write(file: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(file).is_ok_and(|old| old == text) {
        return Ok(());
    }
    whole::write(file, text.as_bytes())
}

/// The response to a request.
fn respond(platform: &Path, method: &Method, target: &Uri) -> Response<Vec<u8>> {
    let mut response = match Question::parse(method, target) {
        Ok(question) => answer(platform, &question).unwrap_or_else(|error| {
            tracing::error!("no answer to {question:?}: {error}");
            let text = "the platform cannot be used: the service has said why on its standard error".into();
            collateral::refusal(&Problem { status: StatusCode::INTERNAL_SERVER_ERROR, text })
        }),
        Err(problem) => collateral::refusal(&problem),
    };
    let mut id = [0; 16];
    if getrandom::fill(&mut id).is_ok()
        && let Ok(id) = HeaderValue::try_from(hex::encode(&id))
    {
        response.headers_mut().insert("request-id", id);
    }
    response
}

fn answer(platform: &Path, question: &Question) -> Result<Response<Vec<u8>>, Error> {
    let maker = Manufacturer::open(platform)?
        .ok_or_else(|| ManufacturerError::from(platform::PlatformError::Missing(platform.to_owned())))?;
    Ok(collateral::answer(question, &maker, crate::attest::now()?)?)
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// What is told when clients may come.
#[derive(Debug, Serialize)]
struct Ready {
    service: &'static str,
    address: SocketAddr,
    url: String,
    /// The file of the certificate that TLS clients must believe.
    tls_ca: PathBuf,
    /// SHA-256 of it.
    tls_ca_fingerprint: String,
    /// SHA-256 of the root that verifiers must believe.
    root_fingerprint: String,
}

impl Ready {
    fn tell(&self, json: bool) -> Result<(), Error> {
        let mut text = if json {
            serde_json::to_string(self).map_err(Error::failed)?
        } else {
            format!(
                "Collateral of a software platform: {}\n\
                 TLS CA  {} (SHA-256 {})\n\
                 root    SHA-256 {}\n\
                 Ctrl-C ends it.",
                self.url,
                self.tls_ca.display(),
                self.tls_ca_fingerprint,
                self.root_fingerprint,
            )
        };
        text.push('\n');
        crate::print(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_open_to_others_must_be_asked_for() {
        let check = |listen: &str, other_hosts| check_address(listen.parse().unwrap(), other_hosts);
        for loopback in ["127.0.0.1:0", "127.1.2.3:8081", "[::1]:8081"] {
            assert!(check(loopback, false).is_ok(), "{loopback}");
        }
        for private in ["192.168.7.1:8081", "10.0.0.1:8081", "[fd00::1]:8081"] {
            assert!(check(private, false).unwrap_err().to_string().contains("--other-hosts"));
            assert!(check(private, true).is_ok(), "{private}");
        }
        for other in ["0.0.0.0:8081", "[::]:8081", "8.8.8.8:8081"] {
            assert!(check(other, false).is_err());
            assert!(check(other, true).unwrap_err().to_string().contains("no certificate"));
        }
    }

    #[test]
    fn each_address_is_named_once() {
        assert_eq!(addresses(Ipv4Addr::LOCALHOST.into()).len(), 3);
        assert_eq!(addresses([192, 168, 7, 1].into()).len(), 4);
    }
}
