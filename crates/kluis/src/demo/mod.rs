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
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

The first time cargo builds the enclave, which takes minutes; then the story takes half a minute.
What protects nothing here: whoever controls this host controls the processor that Kluis is.

Exit codes: 0 all of it held; 1 something did not; 2, 125 and 128 + N as ever.

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
    match (interrupted.load(Ordering::Relaxed), told) {
        (0, Ok(())) => story.end(None).map(|()| exit::OK),
        (0, Err(Error::Unmet(what))) => story.end(Some(&what)).map(|()| exit::UNMET),
        (0, Err(error)) if json => story.end(Some(&error.to_string())).and(Err(error)),
        (0, Err(error)) => Err(error),
        (signal, _) => Ok(exit::of_signal(i32::try_from(signal).unwrap_or(SIGINT))),
    }
}

/// Becomes the number of the signal that is to end us, so that machines and files are cleared
/// away; the second one ends us at once.
fn interrupted() -> Result<Interrupted, Error> {
    let told = Interrupted::default();
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(exit::of_signal(signal));
        // in this order: the first of them finds the flag not set yet
        flag::register_conditional_shutdown(signal, code, again.clone())
            .and_then(|_| flag::register(signal, again.clone()))
            .and_then(|_| flag::register_usize(signal, told.clone(), signal.unsigned_abs() as usize))
            .map_err(|e| Error::failed(format!("cannot wait for signals: {e}")))?;
    }
    Ok(told)
}

/// The signal that is to end us, or 0.
type Interrupted = Arc<AtomicUsize>;
