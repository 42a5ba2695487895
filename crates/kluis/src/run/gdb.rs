//! The port of a debugger: `--gdb`.

use crate::exit::Error;
use crate::units;
use machine::gdb::Server;

/// Takes the port of a debugger, and tells of it unless it is `silent`.
///
/// # Errors
/// The port cannot be had.
pub(super) fn bind(gdb: units::Gdb, silent: bool) -> Result<Server, Error> {
    let fail = |e| Error::bad(format!("--gdb {}: {e}; choose another port", gdb.address));
    let server = Server::bind(gdb.address).map_err(fail)?;
    let address = server.address().map_err(fail)?;
    if silent {
        return Ok(server);
    }
    let stands = if gdb.waits { "the machine waits for" } else { "the machine can be debugged by" };
    eprintln!("kluis: {stands} gdb at {address}, which has full control of it");
    Ok(server)
}
