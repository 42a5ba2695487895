//! What a guest can use of its host, tried out: stream sockets by vsock, and
//! files of a share mapped into memory.
//!
//! It writes what it saw to standard output and exits with 1 if something
//! failed.

mod map;
mod vsock;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;

const USAGE: &str = "\
usage: host-check talk PORT BYTES   send so many bytes to the host, end, and hear what it says until its end
       host-check many PORT COUNT   so many connections at a time, each with a line and its echo
       host-check refused PORT      nobody is there
       host-check echo PORT COUNT   listen and send back what comes, for so many connections
       host-check map FILE          change the file through memory";

/// Bytes of which each is another on the way there and back.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut x = seed | 1;
    std::iter::repeat_with(move || {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (x >> 56) as u8
    })
}

/// FNV-1a, of all bytes that are read.
fn digest(mut from: impl Read) -> io::Result<(u64, u64)> {
    let (mut hash, mut count) = (0xcbf2_9ce4_8422_2325u64, 0);
    let mut buf = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buf)?;
        if n == 0 {
            return Ok((hash, count));
        }
        count += n as u64;
        for byte in &buf[..n] {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

fn talk(port: u32, bytes: u64) -> io::Result<()> {
    let mut stream = vsock::connect(port)?;
    let from = stream.try_clone()?;
    let hearing = thread::spawn(move || digest(from));
    let data: Vec<u8> = noise(7).take(bytes as usize).collect();
    stream.write_all(&data)?;
    stream.shutdown(Shutdown::Write)?;
    let (hash, count) = hearing.join().map_err(|_| io::Error::other("the reader failed"))??;
    println!("sent {:016x} heard {hash:016x} {count}", digest(&data[..])?.0);
    Ok(())
}

fn many(port: u32, count: u64) -> io::Result<()> {
    let streams = (0..count).map(|_| vsock::connect(port)).collect::<io::Result<Vec<UnixStream>>>()?;
    let mut echoed = 0;
    for (n, mut stream) in streams.iter().enumerate() {
        writeln!(stream, "connection {n}")?;
        stream.shutdown(Shutdown::Write)?;
    }
    for (n, mut stream) in streams.iter().enumerate() {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        echoed += u64::from(text == format!("connection {n}\n"));
    }
    println!("echoed {echoed}");
    Ok(())
}

fn echo(port: u32, count: u64) -> io::Result<()> {
    let listener = vsock::listen(port)?;
    println!("listening");
    for _ in 0..count {
        let mut stream = vsock::accept(&listener)?;
        let n = io::copy(&mut stream.try_clone()?, &mut stream)?;
        stream.shutdown(Shutdown::Write)?;
        println!("echoed {n}");
    }
    Ok(())
}

fn run(args: &[String]) -> io::Result<()> {
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let port = |text: &str| text.parse::<u32>().map_err(io::Error::other);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["talk", p, bytes] => talk(port(p)?, number(bytes)?),
        ["many", p, count] => many(port(p)?, number(count)?),
        ["echo", p, count] => echo(port(p)?, number(count)?),
        ["refused", p] => match vsock::connect(port(p)?) {
            Ok(_) => Err(io::Error::other("somebody is there")),
            Err(e) => {
                println!("refused: {:?}", e.kind());
                Ok(())
            }
        },
        ["map", file] => map::change(file),
        _ => Err(io::Error::other(USAGE)),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("host-check: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_fnv() {
        assert_eq!(digest(&b""[..]).unwrap(), (0xcbf2_9ce4_8422_2325, 0));
        assert_eq!(digest(&b"foobar"[..]).unwrap(), (0x8594_4171_f739_67e8, 6));
    }

    #[test]
    fn maps_change_files() {
        let file = std::env::temp_dir().join(format!("host-check-{}", std::process::id()));
        std::fs::write(&file, "abcdef").unwrap();
        map::change(file.to_str().unwrap()).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"ABCDEF");
        std::fs::remove_file(&file).unwrap();
    }
}
