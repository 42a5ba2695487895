//! Any device as a register file: accesses, events, snapshots.

use crate::input::Input;
use devices::Device;
use serde_json::Value;

/// Steps of one input at most.
const STEPS: usize = 2000;

/// Does to `device` what the input says; `event` is whatever else can happen
/// to it. Most accesses go to `offsets`.
pub(super) fn registers<D: Device>(
    device: &mut D,
    input: &mut Input<'_>,
    offsets: &[u64],
    mut event: impl FnMut(&mut D, &mut Input<'_>),
) {
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.u8() {
            0xff => device.reset(),
            0xfe => snapshot(device, input),
            0xe0..=0xfd => event(device, input),
            how => access(device, input, offsets, how),
        }
    }
    // Whatever happened, the state is one that can be taken over.
    let state = device.save();
    device.load(state).expect("a state of its own");
}

fn access<D: Device>(device: &mut D, input: &mut Input<'_>, offsets: &[u64], how: u8) {
    let offset = if how & 0x1f == 0 { input.number() } else { input.pick(offsets) };
    let len = match how >> 5 & 3 {
        3 => usize::from(input.u8() % 17),
        n => 1 << n,
    };
    let mut data = [0; 16];
    if how & 0x80 == 0 {
        let bytes = input.bytes(len);
        data[..bytes.len()].copy_from_slice(bytes);
        device.write(offset, &data[..len]);
    } else {
        device.read(offset, &mut data[..len]);
    }
}

/// Saves, changes one number of what was saved, and loads that: a snapshot
/// file is no more trusted than a guest. What is refused must leave the device
/// as it was.
pub(super) fn snapshot<D: Device>(device: &mut D, input: &mut Input<'_>) {
    let before = device.save();
    let mut value = serde_json::to_value(&before).expect("a state is data");
    let count = leaves(&value);
    if count == 0 {
        return;
    }
    let (index, number) = (usize::from(input.u16()) % count, input.number());
    set(&mut value, &mut { index }, number);
    let Ok(state) = serde_json::from_value::<D::State>(value) else { return };
    if device.load(state).is_err() {
        assert_eq!(device.save(), before, "changed by a state it refused");
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(leaves).sum(),
        Value::Object(map) => map.values().map(leaves).sum(),
        _ => 1,
    }
}

/// Replaces leaf number `index`.
fn set(value: &mut Value, index: &mut usize, number: u64) -> bool {
    match value {
        Value::Array(list) => list.iter_mut().any(|v| set(v, index, number)),
        Value::Object(map) => map.values_mut().any(|v| set(v, index, number)),
        leaf if *index == 0 => {
            *leaf = match leaf {
                Value::Bool(old) => Value::Bool(!*old),
                Value::Null => Value::from(number),
                _ if number == 0x7f => Value::Null,
                _ => Value::from(number),
            };
            true
        }
        _ => {
            *index -= 1;
            false
        }
    }
}
