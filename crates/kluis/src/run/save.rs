//! A snapshot of the machine that runs, taken by the session: between two frames of
//! its conversation with the agent, so that another host can go on with it.

use super::session::Event;
use crate::control::{Answer, TakeSnapshot};
use crate::snapshot::owner::{Owner, Session};
use crate::units;
use machine::Running;
use serde_json::json;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::time::{Duration, Instant};

/// How long the session may take to come between two frames.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two words on how far it is.
const WORD: Duration = Duration::from_millis(200);

/// What becomes known of a wish.
pub(crate) enum Reply {
    /// Bytes done, and all.
    Progress(u64, u64),
    Answer(Result<Answer, String>),
}

/// A wish for a snapshot.
pub(crate) struct Request {
    machine: Arc<Running>,
    file: File,
    stop: bool,
    platform: String,
    prepared: String,
    reply: Option<SyncSender<Reply>>,
    since: Instant,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

/// What became of a wish.
#[derive(Debug)]
pub(crate) enum Done {
    /// It was answered, and the machine goes on.
    Answered,
    /// There is a snapshot, and the machine has ended with it.
    Stopped,
    /// The moment is not right.
    Later(Request),
    /// Nobody waits for the answer, and there is no snapshot.
    Failed(String),
}

/// What the control socket does when it is asked for a snapshot: it asks the session.
pub(crate) fn on_request(running: &Arc<Running>, platform: &str, events: &Sender<Event>) -> TakeSnapshot {
    let (running, platform, events) = (running.clone(), platform.to_owned(), events.clone());
    Box::new(move |file, stop, told| {
        let (reply, replies) = mpsc::sync_channel(1);
        let request = Request::new(running.clone(), file, stop, &platform, reply);
        events.send(Event::Snapshot(request)).map_err(|_| "the machine ends".to_owned())?;
        for reply in replies {
            match reply {
                Reply::Progress(done, all) => told(done, all),
                Reply::Answer(answer) => return answer,
            }
        }
        Err("the machine ended before that".into())
    })
}

impl Request {
    /// A snapshot of `machine` into `file`; the machine ends then if it is to
    /// `stop`. `reply` gets the answer.
    pub(crate) fn new(
        machine: Arc<Running>,
        file: File,
        stop: bool,
        platform: &str,
        reply: SyncSender<Reply>,
    ) -> Self {
        let (platform, prepared, since) = (platform.into(), String::new(), Instant::now());
        Self { machine, file, stop, platform, prepared, reply: Some(reply), since }
    }

    /// A snapshot for others to start from, with which the machine ends.
    pub(crate) fn prepared(machine: Arc<Running>, file: File, platform: &str, of: &str) -> Self {
        let (platform, prepared, since) = (platform.into(), of.into(), Instant::now());
        Self { machine, file, stop: true, platform, prepared, reply: None, since }
    }

    /// It cannot be.
    pub(crate) fn refuse(self, why: impl Into<String>) -> Done {
        let why = why.into();
        match self.reply {
            Some(reply) => {
                // who asked may have gone
                let _ = reply.send(Reply::Answer(Err(why)));
                Done::Answered
            }
            None => Done::Failed(why),
        }
    }

    /// Takes it, if `session` says what is to be kept; it is asked while nothing
    /// moves.
    pub(crate) fn serve(self, session: impl FnOnce() -> Option<Session>) -> Done {
        if let Err(e) = self.machine.can_be_saved(self.stop) {
            return self.refuse(e.to_string());
        }
        let paused = match self.machine.pause() {
            Ok(paused) => paused,
            Err(e) => return self.refuse(e.to_string()),
        };
        let Some(session) = session() else {
            if self.since.elapsed() < PATIENCE {
                return Done::Later(self);
            }
            return self.refuse("the guest's agent is in the middle of a message: try again");
        };
        let owner = Owner { platform: self.platform.clone(), session, prepared: self.prepared.clone() };
        let mut last = Instant::now();
        let mut told = |done, all| {
            if last.elapsed() < WORD {
                return;
            }
            last = Instant::now();
            if let Some(reply) = &self.reply {
                // who is slow to listen misses one
                let _ = reply.try_send(Reply::Progress(done, all));
            }
        };
        let contents = match self.machine.save(&paused, owner.value(), &self.file, &mut told) {
            Ok(contents) => contents,
            Err(e) => return self.refuse(e.to_string()),
        };
        if self.stop {
            // before it could write to its disks again
            self.machine.stop();
        }
        drop(paused);
        if let Some(reply) = &self.reply {
            let bytes = contents.pages * 4096;
            let text = format!("Snapshot taken: {}.\n", units::bytes(bytes));
            let answer = Answer { text, value: json!({ "pages": contents.pages }) };
            let _ = reply.send(Reply::Answer(Ok(answer)));
        }
        if self.stop { Done::Stopped } else { Done::Answered }
    }
}
