//! Stream sockets of the family `AF_VSOCK` (*vsock(7)*). std has none, but a
//! connected one is as good as one of its own.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The host's address.
const HOST: u32 = 2;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor has just been made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: `sockaddr_vm` is plain data for which zeroes are valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

/// Connects to a port of the host.
pub(crate) fn connect(port: u32) -> io::Result<UnixStream> {
    let socket = socket()?;
    let to = address(HOST, port);
    // SAFETY: the address is a whole `sockaddr_vm` of that length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), ADDRESS_LEN) })?;
    Ok(socket.into())
}

/// Listens on a port of the guest.
pub(crate) fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let at = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address is a whole `sockaddr_vm` of that length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), ADDRESS_LEN) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 64) })?;
    Ok(socket)
}

/// The next connection.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<UnixStream> {
    // SAFETY: no address is asked for, so both pointers may be null.
    let fd =
        check(unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) })?;
    // SAFETY: the descriptor has just been made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}
