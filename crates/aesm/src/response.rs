//! What the service answers. A code is in every response; the rest if it is
//! [`Code::SUCCESS`](crate::Code::SUCCESS).

use prost::{Message, Oneof};

/// A response.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Which, and what it says; nothing if it is none of those known here.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22")]
    pub body: Option<Body>,
}

/// The responses.
#[derive(Clone, PartialEq, Oneof)]
pub enum Body {
    /// To [`request::InitQuote`](crate::request::InitQuote).
    #[prost(message, tag = "1")]
    InitQuote(InitQuote),
    /// To [`request::GetQuote`](crate::request::GetQuote).
    #[prost(message, tag = "2")]
    GetQuote(GetQuote),
    /// To [`request::GetLaunchToken`](crate::request::GetLaunchToken).
    #[prost(message, tag = "3")]
    GetLaunchToken(GetLaunchToken),
    /// To [`request::ReportAttestationError`](crate::request::ReportAttestationError).
    #[prost(message, tag = "4")]
    ReportAttestationError(ReportAttestationError),
    /// To [`request::GetWhiteListSize`](crate::request::GetWhiteListSize).
    #[prost(message, tag = "10")]
    GetWhiteListSize(GetWhiteListSize),
    /// To [`request::GetWhiteList`](crate::request::GetWhiteList).
    #[prost(message, tag = "11")]
    GetWhiteList(GetWhiteList),
    /// To [`request::GetExtendedEpidGroupId`](crate::request::GetExtendedEpidGroupId).
    #[prost(message, tag = "12")]
    GetExtendedEpidGroupId(GetExtendedEpidGroupId),
    /// To [`request::SwitchExtendedEpidGroup`](crate::request::SwitchExtendedEpidGroup).
    #[prost(message, tag = "13")]
    SwitchExtendedEpidGroup(SwitchExtendedEpidGroup),
    /// To [`request::Register`](crate::request::Register).
    #[prost(message, tag = "14")]
    Register(Register),
    /// To [`request::InitQuoteEx`](crate::request::InitQuoteEx).
    #[prost(message, tag = "15")]
    InitQuoteEx(InitQuoteEx),
    /// To [`request::GetQuoteSizeEx`](crate::request::GetQuoteSizeEx).
    #[prost(message, tag = "16")]
    GetQuoteSizeEx(GetQuoteSizeEx),
    /// To [`request::GetQuoteEx`](crate::request::GetQuoteEx).
    #[prost(message, tag = "17")]
    GetQuoteEx(GetQuoteEx),
    /// To [`request::CheckUpdateStatus`](crate::request::CheckUpdateStatus).
    #[prost(message, tag = "18")]
    CheckUpdateStatus(CheckUpdateStatus),
    /// To [`request::SelectAttKeyId`](crate::request::SelectAttKeyId).
    #[prost(message, tag = "19")]
    SelectAttKeyId(SelectAttKeyId),
    /// To what is no request, or none that is known.
    #[prost(message, tag = "20")]
    UnsupportedRequest(UnsupportedRequest),
    /// To [`request::GetSupportedAttKeyIdNum`](crate::request::GetSupportedAttKeyIdNum).
    #[prost(message, tag = "21")]
    GetSupportedAttKeyIdNum(GetSupportedAttKeyIdNum),
    /// To [`request::GetSupportedAttKeyIds`](crate::request::GetSupportedAttKeyIds).
    #[prost(message, tag = "22")]
    GetSupportedAttKeyIds(GetSupportedAttKeyIds),
}

/// To [`request::InitQuote`](crate::request::InitQuote).
#[derive(Clone, PartialEq, Message)]
pub struct InitQuote {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// TARGETINFO of the quoting enclave.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub target_info: Option<Vec<u8>>,
    /// The EPID group.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub gid: Option<Vec<u8>>,
}

/// To [`request::GetQuote`](crate::request::GetQuote).
#[derive(Clone, PartialEq, Message)]
pub struct GetQuote {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// The quote.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub quote: Option<Vec<u8>>,
    /// REPORT of the quoting enclave.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub qe_report: Option<Vec<u8>>,
}

