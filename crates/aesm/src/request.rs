//! What programs ask for.
//!
//! Field numbers are those of Intel's service. All fields are optional here: what is missing
//! is refused by its name ([`Code::PARAMETER`](crate::Code::PARAMETER)) and not by its type.
//! Numbers 5 to 9 were requests for platform services, which are no more.

use prost::{Message, Oneof};

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Which, and what it says; nothing if it is none of those known here.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22")]
    pub body: Option<Body>,
}

/// The requests.
#[derive(Clone, PartialEq, Oneof)]
pub enum Body {
    /// The target for reports, and the EPID group: EPID.
    #[prost(message, tag = "1")]
    InitQuote(InitQuote),
    /// A quote: EPID.
    #[prost(message, tag = "2")]
    GetQuote(GetQuote),
    /// A launch token: processors without flexible launch control.
    #[prost(message, tag = "3")]
    GetLaunchToken(GetLaunchToken),
    /// What a platform lacks after a failed attestation: EPID.
    #[prost(message, tag = "4")]
    ReportAttestationError(ReportAttestationError),
    /// The size of the list of who may launch: launch control.
    #[prost(message, tag = "10")]
    GetWhiteListSize(GetWhiteListSize),
    /// The list of who may launch: launch control.
    #[prost(message, tag = "11")]
    GetWhiteList(GetWhiteList),
    /// The extended EPID group: EPID.
    #[prost(message, tag = "12")]
    GetExtendedEpidGroupId(GetExtendedEpidGroupId),
    /// Another extended EPID group: EPID.
    #[prost(message, tag = "13")]
    SwitchExtendedEpidGroup(SwitchExtendedEpidGroup),
    /// Another list of who may launch: launch control.
    #[prost(message, tag = "14")]
    Register(Register),
    /// The quoting enclave as the target of reports, and the attestation key's identifier.
    #[prost(message, tag = "15")]
    InitQuoteEx(InitQuoteEx),
    /// The size of quotes.
    #[prost(message, tag = "16")]
    GetQuoteSizeEx(GetQuoteSizeEx),
    /// A quote.
    #[prost(message, tag = "17")]
    GetQuoteEx(GetQuoteEx),
    /// What a platform lacks: EPID.
    #[prost(message, tag = "18")]
    CheckUpdateStatus(CheckUpdateStatus),
    /// The key, of those that a verifier takes, that this platform has.
    #[prost(message, tag = "19")]
    SelectAttKeyId(SelectAttKeyId),
    /// How many keys there are.
    #[prost(message, tag = "21")]
    GetSupportedAttKeyIdNum(GetSupportedAttKeyIdNum),
    /// The keys' identifiers.
    #[prost(message, tag = "22")]
    GetSupportedAttKeyIds(GetSupportedAttKeyIds),
}

