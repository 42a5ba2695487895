//! The command line of `kluis serve`.

use clap::{Args, Subcommand, ValueHint};
use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Example:
  kluis serve collateral
Paths, headers and forms: docs/collateral.md.";

const COLLATERAL_HELP: &str = "\
What is served follows from the platform and the time: it is never out of date, and
`kluis platform update --advisory` and `revoke` show in the next answer. Nothing of it is
secret; clients must only be told whom to believe:

  * for TLS the certificate of --tls-ca, which can vouch for this host and private
    networks alone;
  * for quotes the platform's root: `kluis platform export`.

Clients of Intel's libraries are pointed here with /etc/sgx_default_qcnl.conf:
  { \"pccs_url\": \"https://localhost:8081/sgx/certification/v4/\" }
A guest reaches it at https://10.0.2.2:8081 with `kluis run --allow-host 8081`.

Ctrl-C and SIGTERM end it, with exit code 0.

Examples:
  kluis serve collateral --tls-ca ca.pem --verbose
  curl --cacert ca.pem 'https://localhost:8081/sgx/certification/v4/tcb?fmspc=4B4C55490001'
  SSL_CERT_FILE=ca.pem PCCS_URL=https://localhost:8081 your-verifier        (dcap-qvl)";

/// Which service.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ServeCommand {
    /// Certificates, revocation lists and TCB levels of your platform, by the paths of Intel's
    /// provisioning certification service (PCS, version 4) and its caches (PCCS)
    #[command(after_help = COLLATERAL_HELP)]
    Collateral(CollateralArgs),
}

/// Where collateral is served.
#[derive(Clone, Debug, Args)]
pub(crate) struct CollateralArgs {
    /// Listen at this address; port 0 lets the host choose one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8081")]
    pub(super) listen: SocketAddr,
    /// Let other hosts connect: --listen may name an address of a private network
    #[arg(long)]
    pub(super) other_hosts: bool,
    /// Write the certificate that TLS clients must believe to this file [default:
    /// collateral-ca.pem in the platform's folder]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) tls_ca: Option<PathBuf>,
    /// Tell of each request on standard error
    #[arg(long)]
    pub(super) verbose: bool,
}
