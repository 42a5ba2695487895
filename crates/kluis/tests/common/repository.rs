//! A proxy of apt on the host's loopback, behind which there is one repository of one
//! package.

use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The host that only the proxy knows.
pub(crate) const HOST: &str = "packages.invalid";
/// Its package, which has one file, `/usr/share/greeting`.
pub(crate) const PACKAGE: &str = "greeting";

/// The proxy; it serves as long as the test's process lives.
pub(crate) struct Proxy {
    /// Its port on the host's loopback.
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (package, heard) = (package(), asked.clone());
        thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                // one that goes away has its answer, or wants none
                let _ = answer(visitor, &package, &heard);
            }
        });
        Self { port, asked }
    }

    /// The addresses that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut visitor: TcpStream, package: &[u8], heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut request = BufReader::new(visitor.try_clone()?).lines();
    let first = request.next().unwrap_or_else(|| Ok(String::new()))?;
    while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let address = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let path = address.strip_prefix(&format!("http://{HOST}/")).map(|path| path.trim_start_matches("./"));
    let body = match path {
        Some("Packages") => Some(index(package).into_bytes()),
        Some("greeting.deb") => Some(package.to_vec()),
        _ => None,
    };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    heard.lock().unwrap().push(address);
    let body = body.unwrap_or_default();
    write!(visitor, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    visitor.write_all(&body)
}

fn control() -> String {
    format!(
        "Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
         Description: a file\n"
    )
}

/// The repository's index (*deb822(5)*).
fn index(package: &[u8]) -> String {
    let sum: String = Sha256::digest(package).iter().map(|b| format!("{b:02x}")).collect();
    format!("{}Filename: ./greeting.deb\nSize: {}\nSHA256: {sum}\n\n", control(), package.len())
}

/// The package's file (*deb(5)*).
fn package() -> Vec<u8> {
    let archive = |path: &str, text: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        tar.into_inner().unwrap()
    };
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", archive("control", &control())),
        ("data.tar", archive("usr/share/greeting", "hello\n")),
    ] {
        out.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes(),
        );
        out.extend(content);
    }
    out
}
