//! `kluis attest verify`: from a file to a verdict.

use super::args::VerifyArgs;
use super::report::{Verdict as VerdictReport, verdict_text};
use super::trust::Trust;
use super::{now, read};
use crate::exit::{self, Error};
use dcap::quote::MAX_QUOTE_SIZE;
use dcap::{Class, Policy, Quote, Refusal, Rule, Verdict};
use serde::Serialize;
use std::path::Path;

/// Most bytes of a policy.
const MAX_POLICY_SIZE: usize = 64 << 10;

/// Why there is no verdict.
pub(super) enum Stop {
    /// What else was given cannot be used, or the host failed.
    Error(Error),
    /// The quote or its collateral is refused.
    Refused(Refusal),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What is told.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    /// Genuine, and as the policy wants it.
    accepted: bool,
    /// Which rule was broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalReport<'a>>,
    /// What a genuine quote says, accepted or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictReport>,
}

#[derive(Serialize)]
struct RefusalReport<'a> {
    rule: &'static str,
    class: &'static str,
    field: &'a str,
    what: &'a str,
    exit_code: u8,
}

/// Does what was asked.
///
/// # Errors
/// The quote is refused, or something else cannot be used.
pub(super) fn main(args: &VerifyArgs, platform: &Path, json: bool) -> Result<u8, Error> {
    let (verdict, refusal) = match examine(args, platform) {
        Ok((verdict, checked)) => (Some(verdict), checked.err()),
        Err(Stop::Refused(refusal)) => (None, Some(refusal)),
        Err(Stop::Error(error)) => return Err(error),
    };
    let verdict = verdict.as_ref().map(VerdictReport::of);
    if json {
        crate::print_json(&Report {
            file: &args.file,
            accepted: refusal.is_none(),
            refusal: refusal.as_ref().map(RefusalReport::of),
            verdict,
        })?;
    } else if let Some(verdict) = &verdict {
        let end = if refusal.is_none() { "genuine, and accepted" } else { "genuine, but refused" };
        crate::print(&format!("{}: {end}\n{}", args.file.display(), verdict_text(verdict)))?;
    }
    match refusal {
        None => Ok(exit::OK),
        Some(refusal) => Err(refused(&args.file, &refusal)),
    }
}

/// The verdict on a genuine quote, and what the policy makes of it.
fn examine(args: &VerifyArgs, platform: &Path) -> Result<(Verdict, Result<(), Refusal>), Stop> {
    let policy = policy(args)?;
    let at = args.at.map_or_else(now, Ok)?;
    let quote = Quote::parse(&read(&args.file, MAX_QUOTE_SIZE)?)?;
    let Trust { root, collateral } = Trust::find(args, &quote, platform, at)?;
    let verdict = dcap::Trusted::new(&collateral, &root, at)?.verify(&quote)?;
    let checked = policy.check(&verdict);
    Ok((verdict, checked))
}

fn policy(args: &VerifyArgs) -> Result<Policy, Error> {
    let mut policy = match &args.policy {
        Some(file) => read_policy(file)?,
        None => Policy::default(),
    };
    // whoever names a root knows whose it is
    policy.accept_software_platform |= args.accept_software_platform || args.root.is_some();
    Ok(policy)
}

fn read_policy(file: &Path) -> Result<Policy, Error> {
    let bytes = read(file, MAX_POLICY_SIZE)?;
    let none = |why: String| Error::bad(format!("--policy {} is none: {why}", file.display()));
    if bytes.len() > MAX_POLICY_SIZE {
        return Err(none(format!("it has more than {MAX_POLICY_SIZE} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| none("it is no text".to_owned()))?;
    Policy::from_json(&text).map_err(|refusal| none(refusal.to_string()))
}

impl<'a> RefusalReport<'a> {
    fn of(refusal: &'a Refusal) -> Self {
        let rule = refusal.rule;
        let class = match rule.class() {
            Class::Malformed => "malformed",
            Class::Unsupported => "unsupported",
            Class::Untrusted => "untrusted",
            Class::Expired => "expired",
            Class::Revoked => "revoked",
            Class::Policy => "policy",
        };
        let (field, what) = (&refusal.field, &refusal.what);
        Self { rule: rule.name(), class, field, what, exit_code: exit::of_refusal(rule) }
    }
}

/// The refusal of a file in one line, with what helps.
pub(super) fn refused(file: &Path, refusal: &Refusal) -> Error {
    let remedy = match refusal.rule.class() {
        _ if refusal.rule == Rule::ForeignRoot => "if you believe its root, give it with --root FILE",
        _ if refusal.rule == Rule::SoftwarePlatform => "--accept-software-platform does",
        Class::Malformed => "get the file again",
        Class::Unsupported => "`kluis attest inspect` tells what it is",
        Class::Untrusted => "do not believe it",
        Class::Expired => "get newer collateral, or look at the clock and --at",
        Class::Revoked => "do not believe it any more",
        Class::Policy => "ask for what you want with --policy",
    };
    Error::Refused {
        message: format!("{}: {refusal}: {remedy}", file.display()),
        code: exit::of_refusal(refusal.rule),
    }
}
