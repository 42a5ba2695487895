//! A client of the enclave: the host passes bytes, and understands none of them.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use clinic_interface::ClinicClient;
use enclave_host::Enclave;
use enclave_host::transport::Listener;
use serde_json::{Value, json};

use crate::Failure;

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves the next client that comes.
///
/// # Errors
/// It goes within, or the enclave refuses what it says.
pub(crate) fn one(enclave: &Enclave, listener: &Listener) -> Result<Value, Failure> {
    let clinic = ClinicClient(enclave);
    clinic.accept()??;
    let mut stream = listener.accept()?;
    let mut buffer = vec![0; 16 << 10];
    let (mut incoming, mut outgoing, mut kept) = (0, 0, false);
    loop {
        let count = match stream.until(Instant::now() + PATIENCE).read(&mut buffer) {
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(format!("the client's connection: {e}").into()),
        };
        incoming += count;
        let exchanged = clinic.exchange(&buffer[..count])??;
        kept |= exchanged.kept;
        outgoing += exchanged.out.len();
        let told = stream.until(Instant::now() + PATIENCE).write_all(&exchanged.out);
        if exchanged.over || count == 0 {
            // a client that refuses does not wait for the answer
            return Ok(json!({ "kept": kept, "in": incoming, "out": outgoing }));
        }
        told?;
    }
}
