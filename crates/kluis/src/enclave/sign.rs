//! `kluis enclave sign`: by a key here, or in two steps by a key elsewhere.

use super::args::{SignArgs, Stated};
use super::project::Project;
use super::{build, keys};
use crate::exit::{self, Error};
use enclave_image::inspect;
use enclave_image::sigstruct::{self, Signature};
use enclave_image::{Config, Statement};
use sgx_abi::{AttributeFlags, Sigstruct};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Does what was asked.
///
/// # Errors
/// It cannot be signed.
pub(super) fn main(args: &SignArgs, json: bool) -> Result<u8, Error> {
    let stream = stream(&args.what)?;
    let mrenclave = build::read_stream(&stream)?.measure();
    let beside = stream.with_extension("sig");
    let output = args.output.clone().unwrap_or_else(|| beside.clone());
    let refuse = |e: sigstruct::SigstructError| Error::bad(format!("cannot sign {}: {e}", stream.display()));
    let sig = match (&args.key, &args.digest, &args.signature, &args.public_key) {
        (None, Some(digest), None, _) => {
            let statement = statement(&args.stated, mrenclave, &beside)?;
            build::write(digest, &statement.digest())?;
            return told_digest(digest, json);
        }
        (None, Some(digest), Some(signature), Some(public_key)) => {
            if args.stated != Stated::default() {
                return Err(Error::bad(
                    "what is stated is in the digest already: give --product, --svn ... with the first step",
                ));
            }
            let digest = read(digest)?;
            let stated = sigstruct::of_digest(&digest).map_err(refuse)?;
            if stated.enclavehash != mrenclave {
                return Err(Error::bad(format!(
                    "the digest is of another enclave than {} (SGX_INVALID_MEASUREMENT): make it again",
                    stream.display()
                )));
            }
            let raw = Signature::read(&read(signature)?)
                .map_err(|e| Error::bad(format!("the signature {} {e}", signature.display())))?;
            sigstruct::seal(&digest, &raw, &keys::public(public_key)?).map_err(refuse)?
        }
        (Some(key), ..) => {
            statement(&args.stated, mrenclave, &beside)?.sign(&keys::private(key)?).map_err(refuse)?
        }
        // clap demands one of these
        _ => return Err(Error::bad("give --key, or --digest: see `kluis enclave sign --help`")),
    };
    build::write(&output, &sigstruct::write(&sig))?;
    told(&output, &sig, json)
}

/// The stream that is meant: a file, or an enclave of the project.
pub(super) fn stream(what: &Path) -> Result<PathBuf, Error> {
    if what.extension().is_some() || what.components().count() != 1 || what.is_file() {
        return Ok(what.to_owned());
    }
    let project = Project::find(None)?;
    let name = what.to_string_lossy();
    if !project.enclaves.iter().any(|enclave| enclave.name == name) {
        let names: Vec<_> = project.enclaves.iter().map(|enclave| enclave.name.as_str()).collect();
        return Err(Error::bad(format!("{name} is no enclave of the project: it has {}", names.join(", "))));
    }
    let (stream, _) = build::names(&project.output(), &name);
    if !stream.is_file() {
        return Err(Error::bad(format!("{name} is not built yet: `kluis enclave build` does that")));
    }
    Ok(stream)
}

/// What `beside` states of this enclave, or the least that can be, with the options.
fn statement(stated: &Stated, mrenclave: [u8; 32], beside: &Path) -> Result<Statement, Error> {
    let date = match &stated.date {
        Some(text) => sigstruct::date(text).map_err(|e| Error::bad(format!("--date {e}")))?,
        None => today()?,
    };
    let found = fs::read(beside).ok().and_then(|bytes| sigstruct::read(&bytes).ok());
    let found = found.filter(|sig| sig.enclavehash == mrenclave).as_ref().map(Statement::of);
    let mut statement = found.unwrap_or_else(|| Config::default().statement(mrenclave, date));
    statement.date = date;
    statement.isvprodid = stated.product.unwrap_or(statement.isvprodid);
    statement.isvsvn = stated.svn.unwrap_or(statement.isvsvn);
    if let Some(id) = stated.family_id {
        statement.isvfamilyid = id.0;
    }
    if let Some(id) = stated.extended_product_id {
        statement.isvextprodid = id.0;
    }
    let flags = &mut statement.attributes.flags;
    if stated.family_id.is_some() || stated.extended_product_id.is_some() {
        *flags |= AttributeFlags::KSS;
    }
    if flags.contains(AttributeFlags::DEBUG) && !stated.debug {
        eprintln!("kluis: it was a debug enclave and is none any more: --debug keeps it one");
    }
    flags.set(AttributeFlags::DEBUG, stated.debug);
    Ok(statement)
}

fn told_digest(digest: &Path, json: bool) -> Result<u8, Error> {
    if json {
        crate::print_json(&serde_json::json!({ "digest": digest }))?;
    } else {
        let file = digest.display();
        crate::print(&format!(
            "{file}: sign these bytes with RSASSA-PKCS1-v1_5 and SHA-256, then give the signature with\n  \
             --digest {file} --signature FILE --public-key FILE\n"
        ))?;
    }
    Ok(exit::OK)
}

fn told(output: &Path, sig: &Sigstruct, json: bool) -> Result<u8, Error> {
    let report = inspect::sigstruct(sig);
    if json {
        crate::print_json(&serde_json::json!({ "file": output, "sigstruct": report }))?;
    } else {
        crate::print(&format!("{}\n{}", output.display(), super::inspect::sigstruct_text(&report)))?;
    }
    Ok(exit::OK)
}

/// Today as SIGSTRUCT has it.
///
/// # Errors
/// The host's clock is before 1970.
pub(super) fn today() -> Result<u32, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| Error::bad("the clock of this host is before 1970: set it, or give --date"))?;
    let text = crate::platform::utc(now.as_secs());
    sigstruct::date(text.split(' ').next().unwrap_or_default()).map_err(Error::bad)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|e| build::cannot("read", file, &e))
}
