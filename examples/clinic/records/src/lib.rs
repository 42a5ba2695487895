//! Records of a clinic: a line each, how they travel, and what is counted of them.
//!
//! * [`record`]: a line, `patient,district,age,systolic,diastolic`
//! * [`cipher`]: chunks of lines, and a table, under a key that the clinic has made
//! * [`gift`]: what client and enclave say when the key changes hands
//! * [`tally`]: the table: patients of a district and an age
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cipher;
pub mod gift;
pub mod record;
pub mod tally;

pub use cipher::{DataKey, Unauthentic};
pub use record::{BadRecord, Record};
pub use tally::{HEADER, Tally};
