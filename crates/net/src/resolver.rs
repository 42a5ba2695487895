//! The host's name servers, as the guest sees them: one, that works.

use std::net::{IpAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// A server that has not answered for so long is not asked again for now.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which of the host's name servers is asked.
#[derive(Debug)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddrV4>,
    current: usize,
    /// Since when the current one owes an answer.
    asked: Option<Instant>,
}

impl Resolver {
    pub(crate) fn new(servers: Vec<SocketAddrV4>) -> Self {
        Self { servers, current: 0, asked: None }
    }

    /// The servers of a `resolv.conf` (*resolv.conf(5)*); those with IPv6
    /// addresses are left out.
    pub(crate) fn of_file(text: &str) -> Self {
        let server = |line: &str| {
            let mut words = line.split_whitespace();
            match (words.next()?, words.next()?.parse().ok()?) {
                ("nameserver", IpAddr::V4(ip)) => Some(SocketAddrV4::new(ip, 53)),
                _ => None,
            }
        };
        Self::new(text.lines().filter_map(server).take(3).collect())
    }

    /// The server for now.
    pub(crate) fn server(&self) -> Option<SocketAddrV4> {
        self.servers.get(self.current).copied()
    }

    /// A question is about to be asked.
    pub(crate) fn ask(&mut self, now: Instant) {
        if self.asked.is_some_and(|since| now.duration_since(since) > PATIENCE) {
            self.current = (self.current + 1) % self.servers.len().max(1);
            self.asked = None;
        }
        self.asked.get_or_insert(now);
    }

    /// The server has answered.
    pub(crate) fn answered(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_as_the_resolver_does() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 192.0.2.53\n\
                    nameserver ::1\n  nameserver\t127.0.0.53 # local\nnameserver x\nnameserver";
        let r = Resolver::of_file(text);
        let ips: Vec<_> = r.servers.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["192.0.2.53:53", "127.0.0.53:53"]);
        assert_eq!(Resolver::of_file("").server(), None);
    }

    #[test]
    fn silent_server_is_followed_by_the_next() {
        let mut r = Resolver::of_file("nameserver 192.0.2.1\nnameserver 192.0.2.2");
        let (first, start) = (r.server(), Instant::now());
        r.ask(start);
        r.ask(start + Duration::from_secs(1));
        assert_eq!(r.server(), first);
        r.ask(start + Duration::from_secs(3));
        let second = r.server();
        assert_ne!(second, first);
        r.answered();
        r.ask(start + Duration::from_secs(60));
        assert_eq!(r.server(), second, "it answers");
        r.ask(start + Duration::from_secs(63));
        assert_eq!(r.server(), first);
        Resolver::new(Vec::new()).ask(start);
    }
}
