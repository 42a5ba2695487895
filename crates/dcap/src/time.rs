//! Points in time, in seconds of UTC.

use der::DateTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use x509_cert::time::Time as X509Time;

use crate::error::{Refusal, Rule};

/// A second of UTC between 1970 and 9999, written `2026-01-31T00:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(DateTime);

impl Time {
    /// Seconds since 1970, if that is before the year 10000.
    pub fn from_unix(seconds: u64) -> Option<Self> {
        DateTime::from_unix_duration(Duration::from_secs(seconds)).ok().map(Self)
    }

    /// Seconds since 1970.
    pub fn unix(self) -> u64 {
        self.0.unix_duration().as_secs()
    }

    /// So many days later, if that is before the year 10000.
    pub fn plus_days(self, days: u32) -> Option<Self> {
        Self::from_unix(self.unix().checked_add(u64::from(days) * 86_400)?)
    }

    /// As certificates and revocation lists write it (*RFC 5280 §4.1.2.5*): two digits of
    /// the year until 2049.
    pub(crate) fn x509(self) -> der::Result<X509Time> {
        Ok(match self.0.year() < 2050 {
            true => X509Time::UtcTime(der::asn1::UtcTime::from_date_time(self.0)?),
            false => X509Time::GeneralTime(der::asn1::GeneralizedTime::from_date_time(self.0)),
        })
    }
}

impl From<&X509Time> for Time {
    fn from(time: &X509Time) -> Self {
        Self(time.to_date_time())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Time {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        DateTime::from_str(text).map(Self).map_err(|_| {
            let what = format!("\"{text}\" is no time of the form 2026-01-31T00:00:00Z");
            Refusal::new(Rule::Encoding, "time", what)
        })
    }
}

impl TryFrom<String> for Time {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

/// From when to when something is valid, both seconds included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: Time,
    /// The last second.
    pub until: Time,
}

impl Validity {
    /// Refuses a time outside of it, by one rule for too early and one for too late.
    pub(crate) fn check(
        &self,
        at: Time,
        what: &str,
        names: [&str; 2],
        rules: [Rule; 2],
    ) -> Result<(), Refusal> {
        let [from, until] = names;
        if at < self.from {
            let says = format!("is {}, after the time of verification, {at}", self.from);
            return Err(Refusal::new(rules[0], format!("{what}: {from}"), says));
        }
        if at > self.until {
            let says = format!("is {}, before the time of verification, {at}", self.until);
            return Err(Refusal::new(rules[1], format!("{what}: {until}"), says));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let time: Time = "2026-01-31T12:34:56Z".parse().unwrap();
        assert_eq!((time.unix(), time.to_string().as_str()), (1_769_862_896, "2026-01-31T12:34:56Z"));
        assert_eq!(Time::from_unix(time.unix()), Some(time));
        assert_eq!(time.plus_days(1).unwrap().to_string(), "2026-02-01T12:34:56Z");
        assert_eq!(Time::from_unix(u64::MAX), None);
        assert_eq!(time.plus_days(u32::MAX), None);
        for bad in
            ["", "2026-01-31", "2026-13-31T00:00:00Z", "2026-01-31T00:00:00+00:00", "2026-02-30T00:00:00Z"]
        {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
    }
}