/// To [`request::GetLaunchToken`](crate::request::GetLaunchToken).
#[derive(Clone, PartialEq, Message)]
pub struct GetLaunchToken {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// The launch token.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub token: Option<Vec<u8>>,
}

/// To [`request::ReportAttestationError`](crate::request::ReportAttestationError).
#[derive(Clone, PartialEq, Message)]
pub struct ReportAttestationError {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// What is to be updated.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub platform_update_info: Option<Vec<u8>>,
}

/// To [`request::GetWhiteListSize`](crate::request::GetWhiteListSize).
#[derive(Clone, PartialEq, Message)]
pub struct GetWhiteListSize {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// In bytes.
    #[prost(uint32, optional, tag = "2")]
    pub white_list_size: Option<u32>,
}

/// To [`request::GetWhiteList`](crate::request::GetWhiteList).
#[derive(Clone, PartialEq, Message)]
pub struct GetWhiteList {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// The list.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub white_list: Option<Vec<u8>>,
}

/// To [`request::GetExtendedEpidGroupId`](crate::request::GetExtendedEpidGroupId).
#[derive(Clone, PartialEq, Message)]
pub struct GetExtendedEpidGroupId {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// The group.
    #[prost(uint32, optional, tag = "2")]
    pub x_group_id: Option<u32>,
}

/// To [`request::SwitchExtendedEpidGroup`](crate::request::SwitchExtendedEpidGroup).
#[derive(Clone, PartialEq, Message)]
pub struct SwitchExtendedEpidGroup {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
}

/// To [`request::Register`](crate::request::Register).
#[derive(Clone, PartialEq, Message)]
pub struct Register {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
}

/// To [`request::InitQuoteEx`](crate::request::InitQuoteEx).
#[derive(Clone, PartialEq, Message)]
pub struct InitQuoteEx {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// TARGETINFO of the quoting enclave.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub target_info: Option<Vec<u8>>,
    /// The size of the public key's identifier, in bytes.
    #[prost(uint64, optional, tag = "3")]
    pub pub_key_id_size: Option<u64>,
    /// The public key's identifier.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub pub_key_id: Option<Vec<u8>>,
}

/// To [`request::GetQuoteSizeEx`](crate::request::GetQuoteSizeEx).
#[derive(Clone, PartialEq, Message)]
pub struct GetQuoteSizeEx {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// In bytes.
    #[prost(uint32, optional, tag = "2")]
    pub quote_size: Option<u32>,
}

/// To [`request::GetQuoteEx`](crate::request::GetQuoteEx).
#[derive(Clone, PartialEq, Message)]
pub struct GetQuoteEx {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// The quote.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub quote: Option<Vec<u8>>,
    /// What was asked with, and the quoting enclave's REPORT.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub qe_report_info: Option<Vec<u8>>,
}

/// To [`request::CheckUpdateStatus`](crate::request::CheckUpdateStatus).
#[derive(Clone, PartialEq, Message)]
pub struct CheckUpdateStatus {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// What is to be updated.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub platform_update_info: Option<Vec<u8>>,
    /// Whether there is something.
    #[prost(uint32, optional, tag = "3")]
    pub status: Option<u32>,
}

/// To [`request::SelectAttKeyId`](crate::request::SelectAttKeyId).
#[derive(Clone, PartialEq, Message)]
pub struct SelectAttKeyId {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// The key's identifier.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub selected_att_key_id: Option<Vec<u8>>,
}

/// To what is no request, or none that is known.
#[derive(Clone, PartialEq, Message)]
pub struct UnsupportedRequest {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
}

/// To [`request::GetSupportedAttKeyIdNum`](crate::request::GetSupportedAttKeyIdNum).
#[derive(Clone, PartialEq, Message)]
pub struct GetSupportedAttKeyIdNum {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// How many.
    #[prost(uint32, optional, tag = "2")]
    pub att_key_id_num: Option<u32>,
}

/// To [`request::GetSupportedAttKeyIds`](crate::request::GetSupportedAttKeyIds).
#[derive(Clone, PartialEq, Message)]
pub struct GetSupportedAttKeyIds {
    /// A [`Code`](crate::Code).
    #[prost(uint32, required, tag = "1")]
    pub error_code: u32,
    /// Their identifiers, one after the other.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub att_key_ids: Option<Vec<u8>>,
}
