//! The command line of `kluis enclave`.

use crate::cli::RunArgs;
use clap::{Args, Subcommand, ValueHint};
use enclave_image::config::Id;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
An enclave is a cargo package like any other, built by stock Rust; what it is made of
stands in its Cargo.toml under [package.metadata.enclave]. Its files, NAME.sgxs and
NAME.sig, are those that a processor with SGX takes, here and on silicon.

Examples:
  kluis enclave new hello && cd hello
  kluis enclave run                                 builds, signs, and calls it in a machine
  kluis enclave test                                #[enclave_test]s, inside
  kluis enclave debug                               gdb, inside
  kluis enclave inspect                             what it is, and what to beware of
  kluis enclave sign hello --key vendor.pem         for production
The guide is docs/enclaves.md.";

const NEW_HELP: &str = "\
The project is whole: an interface, an enclave, a host program, and the SDK that it is
built with, in its folder sdk. Keep all of it under version control: the SDK is part of
what is measured.

Example:
  kluis enclave new hello && cd hello && kluis enclave run";

const BUILD_HELP: &str = "\
The same sources give the same MRENCLAVE, in whatever folder; Cargo.lock and the compiler's
version are part of the sources. What is written to target/enclave is signed with a key
of yours for development, made on first use. Of [package.metadata.enclave]:

  heap = \"1M\"               memory that is there from the start
  heap-limit = \"64M\"        what it may grow to on machines with SGX2
  stack = \"128K\"            of each thread
  threads = 4               that can be inside at once
  product = 0, svn = 0      numbers of the signer's: product, and security version
  debug = false             whether debuggers of the host may look in
  family-id, extended-product-id = \"32 hexadecimal digits\"; kss = false
  provision-key = false     whether it may derive keys that identify the platform
  exinfo = false            details of page faults in the enclave; needs SGX2

With --encrypted the file holds the program (code, constants, data) as ciphertext, and a small
loader in clear, which takes the key from the host program (enclave_host::Options::keys),
decrypts, and seals the key for the next start. The key is made at the first such build and
stays in target/enclave/NAME.key, mode 0600: whoever has it reads the program, so hand on
NAME.sgxs and NAME.sig without it. The same sources and the same key give the same MRENCLAVE.
On machines with SGX2 code is no longer writable once it is decrypted; on others it stays so.

Examples:
  kluis enclave build
  kluis enclave build --encrypted
  openssl rand -hex 32 > release.key && chmod 600 release.key
  kluis enclave build --encrypted --encryption-key release.key
  kluis enclave build --json | jq -r '.[].mrenclave'";

const SIGN_HELP: &str = "\
What is stated (product, version, attributes) is what `build` has taken from Cargo.toml;
options say otherwise. An enclave for production cannot be a debug enclave: DEBUG is
cleared unless --debug.

`build` and `run` keep a signature as long as the enclave is the same, unless it is by your
key for development: then they sign anew what Cargo.toml states. What is to last with that
key, e.g. svn, belongs there.

With a key that does not leave its vault, in two steps:
  kluis enclave sign hello --digest hello.tbs
  openssl dgst -sha256 -sign vendor.pem -out hello.raw hello.tbs     there
  kluis enclave sign hello --digest hello.tbs --signature hello.raw --public-key vendor.pub

Examples:
  openssl genrsa -3 -out vendor.pem 3072
  kluis enclave sign hello --key vendor.pem
  kluis enclave sign other.sgxs --key vendor.pem --product 7 --svn 2";

const INSPECT_HELP: &str = "\
Without a name, the enclaves of the project. SGXS and SIGSTRUCT files may be of anybody's
making; of two files with the same name, NAME.sgxs and NAME.sig, it is told whether they
belong together. Ends with 2 if a processor would refuse it.

Examples:
  kluis enclave inspect
  kluis enclave inspect --json their.sgxs | jq -r .stream.mrenclave
  kluis enclave inspect their.sig --signer their.pub";

const RUN_HELP: &str = "\
Builds the project, and runs its host program in a new machine, in the folder with the
enclaves. Options are those of `kluis run`; streams and the exit code are the program's.
With --signer it runs only if all enclaves are that signer's; that a host program loads no
others is a matter of its own (enclave_host::Options::signer). With --encrypted NAME.key goes
into the machine with the rest, where root can read it: docs/enclaves.md says what is
protected against whom.

Examples:
  kluis enclave run
  kluis enclave run --size Standard_DC2s_v3 -- --name Ada
  kluis enclave run --signer vendor.pub
  kluis enclave run --encrypted
  kluis enclave run --share data:/data --publish 7000:7000
  kluis enclave run --vsock-listen 7000=/tmp/office -- vsock:7000";

const TEST_HELP: &str = "\
Builds the enclaves with their #[enclave_test]s, and runs each of these in an enclave, in a
machine. Ends with 1 if one fails.

Examples:
  kluis enclave test
  kluis enclave test seal --size Standard_DC2s_v3
  kluis enclave test --nocapture greets";

const DEBUG_HELP: &str = "\
Builds the project anew beside what `run` uses, unoptimised and as debug enclaves, and runs
its host program in a machine. When the enclave is loaded, before anything of it has run, the
machine stands, its threads are opted in to debugging, and gdb comes, with the enclave's
symbols at their place; it goes on to the first breakpoint. From there: next, step, backtrace,
info locals, print, set var. The host program has to allow debug enclaves, as that of
`kluis enclave new` does where it is built for this: allow_debug(cfg!(debug_assertions)).

