//! `kluis platform`.

use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

pub(super) const PLATFORM_EXAMPLES: &str = "\
Examples:
  kluis platform init
  kluis platform show --json
  kluis platform backup ~/usb/kluis.backup
  kluis platform restore ~/usb/kluis.backup --passphrase-file words
  kluis platform update --svn-up
  kluis platform export public             what verifiers of its quotes need
  kluis --platform ./second run            a machine on another package";

pub(super) fn platform_help() -> String {
    format!(
        "{PLATFORM_EXAMPLES}\n\n\
A platform stands for one physical processor: the secrets that its maker would
burn into it, from which all keys of enclaves are derived. Here you are the maker.
`kluis run` makes one on first use.

  * Machines on one platform unseal each other's data, as on one processor;
    machines on another platform do not.
  * Whoever loses the folder loses all data sealed on it: make a backup.
  * Whoever reads the folder can derive every key: it is yours alone (mode 0700),
    and Kluis refuses one that is open to others.
  * It is software: it protects enclaves from the VM they are in, not from whoever
    controls the Kluis process, and it is not Intel's root.
  * For quotes of its enclaves it has a root of its own, and all that Intel issues
    for silicon. Give `export`'s files to who shall verify quotes: none is secret.

Several machines may use a platform at once; it is changed only while none does."
    )
}

const UPDATE_HELP: &str = "\
--svn-up is what a microcode update is to a processor: enclaves can ask for keys of
the new version, which no processor of an earlier one can derive, and still for
those of earlier versions, so that they can take their data along.

--advisory makes a weakness known that the next security version mends: quotes of this
one are OutOfDate from now on, wherever today's collateral is used. --svn-up makes new
quotes UpToDate again. It is a drill: what does your verifier do on such a day?

--new-owner-epoch is what an owner does before giving the processor away: from then
on no key unseals what was sealed before. Only a backup made earlier brings it back.";

/// What to do with the platform.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PlatformCommand {
    /// Make one, with secrets of its own; refused where one is
    Init,
    /// Tell which it is; never its secrets
    Show,
    /// Write it, encrypted with a passphrase, to a new file
    ///
    /// The file and the passphrase together *are* the platform: keep both, apart.
    /// A backup stays good when the security version goes up; after
    /// --new-owner-epoch a new one is needed.
    #[command(after_help = "Example:\n  kluis platform backup ~/usb/kluis.backup")]
    Backup {
        /// The file to write; refused if it exists
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        passphrases: Passphrases,
    },
    /// Bring it back from a backup
    #[command(after_help = "Example:\n  kluis platform restore ~/usb/kluis.backup")]
    Restore {
        /// The file to read
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Replace the platform that is there; its file is kept beside the new one
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        passphrases: Passphrases,
    },
    /// Raise its security version, change its owner epoch, or publish an advisory
    #[command(after_help = UPDATE_HELP)]
    Update(UpdateArgs),
    /// Revoke the certificate behind its quotes, until the next security version
    ///
    /// Quotes of this security version, made before or after, are refused from now on
    /// wherever today's revocation lists are used. `update --svn-up` leads to another
    /// key with another certificate. It is a drill: does your verifier look at the lists?
    Revoke,
    /// Write what verifiers of its quotes need to a folder; nothing of it is secret
    ///
    /// root.pem is the root certificate, always the same: give it to whoever shall believe
    /// this platform, by a way that they trust. collateral.json is valid for at least
    /// fifteen days: certificates, revocation lists, TCB levels. pck-chain.pem is the
    /// certificate of the platform's key. For a platform that was made by an earlier
    /// version, or by `kluis run`, it makes the key of its architectural enclaves first.
    #[command(
        after_help = "Example:\n  kluis platform export public\n  kluis attest verify quote.bin --root public/root.pem --collateral public/collateral.json"
    )]
    Export {
        /// The folder to write to; files of these names are replaced
        #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

/// Where a passphrase is from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Passphrases {
    /// Take the passphrase from this file's first line, instead of asking on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// How to change the platform: one of these.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct UpdateArgs {
    /// Go to the next security version (SVN); there is no way back
    #[arg(long)]
    pub(crate) svn_up: bool,
    /// Change the owner epoch: all data sealed before is lost
    #[arg(long)]
    pub(crate) new_owner_epoch: bool,
    /// Publish an advisory of this name, which the next security version mends
    #[arg(long, value_name = "NAME")]
    pub(crate) advisory: Option<String>,
}
