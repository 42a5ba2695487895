//! The side that asks.

use std::io::{self, ErrorKind, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use enclave_interface::{Caller, DispatchError};

use crate::stream::Stream;
use crate::{Endpoint, Limits, frame};

/// Between attempts to find a server.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection to a server; carries an interface's calls, one at a time.
#[derive(Debug)]
pub struct Client {
    stream: Mutex<Option<Stream>>,
    limits: Limits,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed in this call.
    #[error("the connection to the server failed: {0}")]
    Stream(#[from] io::Error),
    /// It has failed before: what comes by it belongs to no call any more.
    #[error("the connection to the server has failed before: connect again")]
    Broken,
    /// The server has no such function, or cannot read the arguments.
    #[error("the server: {0}")]
    Refused(DispatchError),
    /// What it says is no response.
    #[error("the server's response is none of this protocol")]
    Response,
}

impl Client {
    /// Connects to a server. One that is not there yet, in a machine that boots, say, is
    /// waited for, for [`Limits::patience`].
    ///
    /// # Errors
    /// Nobody is there, or somebody who speaks otherwise.
    pub fn connect(endpoint: &Endpoint, limits: Limits) -> io::Result<Self> {
        let until = Instant::now() + limits.patience;
        loop {
            let e = match greeted(endpoint, until) {
                Ok(stream) => return Ok(Self { stream: Mutex::new(Some(stream)), limits }),
                Err(e) => e,
            };
            // what a server that is not there yet looks like, also through somebody between
            let absent = matches!(
                e.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::BrokenPipe
                    | ErrorKind::NotFound
            );
            if !absent || Instant::now() + PAUSE >= until {
                return Err(io::Error::new(e.kind(), format!("there is no server at {endpoint}: {e}")));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn ask(&self, stream: &mut Stream, request: &[u8]) -> Result<Vec<u8>, Error> {
        stream.write_frame(request, self.limits.patience)?;
        let most = self.limits.message.saturating_add(frame::HEAD);
        let response = stream.read_frame(most, self.limits.patience)?;
        response.ok_or_else(|| Error::Stream(ErrorKind::UnexpectedEof.into()))
    }
}

/// A connection on which a server has said that it is one.
fn greeted(endpoint: &Endpoint, until: Instant) -> io::Result<Stream> {
    let mut stream = Stream::connect(endpoint, until)?;
    let mut said = [0; frame::GREETING.len()];
    stream.until(until).read_exact(&mut said)?;
    if said != frame::GREETING {
        return Err(io::Error::new(ErrorKind::InvalidData, "somebody else is there"));
    }
    Ok(stream)
}

impl Caller for Client {
    type Error = Error;

    fn call(&self, function: u32, arguments: &[u8]) -> Result<Vec<u8>, Error> {
        let mut lent = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // after an error, what still comes would be taken for the next response
        let mut stream = lent.take().ok_or(Error::Broken)?;
        let response = self.ask(&mut stream, &frame::request(function, arguments))?;
        let result = frame::of_response(&response).ok_or(Error::Response)?;
        *lent = Some(stream);
        result.map(<[u8]>::to_vec).map_err(Error::Refused)
    }
}
