//! How well patched something is.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The status of a TCB level (*PCS API v4, TCB info*), best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// All known weaknesses are mended.
    UpToDate,
    /// Mended, if the enclave's software does its part.
    SWHardeningNeeded,
    /// Mended, if the platform is configured as advised.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSWHardeningNeeded,
    /// Patches are missing.
    OutOfDate,
    /// Patches are missing, and a configuration.
    OutOfDateConfigurationNeeded,
    /// Its keys are not to be believed any more.
    Revoked,
}

impl TcbStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::UpToDate,
        Self::SWHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSWHardeningNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::Revoked,
    ];

    /// True for those that a QE identity may give.
    pub fn is_for_enclaves(self) -> bool {
        matches!(self, Self::UpToDate | Self::OutOfDate | Self::Revoked)
    }

    /// The status of a platform whose quoting enclave has the status `qe`: only an outdated
    /// or revoked one changes anything. As `convergeTcbStatusWithQeTcbStatus` of Intel's
    /// quote verification library.
    pub fn with_enclave(self, qe: Self) -> Self {
        match (qe, self) {
            (Self::Revoked, _) => Self::Revoked,
            (Self::OutOfDate, Self::UpToDate | Self::SWHardeningNeeded) => Self::OutOfDate,
            (Self::OutOfDate, Self::ConfigurationNeeded | Self::ConfigurationAndSWHardeningNeeded) => {
                Self::OutOfDateConfigurationNeeded
            }
            _ => self,
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
