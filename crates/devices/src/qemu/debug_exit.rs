//! `isa-debug-exit` (QEMU, `hw/misc/debugexit.c`): a write ends the machine, and
//! what was written is its status. QEMU has it at the port it is told; all
//! images use F4h, 4 ports wide.
//!
//! | threat | guard |
//! |---|---|
//! | exits again and again | reported each time; the board acts once |

use crate::bytes::value;
use crate::device::{Device, StateError};
use std::sync::Arc;

/// Who is told that the guest is done.
///
/// Called with the device locked: note it and act on it from the machine's own loop.
pub trait ExitSink: Send + Sync {
    /// The guest ends the machine with this status.
    fn exit(&self, status: u32);
}

/// The port.
pub struct DebugExit {
    sink: Arc<dyn ExitSink>,
}

impl DebugExit {
    /// Number of ports.
    pub const PORTS: u64 = 4;

    /// A port that reports to `sink`.
    pub fn new(sink: Arc<dyn ExitSink>) -> Self {
        Self { sink }
    }
}

impl Device for DebugExit {
    type State = ();

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(if offset < Self::PORTS { 0 } else { 0xff });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset < Self::PORTS && !data.is_empty() {
            self.sink.exit(value(data) as u32);
        }
    }

    fn reset(&mut self) {}

    fn save(&self) {}

    fn load(&mut self, _state: ()) -> Result<(), StateError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, inb, outb, write};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Exits(Mutex<Vec<u32>>);

    impl ExitSink for Exits {
        fn exit(&self, status: u32) {
            self.0.lock().unwrap().push(status);
        }
    }

    device_tests!(every_device, || Fixture {
        device: DebugExit::new(Arc::new(Exits::default())),
        offsets: vec![0, 1, 2, 3],
        outside: vec![4, 0xf4, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn what_is_written_is_the_status() {
        let exits = Arc::new(Exits::default());
        let mut port = DebugExit::new(exits.clone());
        assert_eq!(inb(&mut port, 0), 0);
        outb(&mut port, 0, 0x7f);
        write(&mut port, 0, 2, 0x1234);
        write(&mut port, 3, 4, 0xffff_fffe);
        port.write(0, &[]);
        assert_eq!(*exits.0.lock().unwrap(), [0x7f, 0x1234, 0xffff_fffe]);
    }
}
