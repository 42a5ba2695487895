//! Collateral of a platform for whoever asks in the forms of Intel's provisioning
//! certification service (PCS API, version 4) and of the caching service that data centres
//! put before it (PCCS).
//!
//! * [`query`]: a request's target in parts
//! * [`question`]: what they ask for
//! * [`answer`](mod@answer): what the platform's maker says to that, at a time
//!
//! Nothing here opens a file, a socket or asks a clock. `docs/collateral.md` has the paths.
#![forbid(unsafe_code)]

pub mod answer;
pub mod query;
pub mod question;

pub use answer::{answer, refusal};
pub use question::Question;

use http::StatusCode;

/// Why a request has no answer: a status and a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status of the response.
    pub status: StatusCode,
    /// Cause and remedy.
    pub text: String,
}

impl Problem {
    /// The request is not as it should be.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// There is no such thing.
    pub(crate) fn none(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }
}
