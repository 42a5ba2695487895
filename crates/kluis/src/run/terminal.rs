//! The host's terminal: raw while the guest has it, and always given back.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// How the terminal was before it was made raw. Global, because a panicking
/// thread must be able to give it back.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a person sits at standard input and output.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The terminal's rows and columns; 24 and 80 where it has none.
pub(crate) fn size() -> (u16, u16) {
    let known = [rustix::stdio::stdout(), rustix::stdio::stdin()]
        .into_iter()
        .find_map(|fd| tcgetwinsize(fd).ok().filter(|s| s.ws_row > 0 && s.ws_col > 0));
    known.map_or((24, 80), |s| (s.ws_row, s.ws_col))
}

/// The terminal, in raw mode until dropped.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Makes the terminal at standard input raw.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn enter() -> io::Result<Self> {
        give_back_on_panic();
        make_raw()?;
        Ok(Self(()))
    }

    /// Stops this process as Ctrl-Z does, the terminal given back meanwhile.
    pub(crate) fn suspend(&self) {
        give_back();
        stop_process();
        let _ = make_raw();
    }
}

/// Stops this process as Ctrl-Z does; comes back when it is told to go on.
pub(super) fn stop_process() {
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
}

impl Drop for Raw {
    fn drop(&mut self) {
        give_back();
    }
}

fn make_raw() -> io::Result<()> {
    let mut before = before();
    let now = tcgetattr(rustix::stdio::stdin())?;
    let mut raw = now.clone();
    raw.make_raw();
    // kept first: from here on somebody can give it back
    *before = Some(now);
    tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
    Ok(())
}

/// Gives the terminal back as it was; harmless when it was not taken.
fn give_back() {
    if let Some(before) = before().take() {
        // what was typed ahead goes to the shell
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            next(info);
        }));
    });
}
