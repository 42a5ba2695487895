//! The command line of `kluis attest`.

use super::endpoint::Endpoint;
use crate::units;
use clap::{Args, Subcommand, ValueHint};
use dcap::Time;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
A quote is an enclave's report, signed so that somebody far away can tell which enclave it
is, on which processor, at which patch level. Whoever verifies one needs

  * a root: whom they believe about processors. Without --root it is Intel's;
  * collateral: certificates, revocation lists and TCB levels, signed below that root;
  * a policy: what they want of the enclave and its platform.

Examples:
  kluis attest quote 127.0.0.1:7000 -o quote.bin      of an enclave that serves RA-TLS there
  kluis attest inspect quote.bin
  kluis attest verify quote.bin --collateral collateral.json
  kluis attest verify quote.bin --collateral collateral.json --root root.pem --policy policy.json
  kluis attest verify quote.bin --accept-software-platform        of a machine on your platform
Rules and their names: docs/quotes.md; exit codes: docs/exit-codes.md.";

const QUOTE_HELP: &str = "\
The enclave answers by RA-TLS: a quote in its certificate binds the key of its TLS. The
handshake is done as a whole, so the server has that key; then the connection is ended. The
quote is written as it is. Whether it is genuine and of the enclave that you want is not
looked at: `kluis attest verify` does that.

Exit codes: 10 certificate or quote malformed, 11 truncated, 12 too large, 13 of a kind that
is not known, 14 not signed by its key, 22 evidence of another key, 23 no enclave answers: no
TLS 1.3, no evidence, no answer; 2 nobody can be reached, or the file cannot be written.

Examples:
  kluis run --publish 7000:7000 -- my-server &          in a machine, with an enclave in it
  kluis attest quote 127.0.0.1:7000 -o quote.bin && kluis attest verify quote.bin
  kluis run --vsock-listen 7000=/tmp/enclave -- my-server &
  kluis attest quote /tmp/enclave | kluis attest inspect /dev/stdin
  kluis attest quote enclave.example:443 --json | jq -r .report.mrenclave";

const VERIFY_HELP: &str = "\
Without a policy the platform must be UpToDate and the enclave not one for debugging,
whichever it is; say which with a policy, a file of JSON:

  { \"mrsigner\": \"64 hexadecimal digits\",      or \"mrenclave\"
    \"isv_prod_id\": 0, \"min_isv_svn\": 1,
    \"report_data\": \"hexadecimal digits\",       the nonce or hash that you asked for
    \"accept_tcb\": [\"UpToDate\", \"SWHardeningNeeded\"],
    \"accept_debug\": false, \"accept_software_platform\": false }

A platform whose root is not Intel's is software: its owner can read every enclave on it.
So it is refused, unless you name its root with --root, or accept your own platform's with
--accept-software-platform. For quotes of your own platform no collateral is needed.

Exit codes: 0 genuine and accepted; 10 malformed, 11 truncated, 12 too large, 13 of a kind
that is not verified, 14 not genuine, 15 below another root, 16 not valid at this time,
17 revoked, 18 a software platform, 19 the TCB's status, 20 a debug enclave, 21 another
enclave, 22 other report data; 2 for options and their files.

Examples:
  kluis attest verify quote.bin --collateral collateral.json --at 2025-06-20T00:00:00Z
  kluis attest verify quote.bin --root root.pem --collateral collateral.json --json | jq .verdict.tcb";

/// What to do with a quote.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AttestCommand {
    /// Get the quote of an enclave that serves RA-TLS; nobody is believed yet
    #[command(after_help = QUOTE_HELP)]
    Quote(QuoteArgs),
    /// Is this quote genuine, and does a policy accept it?
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Tell what a quote says, of any version; nothing of it is verified
    #[command(after_help = "Example:\n  kluis attest inspect quote.bin --json | jq .report.mrenclave")]
    Inspect {
        /// The quote
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Whose quote, and where to.
#[derive(Clone, Debug, Args)]
pub(crate) struct QuoteArgs {
    /// Where the enclave answers: a port, such as one of `kluis run --publish`; or the path of
    /// a Unix socket, such as one of `kluis run --vsock-listen`
    #[arg(value_name = "HOST:PORT|SOCKET", value_hint = ValueHint::AnyPath, value_parser = Endpoint::parse)]
    pub(super) endpoint: Endpoint,
    /// Write the quote to this file [default: standard output, if it is no terminal]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) output: Option<PathBuf>,
    /// Wait no longer than this for the enclave: 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::duration)]
    pub(super) timeout: Duration,
}

/// What to verify, and by what.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The quote
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: PathBuf,
    /// Collateral in JSON, with the names of Intel's sgx_ql_qve_collateral_t, as other
    /// verifiers have it and `kluis platform export` writes it [default: that of your own
    /// platform, for its quotes]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) collateral: Option<PathBuf>,
    /// Believe this root certificate, PEM or DER, and none else [default: Intel's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) root: Option<PathBuf>,
    /// Verify as of this time, such as 2026-01-31T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) at: Option<Time>,
    /// What is wanted of enclave and platform, in JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) policy: Option<PathBuf>,
    /// Accept your own platform, the one of --platform, and believe its root
    #[arg(long)]
    pub(super) accept_software_platform: bool,
}

fn time(text: &str) -> Result<Time, String> {
    text.parse().map_err(|_| "is no time: write it as 2026-01-31T00:00:00Z".to_owned())
}
