//! A certificate authority for services on the user's own host.
//!
//! Clients must be told to believe it. So that this costs them nothing, it is bound by name
//! constraints (*RFC 5280 §4.2.1.10*) to `localhost` and the addresses of loopback and of
//! private networks: whoever had its key could still not pose as a site of the Internet.
//!
//! What it issues is never kept: a server has a new key whenever it starts, and a new
//! certificate each day, so that none of them expires while it runs.

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, SigningKey,
};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a server's certificate is valid: before now, for clients whose clock is late,
/// and after it, for those whose clock is early.
const VALID: [Duration; 2] = [DAY, Duration::from_secs(7 * 86_400)];

/// Networks of which the authority may speak: loopback, the private ones of *RFC 1918* and
/// *RFC 4193*, and those of one link.
const NETWORKS: [(IpAddr, u8); 7] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// Why an authority cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate.
    #[error("cannot make the service's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A key that TLS can use.
    #[error("cannot use the service's key: {0}")]
    Tls(#[from] rustls::Error),
}

/// Whether the authority can vouch for a server at this address.
pub fn is_private(address: IpAddr) -> bool {
    NETWORKS.iter().any(|&(network, prefix)| match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (a.to_bits() ^ n.to_bits()).leading_zeros() >= prefix.into(),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits() ^ n.to_bits()).leading_zeros() >= prefix.into(),
        _ => false,
    })
}

/// Signs the SHA-256 of a message: ECDSA, in DER.
pub type Sign = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// A private key of P-256, wherever it is.
pub struct Key {
    /// The public key in the uncompressed form of *SEC 1 §2.3.3*.
    pub public: [u8; 65],
    /// Its signatures.
    pub sign: Box<Sign>,
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok((self.sign)(message))
    }
}

/// By what names an authority is known.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// Common name.
    pub common: &'a str,
    /// Organization.
    pub organization: &'a str,
}

impl Name<'_> {
    fn params(&self, from: SystemTime, until: SystemTime) -> CertificateParams {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (from.into(), until.into());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common);
        params.distinguished_name.push(DnType::OrganizationName, self.organization);
        params
    }
}

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, Key>,
    der: Vec<u8>,
    organization: String,
}

impl Authority {
    /// With a key whose signatures depend on key and message alone, the same parameters make
    /// the same certificate.
    ///
    /// # Errors
    /// Names or dates are none that a certificate can say.
    pub fn new(
        name: Name<'_>,
        key: Key,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let mut params = name.params(from, until);
        params.serial_number = Some(SerialNumber::from(1));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let networks = NETWORKS.map(|(network, prefix)| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(network, prefix))
        });
        let mut permitted_subtrees = vec![GeneralSubtree::DnsName("localhost".into())];
        permitted_subtrees.extend(networks);
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let der = params.self_signed(&key)?.der().to_vec();
        Ok(Self { issuer: Issuer::new(params, key), der, organization: name.organization.to_owned() })
    }

    /// Its certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// A certificate of today for a server at `localhost` and these addresses.
    fn issue(
        &self,
        key: &KeyPair,
        addresses: &[IpAddr],
        now: SystemTime,
    ) -> Result<CertifiedKey, AuthorityError> {
        let name = Name { common: "localhost", organization: &self.organization };
        let [before, after] = VALID;
        let mut params = name.params(now.checked_sub(before).unwrap_or(now), now + after);
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into()?)];
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::new(vec![certificate.der().clone()], any_ecdsa_type(&secret)?))
    }
}

/// The certificates of one server, each issued on its day.
pub struct Leaves {
    authority: Authority,
    key: KeyPair,
    addresses: Vec<IpAddr>,
    /// The one of today, and when it was issued.
    current: Mutex<(SystemTime, Arc<CertifiedKey>)>,
}

impl Leaves {
    /// For a server at `localhost` and these addresses.
    ///
    /// # Errors
    /// No key or certificate can be made.
    pub fn new(authority: Authority, addresses: Vec<IpAddr>) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let now = SystemTime::now();
        let first = authority.issue(&key, &addresses, now)?;
        Ok(Self { authority, key, addresses, current: Mutex::new((now, Arc::new(first))) })
    }

    /// The certificate to show at a time: of that day, or the last there was.
    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // a clock that was set back needs a new one as well
        let is_fresh = now.duration_since(current.0).is_ok_and(|age| age < DAY);
        if !is_fresh && let Ok(next) = self.authority.issue(&self.key, &self.addresses, now) {
            *current = (now, Arc::new(next));
        }
        current.1.clone()
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl fmt::Debug for Leaves {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        let pair = KeyPair::generate().unwrap();
        let public = pair.der_bytes().try_into().unwrap();
        let key = Key { public, sign: Box::new(move |message| pair.sign(message).unwrap()) };
        let now = SystemTime::now();
        let name = Name { common: "Test", organization: "Nobody" };
        Authority::new(name, key, now - DAY, now + 365 * DAY).unwrap()
    }

    #[test]
    fn a_certificate_is_of_its_day() {
        let leaves = Leaves::new(authority(), vec![Ipv4Addr::LOCALHOST.into()]).unwrap();
        let now = SystemTime::now();
        let show = |at| leaves.at(at).cert[0].clone();
        let first = show(now);
        assert_eq!(show(now + DAY / 2), first);
        let next = show(now + 2 * DAY);
        assert_ne!(next, first);
        assert_eq!(show(now + 2 * DAY + DAY / 2), next);
        assert_ne!(show(now), next, "a clock that was set back");
    }

    /// Whether a type can be printed: what has `Debug` has a constant of its own, which goes
    /// before that of the trait.
    macro_rules! prints {
        ($type:ty) => {{
            #[allow(dead_code, reason = "types with Debug use the other")]
            trait No {
                const PRINTS: bool = false;
            }
            impl<T> No for Of<T> {}
            struct Of<T>(std::marker::PhantomData<T>);
            #[allow(dead_code, reason = "types without Debug use the other")]
            impl<T: std::fmt::Debug> Of<T> {
                const PRINTS: bool = true;
            }
            <Of<$type>>::PRINTS
        }};
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!([prints!(Leaves), prints!(Name<'_>)], [true; 2], "this is how it would look");
        assert!(![prints!(Key), prints!(Authority)].contains(&true));
        let leaves = Leaves::new(authority(), vec![Ipv4Addr::LOCALHOST.into()]).unwrap();
        let said = format!("{leaves:?}{leaves:#?}");
        assert!(said.contains("127.0.0.1"));
        // the private key among what PKCS #8 has, and the public key too
        for part in leaves.key.serialized_der().windows(8) {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            let numbers = format!("{part:?}").replace(['[', ']'], "");
            assert!(!said.contains(&hex) && !said.contains(&numbers));
        }
    }

    #[test]
    fn private_addresses_and_others() {
        for ours in
            ["127.0.0.1", "127.8.9.1", "10.0.2.2", "172.31.0.1", "192.168.7.1", "::1", "fd00::1", "fe80::1"]
        {
            assert!(is_private(ours.parse().unwrap()), "{ours}");
        }
        for other in
            ["0.0.0.0", "128.0.0.1", "172.32.0.1", "192.169.0.1", "8.8.8.8", "::", "::2", "2001:db8::1"]
        {
            assert!(!is_private(other.parse().unwrap()), "{other}");
        }
    }
}
