//! A software platform as the quoting enclave behind a service. Reports to it and from it are
//! authenticated as the processor does, by a key that belongs to their target.
#![allow(dead_code)] // not every test needs all of it

use aesm::{AttestationKeyId, Challenge, Code, Failure, Initialized, Quoted, Quoting};
use dcap::testing::Parts;
use dcap::{Quote, Verdict};
use sgx_abi::{Report, ReportBody, Targetinfo};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use zerocopy::{FromBytes, IntoBytes};

/// Makes quotes on the test platform of `dcap`.
pub(crate) struct Platform;

impl Platform {
    fn qe(&self) -> ReportBody {
        let quote = Quote::parse(&quote_of(&ReportBody::default())).expect("of our own making");
        *quote.authentication.qe_report
    }

    /// TARGETINFO of its quoting enclave.
    pub(crate) fn target_info(&self) -> Targetinfo {
        target_of(&self.qe())
    }
}

impl Quoting for Platform {
    fn key_id(&self) -> Result<AttestationKeyId, Failure> {
        Ok(AttestationKeyId::of(&self.qe()))
    }

    fn init(&self) -> Result<Initialized, Failure> {
        let public_key_id = self.qe().reportdata[..32].try_into().expect("32 bytes");
        Ok(Initialized { target_info: self.target_info(), public_key_id })
    }

    fn quote_size(&self) -> Result<usize, Failure> {
        Ok(quote_of(&ReportBody::default()).len())
    }

    fn quote(&self, report: &Report, challenge: Option<&Challenge>) -> Result<Quoted, Failure> {
        if !is_for(&self.target_info(), report) {
            return Err(Failure { code: Code::INVALID_REPORT, cause: "the MAC is another".to_owned() });
        }
        let quote = quote_of(&report.body);
        let qe_report = challenge.map(|challenge| {
            let mut body = self.qe();
            body.reportdata = [0; 64];
            body.reportdata[..32].copy_from_slice(&hash(&[&challenge.nonce, &quote]));
            report_for(&challenge.target, body)
        });
        Ok(Quoted { quote, qe_report })
    }
}

fn quote_of(report: &ReportBody) -> Vec<u8> {
    Parts { report: *report, ..Parts::default() }.bundle().expect("all of it can be signed").quote
}

/// Verifies a quote under the platform's root, with its collateral.
pub(crate) fn verdict(quote: &[u8]) -> Verdict {
    let bundle = Parts::default().bundle().expect("all of it can be signed");
    dcap::testing::Bundle { quote: quote.to_vec(), ..bundle }.verify().expect("a genuine quote")
}

/// SHA-256 of all of these.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// The target that a report's enclave is.
pub(crate) fn target_of(body: &ReportBody) -> Targetinfo {
    Targetinfo {
        measurement: body.mrenclave,
        attributes: body.attributes,
        miscselect: body.miscselect,
        ..Targetinfo::default()
    }
}

/// A report for a target.
pub(crate) fn report_for(target: &Targetinfo, body: ReportBody) -> Report {
    Report { body, mac: mac(target, &body), ..Report::default() }
}

/// Whether a report was made for a target.
pub(crate) fn is_for(target: &Targetinfo, report: &Report) -> bool {
    mac(target, &report.body) == report.mac
}

fn mac(target: &Targetinfo, body: &ReportBody) -> [u8; 16] {
    hash(&[b"the processor's", target.as_bytes(), body.as_bytes()])[..16].try_into().expect("16 bytes")
}

/// The report of a program's enclave for the quoting enclave.
pub(crate) fn application_report() -> Report {
    report_for(&Platform.target_info(), application())
}

/// A program's enclave.
pub(crate) fn application() -> ReportBody {
    ReportBody { reportdata: [0x5a; 64], ..Parts::default().report }
}

/// Reads a structure.
pub(crate) fn structure<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_bytes(bytes).expect("of its length")
}

/// A service in a folder of its own, until the test's process ends.
pub(crate) struct Service {
    folder: tempfile::TempDir,
}

impl Service {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let service = Self { folder };
        let listener = aesm::listen(&service.socket()).expect("nothing is there");
        std::thread::spawn(move || aesm::serve(&listener, &Platform, &|what| panic!("{what}")));
        service
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("aesmd/aesm.socket")
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}
