//! How values travel; what the attribute's code calls.

pub use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
pub use serde_bytes::{ByteBuf, Bytes};

use crate::{CallError, Caller, DispatchError};

/// Decodes all of a message, exactly.
fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(message) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// Calls a function.
pub fn call<C: Caller, R: for<'a> Deserialize<'a>>(
    caller: &C,
    function: u32,
    arguments: &impl Serialize,
) -> Result<R, CallError<C::Error>> {
    let arguments = postcard::to_allocvec(arguments).map_err(|_| CallError::Arguments)?;
    let reply = caller.call(function, &arguments).map_err(CallError::Call)?;
    decode(&reply).ok_or(CallError::Result)
}

/// Decodes arguments.
pub fn arguments<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, DispatchError> {
    decode(message).ok_or(DispatchError::Arguments)
}

/// Encodes a result.
pub fn result(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, DispatchError> {
    postcard::to_allocvec(value).map_err(|_| DispatchError::Result)
}
