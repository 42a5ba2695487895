//! The end of a machine: what is told of it.

use super::attend::Run;
use super::plan::Access;
use super::session::End;
use super::stats::{Stats, Times};
use super::streams::Outlet;
use super::verdict::{Circumstances, Verdict};
use crate::exit::Error;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait at the end for a slow reader of what came before it.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Lines of the guest's console shown with a failure.
const LAST_LINES: usize = 20;

impl Run<'_> {
    /// Stops the machine, tells what there is to tell.
    pub(super) fn finish(mut self, end: End, json: bool) -> Result<u8, Error> {
        // a processor may wait for a reader of the console
        if let Some(outlet) = &self.console_out {
            settle(&[outlet]);
            outlet.close();
        }
        self.running.stop();
        if let Some(gdb) = &self.gdb {
            gdb.finish();
        }
        self.incoming.stdout.end();
        self.incoming.stderr.end();
        let stopped = Instant::now();
        if !matches!(end, End::Command(_)) {
            settle(&[&self.incoming.stdout, &self.incoming.stderr]);
        }
        self.front.close();
        self.console.finish();

        let own_initrd = self.plan.kernel.is_some() || self.plan.initrd.is_some();
        let verdict = Verdict::of(
            end,
            &Circumstances {
                command: !self.args.command.is_empty(),
                connected: self.times.0.is_some() || matches!(self.plan.access, Access::Serial),
                panicked: self.console.panicked(),
                own_initrd,
                timeout: self.args.timeout,
            },
        );
        self.tell(&verdict);
        let unimplemented = self.running.unimplemented();
        if !self.args.quiet && !unimplemented.is_empty() {
            eprintln!(
                "kluis: the guest met {} instructions that Kluis does not know, the first: {}",
                unimplemented.len(),
                unimplemented[0]
            );
        }
        if self.args.stats || json {
            let times = Times {
                start: self.start,
                init: self.console.init_started(),
                ready: self.times.0,
                ended: self.times.1,
                end: stopped,
            };
            let retired = self.running.retired();
            let sgx = crate::sgx::Epc::of(self.running.sgx());
            let (end, code) = (verdict.ending, verdict.code);
            let stats = Stats::new(self.plan, &times, retired, unimplemented, sgx, end, code);
            if json {
                let text = serde_json::to_string(&stats).map_err(Error::failed)?;
                eprintln!("{text}");
            } else {
                eprint!("{}", stats.text());
            }
        }
        Ok(verdict.code)
    }

    fn tell(&self, verdict: &Verdict) {
        let failed = verdict.code == crate::exit::FAILED;
        if let Some(message) = &verdict.ending.message
            && (failed || !self.args.quiet)
        {
            eprintln!("kluis: {message}");
        }
        if let Some(details) = &verdict.details {
            eprintln!("{details}");
        }
        // on the serial port they have just been seen
        if verdict.show_console && matches!(self.plan.access, Access::Agent { .. }) {
            let lines = self.console.tail(LAST_LINES);
            if lines.is_empty() {
                eprintln!("kluis: the guest wrote nothing on its console");
            } else {
                eprintln!("kluis: last lines of the guest's console:");
                lines.iter().for_each(|line| eprintln!("  {line}"));
            }
        }
    }
}

/// Gives a slow reader some time for what the guest wrote last.
fn settle(outlets: &[&Outlet]) {
    let deadline = Instant::now() + LAST_OUTPUT;
    while !outlets.iter().all(|outlet| outlet.is_flushed()) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}
