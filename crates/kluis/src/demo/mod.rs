//! `kluis demo`: the whole story of the box. Records go into an enclave that has proven what
//! it is, and statistics come out; then come those whom nobody should believe.
//!
//! Nothing in it is put on: machines, enclaves, quotes, TLS and drills are those of the other
//! commands, and each step fails if what it shows does not hold.
//!
//! * [`project`]: the enclave, `examples/clinic`, built here; [`variants`]: what others make of
//!   it
//! * [`machine`]: a machine in a process of its own, and the host program in it
//! * [`client`]: who has the records, outside; [`plain`]: what comes out without any enclave
//! * [`thief`]: who shows another's quote
//! * [`acts`]: the steps; [`story`]: how they are told

mod acts;
mod client;
mod machine;
mod plain;
mod project;
mod story;
mod thief;
mod variants;

use crate::exit::{self, Error};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use story::Story;

pub(crate) const HELP: &str = "\
What happens, each by the program that does it in earnest:

  A machine of the size Standard_DC1s_v2 starts on your platform, and loads an enclave whose
  code is encrypted. The machine's root looks for it and finds nothing. A client outside, this
  process, has it prove by a quote which enclave it is and on which platform, and only then
  gives it a key, in TLS that ends inside. 5000 records go in encrypted, a table comes out
  encrypted, and is compared with one that was counted without an enclave. The key outlasts
  the machine. Then an enclave with a changed byte, a debug build, an older version, a foreign
  platform, a quote that was recorded, and a changed line of EPC memory: each is refused.

The first time cargo builds the enclave, which takes minutes; then the story takes a minute.
What protects nothing here: whoever controls this host controls the processor that Kluis is.

Exit codes: 0 all of it held; 1 something did not; 2 and 125 as ever.

Examples:
  kluis demo
  kluis demo --json | jq -r '.steps[].checks[] | .by + \": \" + .what'";

/// Tells the story, on the platform in `platform`.
///
/// # Errors
/// It cannot be told: cargo, the image or a machine fails. That something does not hold is the
/// exit code 1.
pub(crate) fn main(platform: &Path, json: bool) -> Result<u8, Error> {
    let interrupted = interrupted()?;
    let mut story = Story::new(json);
    let told = acts::all(&mut story, platform, &interrupted);
    if interrupted.load(Ordering::Relaxed) {
        return Ok(exit::of_signal(signal_hook::consts::SIGINT));
    }
    let unmet = match told {
        Ok(()) => None,
        Err(Error::Unmet(what)) => Some(what),
        Err(error) => return Err(error),
    };
    story.end(unmet.as_deref())?;
    Ok(if unmet.is_some() { exit::UNMET } else { exit::OK })
}

/// Is set by the signals that end us, so that machines and files are cleared away.
fn interrupted() -> Result<Arc<AtomicBool>, Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|e| Error::failed(format!("cannot wait for signals: {e}")))?;
    }
    Ok(flag)
}
