//! What this command keeps in a snapshot beside the machine.

use machine::Snapshot;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Beside the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    /// Identity of the platform that the machine was on.
    pub(crate) platform: String,
    /// What the guest does.
    pub(crate) session: Session,
    /// What a prepared machine was made of; empty for others.
    pub(crate) prepared: String,
}

/// What the guest does, and how far its streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Session {
    /// People are on its serial port.
    Serial,
    /// The agent waits for a command.
    Idle,
    /// A command runs.
    Command {
        /// On a terminal.
        tty: bool,
        /// Its input has ended.
        input_ended: bool,
        /// Bytes of its standard output and errors that the host has had.
        arrived: [u64; 2],
    },
}

impl Owner {
    /// That of a snapshot.
    ///
    /// # Errors
    /// It is not of this version.
    pub(crate) fn of(snapshot: &Snapshot) -> Result<Owner, serde_json::Error> {
        serde_json::from_value(snapshot.about().owner.clone())
    }

    /// As the machine keeps it.
    pub(crate) fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
