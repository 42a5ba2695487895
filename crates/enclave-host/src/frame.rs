//! Requests and responses over a stream: vsock, TCP, a pipe.
//!
//! A frame is its length in 4 bytes (little-endian), then as many bytes.

use std::io::{self, ErrorKind, Read, Write};

/// Most bytes of a frame unless the caller says otherwise.
pub const LIMIT: usize = 1 << 20;

/// Writes one frame.
///
/// # Errors
/// The stream's; [`ErrorKind::InvalidInput`] beyond 4 GiB.
pub fn write(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&len.to_le_bytes())?;
    stream.write_all(frame)?;
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
            format!("a frame of {len} bytes exceeds {limit}"),
        ));
    }
    let mut frame = Vec::new();
    stream.take(len as u64).read_to_end(&mut frame)?;
    if frame.len() == len { Ok(Some(frame)) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Asks for something and waits for the answer.
///
/// # Errors
/// As of [`write()`] and [`read()`]; [`ErrorKind::UnexpectedEof`] if there is no answer.
pub fn request(stream: &mut (impl Read + Write), frame: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    write(stream, frame)?;
    read(stream, limit)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

/// Answers requests until the stream ends.
///
/// # Errors
/// As of [`read()`] and [`write()`].
pub fn serve(
    stream: &mut (impl Read + Write),
    limit: usize,
    mut answer: impl FnMut(Vec<u8>) -> Vec<u8>,
) -> io::Result<()> {
    while let Some(frame) = read(stream, limit)? {
        write(stream, &answer(frame))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn frames_come_as_they_went() {
        for frame in [&b""[..], b"x", &[7; 100_000]] {
            let mut stream = Vec::new();
            write(&mut stream, frame).unwrap();
            assert_eq!(read(&mut &stream[..], LIMIT).unwrap().unwrap(), frame);
            for cut in [1, 3, stream.len() - 1] {
                let result = read(&mut &stream[..cut], LIMIT);
                if cut < stream.len() {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
                }
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
    fn requests_are_answered_in_order() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            serve(&mut there, LIMIT, |request| request.into_iter().rev().collect())
        });
        for text in ["one", "two", ""] {
            let answer = request(&mut here, text.as_bytes(), LIMIT).unwrap();
            assert_eq!(answer, text.bytes().rev().collect::<Vec<_>>());
        }
        drop(here);
        server.join().unwrap().unwrap();
    }
}
