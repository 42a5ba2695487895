//! The board's devices as a snapshot sees them: each by its name on the board,
//! with the version of its state's meaning.

use std::sync::Mutex;

use devices::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::board::lock;
use crate::snapshot::SnapshotError;

/// What a snapshot keeps of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartState {
    name: String,
    version: u16,
    state: Value,
}

impl PartState {
    /// Whether it is of the device of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name
    }
}

/// A device, without its state's type. Only a [`Device`] can be one, so what
/// cannot be saved is not on the board.
pub(crate) trait Part: Send + Sync {
    /// Version and state.
    fn save(&self) -> serde_json::Result<(u16, Value)>;
    /// Takes over what [`Part::save`] gave.
    fn load(&self, version: u16, state: Value) -> Result<(), String>;
}

impl<D: Device> Part for Mutex<D> {
    fn save(&self) -> serde_json::Result<(u16, Value)> {
        Ok((D::STATE_VERSION, serde_json::to_value(lock(self).save())?))
    }

    fn load(&self, version: u16, state: Value) -> Result<(), String> {
        if version != D::STATE_VERSION {
            return Err(format!("has version {version}, this Kluis reads {}", D::STATE_VERSION));
        }
        let state = serde_json::from_value(state).map_err(|e| format!("is not its state: {e}"))?;
        lock(self).load(state).map_err(|e| format!("does not fit: {e}"))
    }
}

/// Saves all `parts`, in order.
pub(crate) fn save(parts: &[(&str, &dyn Part)]) -> Result<Vec<PartState>, SnapshotError> {
    let one = |&(name, part): &(&str, &dyn Part)| {
        let (version, state) = part.save().map_err(|e| SnapshotError::State(format!("of {name}: {e}")))?;
        Ok(PartState { name: name.into(), version, state })
    };
    parts.iter().map(one).collect()
}

/// Loads all `parts`, in order: they must be those that were saved.
pub(crate) fn load(parts: &[(&str, &dyn Part)], states: Vec<PartState>) -> Result<(), SnapshotError> {
    let names = |names: Vec<&str>| names.join(", ");
    let (have, saved) = (parts.iter().map(|p| p.0), states.iter().map(|s| s.name.as_str()));
    if !have.clone().eq(saved.clone()) {
        let (have, saved) = (names(have.collect()), names(saved.collect()));
        return Err(SnapshotError::Machine(format!("has the devices {saved}, this machine {have}")));
    }
    for ((name, part), state) in parts.iter().zip(states) {
        part.load(state.version, state.state)
            .map_err(|why| SnapshotError::State(format!("of {name} {why}")))?;
    }
    Ok(())
}