An enclave for production is closed to every debugger; so is one of --release unless its
Cargo.toml says `debug = true`. gdb's commands may come by standard input. What the host
program prints is seen beside gdb's; it has no input of its own. With --gdb no gdb is started:
how to, stands on standard error then, for a debugger of an editor as well.

Examples:
  kluis enclave debug
  kluis enclave debug --break main.rs:15 -- Ada
  kluis enclave debug --debugger rust-gdb --break hello::check
  kluis enclave debug --gdb 127.0.0.1:1234
  printf 'backtrace\ninfo locals\n' | kluis enclave debug --quiet --break main.rs:15";

/// What to do with enclaves.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EnclaveCommand {
    /// Make a project of an enclave, its host program and their interface
    #[command(after_help = NEW_HELP)]
    New {
        /// The project's name, and that of its folder
        name: String,
    },
    /// Build the enclaves of the project, and its host program
    #[command(after_help = BUILD_HELP)]
    Build(BuildArgs),
    /// Sign an enclave with a key of yours, or with one elsewhere in two steps
    #[command(after_help = SIGN_HELP)]
    Sign(Box<SignArgs>),
    /// Tell what enclaves are, also of other people's making
    #[command(after_help = INSPECT_HELP)]
    Inspect {
        /// Enclaves of the project by name, NAME.sgxs or NAME.sig
        #[arg(value_name = "ENCLAVE|FILE", value_hint = ValueHint::FilePath)]
        what: Vec<PathBuf>,
        /// Refuse what is not signed by this signer: MRSIGNER, or a file with the key, in PEM
        #[arg(long, value_name = "MRSIGNER|FILE", value_hint = ValueHint::FilePath)]
        signer: Option<String>,
    },
    /// Build the project and run its host program in a machine
    #[command(after_help = RUN_HELP)]
    Run {
        /// Refuse enclaves that are not signed by this signer: MRSIGNER, or a file with the
        /// key, in PEM
        #[arg(long, value_name = "MRSIGNER|FILE", value_hint = ValueHint::FilePath)]
        signer: Option<String>,
        #[command(flatten)]
        build: BuildArgs,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Run the tests inside of the enclaves
    #[command(after_help = TEST_HELP)]
    Test {
        /// Only tests whose names contain this
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
        /// Show what tests print at once, not only at the end of those that fail
        #[arg(long)]
        nocapture: bool,
        #[command(flatten)]
        build: BuildArgs,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Run the host program with gdb in one of its enclaves
    #[command(after_help = DEBUG_HELP)]
    Debug {
        #[command(flatten)]
        what: Box<DebugArgs>,
        #[command(flatten)]
        build: BuildArgs,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
}

/// What to debug, and with what.
#[derive(Clone, Debug, Args)]
pub(crate) struct DebugArgs {
    /// Enclave of the project [default: the only one]
    pub(crate) enclave: Option<String>,
    /// Where to stop first, as gdb has it (repeatable) [default: at the first call of the
    /// interface, enclave_dispatch]
    #[arg(long = "break", value_name = "LOCATION")]
    pub(crate) breaks: Vec<String>,
    /// The gdb to start, such as rust-gdb
    #[arg(long, value_name = "PROGRAM", default_value = "gdb", value_hint = ValueHint::CommandName)]
    pub(crate) debugger: PathBuf,
    /// Debug what `run` runs, optimised
    #[arg(long)]
    pub(crate) release: bool,
}

/// What to build.
#[derive(Clone, Debug, Args)]
pub(crate) struct BuildArgs {
    /// The project [default: the one that this folder is part of]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) project: Option<PathBuf>,
    /// Build with what is here: cargo does not use the network
    #[arg(long)]
    pub(crate) offline: bool,
    /// Encrypt the enclaves' programs: the files then hold ciphertext, and NAME.key beside them
    /// the key
    #[arg(long)]
    pub(crate) encrypted: bool,
    /// Encrypt with this key, 64 hexadecimal digits [default: NAME.key, made on first use]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "encrypted")]
    pub(crate) encryption_key: Option<PathBuf>,
}

/// What to sign, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct SignArgs {
    /// An enclave of the project by name, or NAME.sgxs
    #[arg(value_name = "ENCLAVE|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) what: PathBuf,
    /// Private key: RSA of 3072 bits with exponent 3, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "digest")]
    pub(crate) key: Option<PathBuf>,
    /// In two steps: what is to be signed, written by the first, read by the second
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "key")]
    pub(crate) digest: Option<PathBuf>,
    /// Second step: the signature, 384 bytes
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires_all = ["digest", "public_key"])]
    pub(crate) signature: Option<PathBuf>,
    /// Second step: the signer's public key, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "signature")]
    pub(crate) public_key: Option<PathBuf>,
    /// Where to write the SIGSTRUCT [default: NAME.sig beside the enclave]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) stated: Stated,
}

/// What a signer states other than `build` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct Stated {
    /// Product number (ISVPRODID)
    #[arg(long, value_name = "N")]
    pub(crate) product: Option<u16>,
    /// Security version (ISVSVN)
    #[arg(long, value_name = "N")]
    pub(crate) svn: Option<u16>,
    /// Product family (ISVFAMILYID): 32 hexadecimal digits; needs a processor with KSS
    #[arg(long, value_name = "HEX")]
    pub(crate) family_id: Option<Id>,
    /// Extended product number (ISVEXTPRODID), likewise
    #[arg(long, value_name = "HEX")]
    pub(crate) extended_product_id: Option<Id>,
    /// Day of the signature [default: today, UTC]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) date: Option<String>,
    /// A debug enclave, which debuggers of the host may look into
    #[arg(long)]
    pub(crate) debug: bool,
}
