//! What comes from the guest's ports.

use super::session::Event;
use super::streams::Outlet;
use agent_proto::{PORT_CONTROL, PORT_STDERR, PORT_STDIN, PORT_STDOUT};
use devices::virtio::console::PortConfig;
use std::sync::mpsc::Sender;

/// What comes from the guest's ports.
pub(super) struct Incoming {
    pub(super) control: Outlet,
    pub(super) stdout: Outlet,
    pub(super) stderr: Outlet,
}

impl Incoming {
    pub(super) fn new(events: &Sender<Event>) -> Self {
        let events = events.clone();
        // nobody listens any more at the end of the session
        let notify = move || drop(events.send(Event::Control));
        Self { control: Outlet::notifying(notify), stdout: Outlet::new(), stderr: Outlet::new() }
    }

    /// The ports in the order in which `Run::with_agent` takes their ends.
    pub(super) fn ports(&self) -> Vec<PortConfig> {
        let port = |name: &str, sink: Outlet| PortConfig {
            name: name.into(),
            console: false,
            sink: Box::new(sink),
            on_event: None,
        };
        vec![
            port(PORT_CONTROL, self.control.clone()),
            // the guest has nothing to say here
            port(PORT_STDIN, {
                let nowhere = Outlet::new();
                nowhere.close();
                nowhere
            }),
            port(PORT_STDOUT, self.stdout.clone()),
            port(PORT_STDERR, self.stderr.clone()),
        ]
    }
}
