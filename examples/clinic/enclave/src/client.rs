//! A client's connection, and the one thing that it is for: a key of records.

use alloc::vec::Vec;

use clinic_records::DataKey;
use clinic_records::cipher::KEY_SIZE;
use clinic_records::gift::{KEPT, KEY};
use enclave_tls::{Connection, TlsError};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of [`KEY`] and the key.
const GIFT: usize = KEY.len() + KEY_SIZE;

/// Who brings a key.
pub(crate) struct Client {
    connection: Connection,
    said: Zeroizing<Vec<u8>>,
    key: Option<DataKey>,
    /// Whether there is no more to come.
    over: bool,
}

impl Client {
    pub(crate) fn new(connection: Connection) -> Self {
        // as long as it will be: one that grows leaves copies behind
        Self { connection, said: Zeroizing::new(Vec::with_capacity(GIFT)), key: None, over: false }
    }

    /// Takes what came from the network; whether that was all.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> bool {
        // after an error there is an alert to send, and nothing more to hear
        self.over = self.over || self.listen(bytes).unwrap_or(true);
        if self.over {
            self.said.zeroize();
        }
        self.over
    }

    fn listen(&mut self, bytes: &[u8]) -> Result<bool, TlsError> {
        self.connection.receive(bytes)?;
        let heard = Zeroizing::new(self.connection.take_received());
        if heard.len() > GIFT - self.said.len() {
            self.connection.close()?;
            return Ok(true);
        }
        self.said.extend_from_slice(&heard);
        let Some((tag, key)) = self.said.split_first_chunk().filter(|_| self.said.len() == GIFT) else {
            // gone without a key
            let ended = self.connection.is_ended();
            if ended {
                self.connection.close()?;
            }
            return Ok(ended);
        };
        if tag == KEY {
            self.key = DataKey::new(key);
            self.connection.send(KEPT)?;
        }
        self.connection.close()?;
        Ok(true)
    }

    /// The key, if it has just come.
    pub(crate) fn take_key(&mut self) -> Option<DataKey> {
        self.key.take()
    }

    pub(crate) fn take_outgoing(&mut self) -> Vec<u8> {
        self.connection.take_outgoing()
    }
}
