//! Stream sockets of the family `AF_VSOCK` (*vsock(7)*). The standard library has none,
//! but treats a connected one as one of its own.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

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

pub(crate) fn connect(cid: u32, port: u32) -> io::Result<UnixStream> {
    let socket = socket()?;
    let to = address(cid, port);
    // SAFETY: the address is a whole `sockaddr_vm` of that length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), ADDRESS_LEN) })?;
    Ok(socket.into())
}

/// Listens on a port, for whoever comes.
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
    let (fd, none) = (listener.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: no address is asked for, so both pointers may be null.
    let fd = check(unsafe { libc::accept4(fd, none, none.cast(), libc::SOCK_CLOEXEC) })?;
    // SAFETY: the descriptor has just been made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}
