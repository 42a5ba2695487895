//! A guest without a machine: a TCP/IP stack of its own on the wire's other end.
//! All traffic stays on the host's loopback.

mod datagrams;
mod frames;
mod tcp;
mod world;