/// The target for reports, and the EPID group: EPID.
#[derive(Clone, PartialEq, Message)]
pub struct InitQuote {
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// A quote: EPID.
#[derive(Clone, PartialEq, Message)]
pub struct GetQuote {
    /// The enclave's REPORT.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub report: Option<Vec<u8>>,
    /// Whether signatures can be linked: 0 or 1.
    #[prost(uint32, optional, tag = "2")]
    pub quote_type: Option<u32>,
    /// The service provider's identifier, 16 bytes.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub spid: Option<Vec<u8>>,
    /// A number that the report of the quoting enclave is to have, 16 bytes.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub nonce: Option<Vec<u8>>,
    /// Which signatures are revoked.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub sig_rl: Option<Vec<u8>>,
    /// The size of the program's buffer, in bytes.
    #[prost(uint32, optional, tag = "6")]
    pub buf_size: Option<u32>,
    /// Whether the quoting enclave is to report on the quote.
    #[prost(bool, optional, tag = "7")]
    pub qe_report: Option<bool>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// A launch token: processors without flexible launch control.
#[derive(Clone, PartialEq, Message)]
pub struct GetLaunchToken {
    /// MRENCLAVE.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub mr_enclave: Option<Vec<u8>>,
    /// The modulus of the signer's key.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub mr_signer: Option<Vec<u8>>,
    /// ATTRIBUTES.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub se_attributes: Option<Vec<u8>>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// What a platform lacks after a failed attestation: EPID.
#[derive(Clone, PartialEq, Message)]
pub struct ReportAttestationError {
    /// The attestation service's words on the platform.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub platform_info: Option<Vec<u8>>,
    /// How it failed.
    #[prost(uint32, optional, tag = "2")]
    pub attestation_error_code: Option<u32>,
    /// The size of the program's buffer, in bytes.
    #[prost(uint32, optional, tag = "3")]
    pub update_info_size: Option<u32>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// The size of the list of who may launch: launch control.
#[derive(Clone, PartialEq, Message)]
pub struct GetWhiteListSize {
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// The list of who may launch: launch control.
#[derive(Clone, PartialEq, Message)]
pub struct GetWhiteList {
    /// The size of the program's buffer, in bytes.
    #[prost(uint32, optional, tag = "1")]
    pub white_list_size: Option<u32>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// The extended EPID group: EPID.
#[derive(Clone, PartialEq, Message)]
pub struct GetExtendedEpidGroupId {
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// Another extended EPID group: EPID.
#[derive(Clone, PartialEq, Message)]
pub struct SwitchExtendedEpidGroup {
    /// Which.
    #[prost(uint32, optional, tag = "1")]
    pub x_group_id: Option<u32>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// Another list of who may launch: launch control.
#[derive(Clone, PartialEq, Message)]
pub struct Register {
    /// The list.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub buf: Option<Vec<u8>>,
    /// What it is.
    #[prost(uint32, optional, tag = "2")]
    pub data_type: Option<u32>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// The quoting enclave as the target of reports, and the attestation key's identifier.
#[derive(Clone, PartialEq, Message)]
pub struct InitQuoteEx {
    /// Which key: an [`AttestationKeyId`](crate::AttestationKeyId).
    #[prost(bytes = "vec", optional, tag = "1")]
    pub att_key_id: Option<Vec<u8>>,
    /// Whether the identifier of the public key is wanted, and not only its size.
    #[prost(bool, optional, tag = "3")]
    pub b_pub_key_id: Option<bool>,
    /// The size of the program's buffer for it, in bytes.
    #[prost(uint64, optional, tag = "4")]
    pub buf_size: Option<u64>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// The size of quotes.
#[derive(Clone, PartialEq, Message)]
pub struct GetQuoteSizeEx {
    /// Of which key.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub att_key_id: Option<Vec<u8>>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// A quote.
#[derive(Clone, PartialEq, Message)]
pub struct GetQuoteEx {
    /// The enclave's REPORT, made for the quoting enclave.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub report: Option<Vec<u8>>,
    /// Which key signs.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub att_key_id: Option<Vec<u8>>,
    /// What the quoting enclave is to report on: a [`QeReportInfo`](crate::QeReportInfo).
    #[prost(bytes = "vec", optional, tag = "3")]
    pub qe_report_info: Option<Vec<u8>>,
    /// The size of the program's buffer, in bytes.
    #[prost(uint32, optional, tag = "4")]
    pub buf_size: Option<u32>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// What a platform lacks: EPID.
#[derive(Clone, PartialEq, Message)]
pub struct CheckUpdateStatus {
    /// The attestation service's words on the platform.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub platform_info: Option<Vec<u8>>,
    /// The size of the program's buffer, in bytes.
    #[prost(uint32, optional, tag = "2")]
    pub update_info_size: Option<u32>,
    /// What is done about it.
    #[prost(uint32, optional, tag = "3")]
    pub config: Option<u32>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// The key, of those that a verifier takes, that this platform has.
#[derive(Clone, PartialEq, Message)]
pub struct SelectAttKeyId {
    /// The verifier's; without it, all.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub att_key_id_list: Option<Vec<u8>>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "2")]
    pub timeout: Option<u32>,
}

/// How many keys there are.
#[derive(Clone, PartialEq, Message)]
pub struct GetSupportedAttKeyIdNum {
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}

/// The keys' identifiers.
#[derive(Clone, PartialEq, Message)]
pub struct GetSupportedAttKeyIds {
    /// The size of the program's buffer, in bytes: that of all identifiers.
    #[prost(uint32, optional, tag = "1")]
    pub buf_size: Option<u32>,
    /// How long the program waits, in microseconds.
    #[prost(uint32, optional, tag = "9")]
    pub timeout: Option<u32>,
}
