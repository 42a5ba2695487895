//! The terminal's escape: Ctrl-], as in telnet, and a letter.

/// Ctrl-].
const ESCAPE: u8 = 0x1d;

/// Told at the start of a terminal.
pub(crate) const NOTICE: &str = "Ctrl-] q stops the machine, Ctrl-] ? tells more";

/// What the escape can do, for people.
pub(crate) const HELP: &str = "\
Ctrl-] q       stop the machine at once, as if the power was cut
Ctrl-] p       power off: write out disks first
Ctrl-] Ctrl-]  send Ctrl-] to the guest
Ctrl-] ?       this list";

/// What a person asked for by the escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stop the machine.
    Quit,
    /// Ask the guest to shut down.
    PowerOff,
    /// List the escapes.
    Help,
}

/// Looks for escapes in what is typed.
#[derive(Debug, Default)]
pub(crate) struct Escape {
    /// The last key was Ctrl-].
    pending: bool,
}

impl Escape {
    /// What of `typed` is for the guest, and what was asked for. A Ctrl-] before
    /// any other key goes to the guest with it.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, Vec<Action>) {
        let mut data = Vec::with_capacity(typed.len());
        let mut actions = Vec::new();
        for &key in typed {
            if !std::mem::take(&mut self.pending) {
                match key {
                    ESCAPE => self.pending = true,
                    key => data.push(key),
                }
                continue;
            }
            match key {
                b'q' | b'Q' => actions.push(Action::Quit),
                b'p' | b'P' => actions.push(Action::PowerOff),
                b'?' | b'h' => actions.push(Action::Help),
                ESCAPE => data.push(ESCAPE),
                key => data.extend([ESCAPE, key]),
            }
        }
        (data, actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_found_across_reads() {
        let mut e = Escape::default();
        assert_eq!(e.feed(b"ls\x1d"), (b"ls".to_vec(), vec![]));
        assert_eq!(e.feed(b"qx"), (b"x".to_vec(), vec![Action::Quit]));
        assert_eq!(e.feed(b"\x1d?\x1dp"), (vec![], vec![Action::Help, Action::PowerOff]));
    }

    #[test]
    fn other_keys_pass() {
        let mut e = Escape::default();
        assert_eq!(e.feed(b"\x1d\x1dq"), (b"\x1dq".to_vec(), vec![]));
        assert_eq!(e.feed(b"\x1dz\x03\x00"), (b"\x1dz\x03\x00".to_vec(), vec![]));
    }
}
