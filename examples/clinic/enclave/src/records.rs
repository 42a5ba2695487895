//! Records as they come, chunk by chunk, and what they come to.

use alloc::string::ToString;
use alloc::vec::Vec;

use clinic_interface::Refusal;
use clinic_records::{DataKey, Record, Tally};
use zeroize::Zeroizing;

use crate::failed;

/// How far it is.
#[derive(Default)]
pub(crate) struct Reading {
    /// The chunk that comes next.
    next: u32,
    /// Whether the last has come.
    whole: bool,
    tally: Tally,
}

impl Reading {
    pub(crate) fn take(
        &mut self,
        key: &DataKey,
        number: u32,
        last: bool,
        chunk: &[u8],
    ) -> Result<(), Refusal> {
        if number == 0 {
            *self = Self::default();
        }
        if self.whole || number != self.next {
            return Err(Refusal::Expected(if self.whole { 0 } else { self.next }));
        }
        let lines = key.decrypt_chunk(number, last, chunk).map_err(|_| Refusal::Forged)?;
        let lines = Zeroizing::new(lines);
        let counted = self.count(&lines);
        if counted.is_err() {
            // of a chunk there is all or nothing, and no way back
            *self = Self::default();
            return counted;
        }
        self.next += 1;
        self.whole = last;
        Ok(())
    }

    fn count(&mut self, lines: &[u8]) -> Result<(), Refusal> {
        let bad = |line, why: &dyn ToString| Refusal::Record { line, why: why.to_string() };
        let text = str::from_utf8(lines).map_err(|_| bad(1, &"it is no text"))?;
        for (line, number) in text.lines().zip(1..) {
            let record = Record::read(line).map_err(|why| bad(number, &why))?;
            if !self.tally.count(&record) {
                return Err(bad(number, &"there are too many districts"));
            }
        }
        Ok(())
    }

    pub(crate) fn results(&self, key: &DataKey) -> Result<Vec<u8>, Refusal> {
        if !self.whole {
            return Err(Refusal::Incomplete);
        }
        let mut random = [0; 11];
        getrandom::fill(&mut random).map_err(failed)?;
        key.encrypt_table(random, self.tally.table().as_bytes()).map_err(failed)
    }
}
