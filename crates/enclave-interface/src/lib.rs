//! The interface of an enclave is a trait, in a crate that both sides depend on.
//!
//! ```
//! use enclave_interface::{Deserialize, Serialize, interface};
//!
//! /// Why there is no greeting.
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! pub enum Refusal {
//!     Nameless,
//! }
//!
//! /// What the enclave does for its host.
//! #[interface]
//! pub trait Hello {
//!     /// Greets somebody.
//!     fn greet(&self, name: &str) -> Result<String, Refusal>;
//! }
//!
//! // one side implements it …
//! struct Polite;
//! impl Hello for Polite {
//!     fn greet(&self, name: &str) -> Result<String, Refusal> {
//!         if name.is_empty() { Err(Refusal::Nameless) } else { Ok(format!("Hello, {name}!")) }
//!     }
//! }
//!
//! // … the other calls it, through anything that carries bytes
//! # struct Direct;
//! # impl enclave_interface::Caller for Direct {
//! #     type Error = enclave_interface::DispatchError;
//! #     fn call(&self, function: u32, arguments: &[u8]) -> Result<Vec<u8>, Self::Error> {
//! #         Polite.dispatch(function, arguments)
//! #     }
//! # }
//! let hello = HelloClient(Direct);
//! assert_eq!(hello.greet("Ada").unwrap(), Ok("Hello, Ada!".into()));
//! assert_eq!(hello.greet("").unwrap(), Err(Refusal::Nameless));
//! ```
//!
//! Calls into the enclave and out of it are declared alike; which it is depends on who
//! implements the trait.
//!
//! **What the receiver may rely on.** Arguments and results are decoded from a copy that
//! the other side cannot reach; a message that is not exactly one value of the declared
//! type is refused, with nothing left over; lengths in it are checked against the bytes
//! that are there before memory is taken. No pointer crosses the boundary. What a type
//! cannot say, a newtype with `#[serde(try_from = "…")]` can: it is checked before the
//! function sees it. A collection of zero-sized elements has no honest length and does
//! not belong in an interface.
//!
//! `&str`, `&[u8]` and other borrowing types are possible as parameters: they refer to
//! the receiver's own copy.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
// the attribute's code names this crate
extern crate self as enclave_interface;

#[doc(hidden)]
pub mod wire;

use alloc::vec::Vec;

/// Makes both sides of a boundary of a trait; see the head of this crate.
///
/// For a trait `Name` it adds `NameClient`, whose functions have the same names and
/// parameters and return `Result<…, CallError<…>>`, and a function of the trait that
/// finds the function for a message. Functions take `&self` and are numbered in their
/// order: both sides are built from the same trait.
pub use enclave_macros::interface;
/// For types of an interface; `#[serde(crate = "enclave_interface::serde")]` saves the
/// interface's crate a dependency.
pub use serde::{self, Deserialize, Serialize};

/// What carries calls to the other side.
pub trait Caller {
    /// Why a call did not come through.
    type Error;

    /// Calls the function of this number with encoded arguments; its encoded result.
    fn call(&self, function: u32, arguments: &[u8]) -> Result<Vec<u8>, Self::Error>;
}

impl<C: Caller + ?Sized> Caller for &C {
    type Error = C::Error;

    fn call(&self, function: u32, arguments: &[u8]) -> Result<Vec<u8>, Self::Error> {
        (**self).call(function, arguments)
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// It did not come through.
    Call(E),
    /// The other side's result is no value of the declared type.
    Result,
    /// The arguments cannot be encoded.
    Arguments,
}

impl<E: core::fmt::Display> core::fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Result => f.write_str(
                "the result is not of the declared type: build both sides from the same interface, or distrust the other",
            ),
            Self::Arguments => f.write_str("the arguments cannot be encoded: give sequences a known length"),
        }
    }
}

impl<E: core::error::Error> core::error::Error for CallError<E> {}

/// Why a message led to no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispatchError {
    /// The interface has no function of this number.
    NoFunction,
    /// The arguments are no values of the declared types.
    Arguments,
    /// The result cannot be encoded.
    Result,
}

impl core::fmt::Display for DispatchError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoFunction => "there is no such function",
            Self::Arguments => "the arguments are not of the declared types",
            Self::Result => "the result cannot be encoded",
        })
    }
}

impl core::error::Error for DispatchError {}
