//! Frames on a stream: vsock, TCP, a pipe.
//!
//! A frame is its length in 4 bytes (little-endian), then as many bytes. Who listens first
//! says [`GREETING`]; then frames of the client and of the server alternate:
//!
//! | frame | |
//! |---|---|
//! | request | the function's number in 4 bytes (little-endian), encoded arguments |
//! | response | an outcome of 1 byte; after 0 the encoded result, after others nothing |

use std::io::{self, ErrorKind, Read, Write};

use enclave_interface::DispatchError;

/// What a client reads first: that somebody is there who understands it.
pub const GREETING: [u8; 8] = *b"enclave1";

/// Writes one frame.
///
/// # Errors
/// The stream's; [`ErrorKind::InvalidInput`] beyond 4 GiB.
pub fn write(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_le_bytes(), frame].concat())?;
    stream.flush()
}

/// Reads one frame of at most `limit` bytes; `None` if the stream ends before it begins.
///
/// # Errors
/// The stream's; [`ErrorKind::UnexpectedEof`] if it ends within the frame;
/// [`ErrorKind::InvalidData`] beyond the limit. Memory is taken as bytes arrive.
pub fn read(stream: &mut impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        match stream.read(&mut head[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let len = u32::from_le_bytes(head) as usize;
    if len > limit {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("a message of {len} bytes exceeds the {limit} that are granted"),
        ));
    }
    let mut frame = Vec::new();
    stream.take(len as u64).read_to_end(&mut frame)?;
    if frame.len() == len { Ok(Some(frame)) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Bytes of a frame beside arguments or result.
pub const HEAD: usize = 4;

/// A request as a frame.
pub fn request(function: u32, arguments: &[u8]) -> Vec<u8> {
    [&function.to_le_bytes(), arguments].concat()
}

/// Function and arguments of a request; `None` if it is none.
pub fn of_request(frame: &[u8]) -> Option<(u32, &[u8])> {
    let (function, arguments) = frame.split_first_chunk()?;
    Some((u32::from_le_bytes(*function), arguments))
}

/// A response as a frame.
pub fn response(result: Result<Vec<u8>, DispatchError>) -> Vec<u8> {
    match result {
        Ok(result) => [&[0], &result[..]].concat(),
        Err(DispatchError::NoFunction) => vec![1],
        Err(DispatchError::Arguments) => vec![2],
        Err(DispatchError::Result) => vec![3],
    }
}

/// The result of a response; `None` if it is none.
pub fn of_response(frame: &[u8]) -> Option<Result<&[u8], DispatchError>> {
    match frame.split_first()? {
        (0, result) => Some(Ok(result)),
        (1, []) => Some(Err(DispatchError::NoFunction)),
        (2, []) => Some(Err(DispatchError::Arguments)),
        (3, []) => Some(Err(DispatchError::Result)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn frames_come_as_they_went() {
        for frame in [&b""[..], b"x", &[7; 100_000]] {
            let mut stream = Vec::new();
            write(&mut stream, frame).unwrap();
            assert_eq!(read(&mut &stream[..], LIMIT).unwrap().unwrap(), frame);
            for cut in [1, 3, stream.len() - 1] {
                let result = read(&mut &stream[..cut], LIMIT);
                assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
            }
        }
        assert!(read(&mut &b""[..], LIMIT).unwrap().is_none());
    }

    #[test]
    fn a_frame_beyond_the_limit_takes_no_memory() {
        let stream = u32::MAX.to_le_bytes();
        assert_eq!(read(&mut &stream[..], LIMIT).unwrap_err().kind(), ErrorKind::InvalidData);
        // announced, allowed, and not there
        assert_eq!(read(&mut &stream[..], usize::MAX).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn requests_and_responses_are_told_from_what_is_none() {
        assert_eq!(of_request(&request(7, b"abc")), Some((7, &b"abc"[..])));
        assert_eq!(of_request(b"abc"), None);
        use DispatchError::{Arguments, NoFunction, Result};
        for result in [Ok(vec![]), Ok(vec![1, 2]), Err(NoFunction), Err(Arguments), Err(Result)] {
            let frame = response(result.clone());
            assert_eq!(of_response(&frame).unwrap().map(<[u8]>::to_vec), result);
        }
        for frame in [&b""[..], &[1, 0], &[4], &[255, 1]] {
            assert_eq!(of_response(frame), None);
        }
    }
}
