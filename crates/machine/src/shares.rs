//! Shared folders: a thread for each answers what the guest asks its file
//! system device, so that a slow disk holds up no processor.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Weak};

use devices::virtio::VirtioPci;
use devices::virtio::fs::{Answer, FileServer, Fs, Request};
use mem::DmaBus;

use crate::board::lock;
use crate::config::MachineError;
use crate::gate::Gate;

/// A folder of the host for the guest.
#[derive(Clone, Debug)]
pub struct Share {
    /// The folder.
    pub path: PathBuf,
    /// The guest may not change anything in it.
    pub read_only: bool,
}

impl Share {
    /// The name by which the guest mounts the share with this number.
    #[must_use]
    pub fn tag(number: usize) -> String {
        format!("share{number}")
    }
}

type Device = Mutex<VirtioPci<Fs, DmaBus>>;

enum Job {
    Request(Request),
    Forget,
}

/// The device's way to the thread.
struct Mailbox {
    jobs: Sender<Job>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl FileServer for Mailbox {
    fn submit(&mut self, request: Request) {
        // the thread lives as long as this sender
        let _ = self.jobs.send(Job::Request(request));
    }
    fn answer(&mut self) -> Option<Answer> {
        lock(&self.answers).pop_front()
    }
    fn forget(&mut self) {
        let _ = self.jobs.send(Job::Forget);
    }
}

/// What the thread is made from, once the device is on its bus.
pub(crate) struct Server {
    share: share::Share,
    number: usize,
    jobs: Receiver<Job>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

/// Opens the folders, in order.
pub(crate) fn open(shares: &[Share]) -> Result<Vec<(Fs, Server)>, MachineError> {
    if shares.is_empty() {
        return Ok(Vec::new());
    }
    let descriptors = share::descriptors() / shares.len();
    let opened = |(number, about): (usize, &Share)| {
        let share = share::Share::open(&about.path, about.read_only, descriptors)
            .map_err(|why| MachineError::Share { path: about.path.clone(), why })?;
        let (sender, jobs) = mpsc::channel();
        let answers = Arc::default();
        let mailbox = Mailbox { jobs: sender, answers: Arc::clone(&answers) };
        let device = Fs::new(&Share::tag(number), Box::new(mailbox));
        Ok((device, Server { share, number, jobs, answers }))
    };
    shares.iter().enumerate().map(opened).collect()
}

impl Server {
    /// Starts the thread; it ends when the device is gone.
    pub(crate) fn start(self, device: Weak<Device>, gate: Arc<Gate>) -> Result<(), MachineError> {
        std::thread::Builder::new()
            .name(Share::tag(self.number))
            .spawn(move || self.run(&device, &gate))
            .map_err(MachineError::Thread)?;
        Ok(())
    }

    fn run(self, device: &Weak<Device>, gate: &Gate) {
        while let Ok(job) = self.jobs.recv() {
            match job {
                Job::Forget => self.share.forget(),
                Job::Request(mut request) => {
                    let mut reply = vec![0; request.room];
                    let len = self.share.answer(&mut request.message, &mut reply);
                    reply.truncate(len);
                    lock(&self.answers).push_back(Answer { ticket: request.ticket, reply });
                    let Some(device) = device.upgrade() else { return };
                    if gate.work(|| lock(&device).kick()).is_none() {
                        return;
                    }
                }
            }
        }
    }
}
