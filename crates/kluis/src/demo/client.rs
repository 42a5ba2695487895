//! The client: it has the records and their key, and gives the key to an enclave that has
//! proven, in TLS, which one it is.

use crate::attest;
use crate::attest::endpoint::{Endpoint, Stream};
use crate::exit::Error;
use crate::leave_out::leaves_out;
use clinic_records::cipher::{KEY_SIZE, MAX_LINES};
use clinic_records::gift::{KEPT, KEY};
use clinic_records::{DataKey, Unauthentic};
use dcap::policy::Digest;
use dcap::{Collateral, Policy, Root};
use enclave_tls::evidence::{Claims, report_data};
use ratls::certificate::Certificate;
use ratls::{Attested, Verifier, client_config, refusal_of};
use rustls::crypto::ring;
use rustls::{ClientConnection, StreamOwned};
use sgx_abi::Sigstruct;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whom it believes, and what it wants.
#[derive(Clone)]
pub(super) struct Client {
    verifier: Verifier,
    policy: Policy,
    key: DataKey,
}

/// Who has got the key.
pub(super) struct Given {
    /// What the certificate proves.
    pub(super) attested: Attested,
    /// Whether the quote's REPORTDATA are those of the connection's key.
    pub(super) bound: bool,
    /// The quote in the certificate.
    pub(super) quote: Vec<u8>,
}

/// How a server fared.
pub(super) enum Met {
    /// It was believed, and has confirmed the key.
    Given(Box<Given>),
    /// It was not: the rule that it broke, and in words.
    Refused(&'static str, String),
}

impl Client {
    /// With a key that is new, for enclaves such as `sig` describes, of this security version
    /// at least, on platforms below `root`.
    ///
    /// # Errors
    /// The host has no random numbers.
    pub(super) fn new(root: Root, collateral: Collateral, sig: &Sigstruct) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; KEY_SIZE]);
        getrandom::fill(&mut *bytes)
            .map_err(|e| Error::failed(format!("there are no random numbers: {e}")))?;
        let key = DataKey::new(&*bytes).ok_or_else(|| Error::failed("no key"))?;
        let mut policy = Policy {
            mrenclave: Some(Digest(sig.enclavehash)),
            mrsigner: Some(Digest(sgx::sigstruct::mrsigner(sig))),
            isv_prod_id: Some(sig.isvprodid),
            min_isv_svn: Some(sig.isvsvn),
            // its root is the user's own, and named
            accept_software_platform: true,
            ..Policy::default()
        };
        if leaves_out("mrenclave") {
            policy.mrenclave = None;
        }
        if leaves_out("security-version") {
            policy.min_isv_svn = None;
        }
        policy.accept_debug = leaves_out("debug");
        let verifier = Verifier::new(root, collateral, policy.clone());
        #[cfg(feature = "unchecked")]
        let verifier = if leaves_out("report-data") { verifier.without_binding() } else { verifier };
        Ok(Self { verifier, policy, key })
    }

    /// The same one, who believes other platforms.
    pub(super) fn who_believes(&self, root: Root, collateral: Collateral) -> Self {
        let verifier = Verifier::new(root, collateral, self.policy.clone());
        Self { verifier, policy: self.policy.clone(), key: self.key.clone() }
    }

    /// Verifies whoever is at this socket, and gives them the key if that is the enclave.
    ///
    /// # Errors
    /// Nobody is there, or somebody who breaks off.
    pub(super) fn give_key(&self, socket: &Path) -> Result<Met, Error> {
        let cannot = |e: &dyn std::fmt::Display| Error::failed(format!("{}: {e}", socket.display()));
        let stream = Stream::connect(&Endpoint::Unix(socket.to_owned()), PATIENCE)?;
        let config = client_config(self.verifier.clone());
        let name = "enclave".try_into().map_err(|e| cannot(&e))?;
        let connection = ClientConnection::new(config.into(), name).map_err(|e| cannot(&e))?;
        let mut stream = StreamOwned::new(connection, stream);
        match self.speak(&mut stream) {
            Ok(()) => {}
            Err(error) => return refused(&error).ok_or_else(|| cannot(&error)),
        }
        let certificate = stream.conn.peer_certificates().and_then(|all| all.first());
        let certificate = certificate.ok_or_else(|| cannot(&"it has shown no certificate"))?;
        // what the handshake has verified, to tell of it
        let attested = self.verifier.verify(certificate, attest::now()?).map_err(|e| cannot(&e))?;
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let key = Certificate::read(certificate, &algorithms).map_err(|e| cannot(&e))?;
        let claims = Claims::of_key(key.public_key(), None).write();
        let bound = attested.verdict.report.reportdata == report_data(&claims);
        let quote = key.evidence().map_err(|e| cannot(&e))?.quote;
        Ok(Met::Given(Box::new(Given { attested, bound, quote })))
    }

    /// Nothing is said before the handshake is over, and with it the verification.
    fn speak(&self, stream: &mut StreamOwned<ClientConnection, Stream>) -> io::Result<()> {
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let gift = Zeroizing::new([&KEY[..], &self.key.bytes()[..]].concat());
        stream.write_all(&gift)?;
        let mut answer = [0; KEPT.len()];
        stream.read_exact(&mut answer)?;
        if answer != *KEPT {
            return Err(io::Error::other("the enclave has not kept the key"));
        }
        stream.conn.send_close_notify();
        // it may have gone already
        let _ = stream.flush();
        Ok(())
    }

    /// Records as the host takes them, chunk by chunk: their length (4, little-endian), whether
    /// it is the last, then ciphertext.
    ///
    /// # Errors
    /// As of the cipher.
    pub(super) fn encrypt(&self, csv: &str) -> Result<Vec<u8>, Error> {
        let mut chunks = vec![String::new()];
        for line in csv.split_inclusive('\n').skip(1) {
            match chunks.last_mut() {
                Some(chunk) if chunk.len() + line.len() <= MAX_LINES => chunk.push_str(line),
                _ => chunks.push(line.to_owned()),
            }
        }
        let mut file = Vec::new();
        for (chunk, number) in chunks.iter().zip(0..) {
            let last = number as usize + 1 == chunks.len();
            let encrypted = self.key.encrypt_chunk(number, last, chunk.as_bytes()).map_err(Error::failed)?;
            file.extend_from_slice(&(encrypted.len() as u32).to_le_bytes());
            file.push(last.into());
            file.extend_from_slice(&encrypted);
        }
        Ok(file)
    }

    /// A table from the enclave; `None` if it is not one of this key.
    pub(super) fn decrypt(&self, table: &[u8]) -> Option<String> {
        let text = self.key.decrypt_table(table).map_err(|Unauthentic| ()).ok()?;
        String::from_utf8(text).ok()
    }

    /// The key's bytes, to look for them where they should not be.
    pub(super) fn key(&self) -> &[u8] {
        self.key.bytes()
    }
}

/// The refusal in an error of a stream.
fn refused(error: &io::Error) -> Option<Met> {
    let refusal = refusal_of(error.get_ref()?.downcast_ref()?)?;
    Some(Met::Refused(refusal.rule(), refusal.to_string()))
}
