//! What a guest has of its host: shared folders and sockets, with Debian's
//! kernel, by a program of ours (`guest/host-check`) that is run from a share.

mod common;

use common::{Scratch, guest, kluis, output, text, turn};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

const TIMEOUT: &str = "500s";

fn run(args: &[&str]) -> Command {
    let mut command = kluis();
    command.args(["run", "--quiet", "--timeout", TIMEOUT]).args(args);
    command
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// FNV-1a, as `host-check` prints it.
fn digest(data: &[u8]) -> String {
    let hash = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// A guest with a script that talks to the test by lines.
struct Talk {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Talk {
    fn start(args: &[&str], script: &str) -> Self {
        let mut child = run(args).args(["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn end(mut self) -> String {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{rest}");
        rest
    }
}

#[test]
fn shared_folders_are_folders() {
    let _turn = turn();
    let s = Scratch::new();
    let (work, fixed) = (s.path("work"), s.path("fixed"));
    fs::create_dir(&work).unwrap();
    fs::create_dir_all(fixed.join("sub")).unwrap();
    fs::copy(guest::program("host-check"), work.join("host-check")).unwrap();
    let big = noise(8 << 20);
    fs::write(work.join("big"), &big).unwrap();
    fs::write(work.join("map"), "mapped").unwrap();
    fs::write(fixed.join("data"), "data\n").unwrap();
    fs::write(s.path("secret"), "secret").unwrap();
    symlink(s.path("secret"), work.join("out")).unwrap();
    symlink("../secret", work.join("up")).unwrap();
    let script = "cd /work
        md5sum < big; cp big copy; md5sum < copy
        ./host-check map map && cat map && echo
        umask 0; mkdir -p a/b; echo x > a/b/f; chmod 751 a; chmod 640 a/b/f; mv a/b/f a/g; ln -s g a/l; ln a/g a/h
        stat -c '%a %u %g %h' a a/g; cat a/l; rm a/h; rmdir a/b; ls a
        cat out up 2>&1 | sed 's/.*: //' | sort -u
        mkdir many; i=0; while [ $i -lt 300 ]; do echo $i > many/$i; i=$((i+1)); done
        ls many | wc -l; cat many/* | md5sum; rm -r many
        mkfifo pipe 2>&1 | sed 's/.*: //'; chown 5:6 copy && stat -c %u copy
        exec 9>gone; rm gone; echo kept >&9; ls gone 2>/dev/null
        echo from guest > told; echo ready
        while ! [ -e /fixed/new ]; do sleep 0.1; done; cat /fixed/new
        mount -o remount,rw /fixed || echo no remount
        for c in 'touch /fixed/x' 'mkdir /fixed/x' 'rm /fixed/data' 'rmdir /fixed/sub' 'mv /fixed/data /fixed/x' \
            'chmod 777 /fixed/data' 'ln -s a /fixed/x' 'ln /fixed/data /fixed/x' 'dd if=/dev/zero of=/fixed/data'
        do $c 2>&1 | grep -o 'Read-only file system'; done | uniq -c
        cat /fixed/data";
    let mut guest = Talk::start(
        &[
            "--share",
            &format!("{}:/work", work.display()),
            "--share",
            &format!("{}:/fixed/:ro", fixed.display()),
        ],
        script,
    );
    let hash = String::from_utf8(output(&mut Command::new("md5sum"), &big).stdout).unwrap();
    let small: String = {
        let mut names: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        names.sort();
        let all = names.join("\n") + "\n";
        String::from_utf8(output(&mut Command::new("md5sum"), all.as_bytes()).stdout).unwrap()
    };
    let expected = [
        hash.trim_end(),
        hash.trim_end(),
        "MAPPED",
        "751 0 0 2",
        "640 0 0 2",
        "x",
        "g",
        "l",
        "No such file or directory",
        "300",
        small.trim_end(),
        "Operation not permitted",
        "0",
        "ready",
    ];
    for line in expected {
        let said = guest.line();
        // link counts of folders are the host's file system's
        if line.starts_with("751") {
            assert!(said.starts_with("751 0 0 "), "{said}");
        } else {
            assert_eq!(said, line);
        }
    }
    assert_eq!(fs::read_to_string(work.join("told")).unwrap(), "from guest\n");
    fs::write(fixed.join("new"), "from host\n").unwrap();
    assert_eq!(
        guest.end().split_whitespace().collect::<Vec<_>>().join(" "),
        "from host 9 Read-only file system data"
    );

    assert!(fs::read(work.join("copy")).unwrap() == big);
    assert_eq!(fs::read_to_string(work.join("map")).unwrap(), "MAPPED");
    assert_eq!(fs::metadata(work.join("a/g")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(work.join("a")).unwrap().permissions().mode() & 0o7777, 0o751);
    assert_eq!(fs::metadata(work.join("copy")).unwrap().uid(), fs::metadata(&work).unwrap().uid());
    assert!(!work.join("gone").exists() && !fixed.join("x").exists());
    assert_eq!(fs::read_to_string(fixed.join("data")).unwrap(), "data\n");
}

/// Answers `count` connections in threads of their own.
fn serve(listener: UnixListener, count: usize, answer: fn(UnixStream)) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let served: Vec<_> = listener
            .incoming()
            .take(count)
            .map(|stream| thread::spawn(move || answer(stream.unwrap())))
            .collect();
        served.into_iter().for_each(|one| one.join().unwrap());
    })
}

fn echo(mut stream: UnixStream) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
}

const SENT: usize = 3_000_000;
const ANSWERED: usize = 2_500_001;

/// Says much and hears much at the same time; tells at the end what it heard.
fn talk(mut stream: UnixStream) {
    let mut from = stream.try_clone().unwrap();
    let hearing = thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), SENT);
        digest(&bytes)
    });
    stream.write_all(&noise(ANSWERED)).unwrap();
    let heard = hearing.join().unwrap();
    stream.write_all(heard.as_bytes()).unwrap();
}

#[test]
fn sockets_connect_guest_and_host() {
    let _turn = turn();
    let s = Scratch::new();
    fs::create_dir(s.path("bin")).unwrap();
    fs::copy(guest::program("host-check"), s.path("bin/host-check")).unwrap();
    let talking = serve(UnixListener::bind(s.path("talk")).unwrap(), 1, talk);
    let echoing = serve(UnixListener::bind(s.path("echo")).unwrap(), 100, echo);
    // one that a machine which was killed has left
    drop(UnixListener::bind(s.path("guest")).unwrap());
    let script = format!(
        "PATH=/host:$PATH
        host-check talk 5000 {SENT}; host-check many 5001 100
        host-check refused 5002; host-check refused 4999
        host-check echo 6000 2"
    );
    let ports = [("--vsock", 5000, "talk"), ("--vsock", 5001, "echo"), ("--vsock", 5002, "nobody")];
    let listens = [("--vsock-listen", 6000, "guest"), ("--vsock-listen", 6001, "silent")];
    let mut args = vec!["--share".to_owned(), format!("{}:/host:ro", s.at("bin"))];
    for (option, port, name) in ports.into_iter().chain(listens) {
        args.extend([option.to_owned(), format!("{port}={}", s.at(name))]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut guest = Talk::start(&args, &script);
    let said = guest.line();
    let words: Vec<&str> = said.split(' ').collect();
    assert_eq!(words[4], (ANSWERED + 16).to_string(), "{said}");
    let answer = [noise(ANSWERED), words[1].as_bytes().to_vec()].concat();
    assert_eq!(words[3], digest(&answer), "what the host heard is what was sent, and so back");
    assert_eq!(guest.line(), "echoed 100");
    assert_eq!(guest.line(), "refused: ConnectionReset");
    assert_eq!(guest.line(), "refused: ConnectionReset");
    talking.join().unwrap();
    echoing.join().unwrap();

    assert_eq!(guest.line(), "listening");
    let mode = fs::metadata(s.path("guest")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600, "for this user alone");
    let data = noise(1 << 20);
    for _ in 0..2 {
        let mut stream = UnixStream::connect(s.path("guest")).unwrap();
        let mut from = stream.try_clone().unwrap();
        let hearing = thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            bytes
        });
        stream.write_all(&data).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(hearing.join().unwrap() == data);
        assert_eq!(guest.line(), format!("echoed {}", data.len()));
    }
    guest.end();
}

#[test]
fn a_port_without_a_listener_closes_the_hosts_stream() {
    let _turn = turn();
    let s = Scratch::new();
    let socket = s.at("silent");
    let mut guest = Talk::start(&["--vsock-listen", &format!("6001={socket}")], "echo up; sleep 3");
    assert_eq!(guest.line(), "up");
    let mut stream = UnixStream::connect(&socket).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    guest.end();
}

#[test]
fn what_cannot_be_shared_is_told_in_one_line() {
    let s = Scratch::new();
    let (file, socket) = (s.file("file", "x"), s.at("taken"));
    let _taken = UnixListener::bind(&socket).unwrap();
    for (args, why) in [
        (vec!["--share", "/no/such:/w"], "check the path"),
        (vec!["--share", &format!("{file}:/w")], "not a folder"),
        (vec!["--share", ".:w"], "absolute"),
        (vec!["--share", "/:/a", "--share", "/tmp:/a/"], "two shares"),
        (vec!["--vsock", "x"], "PORT=SOCKET"),
        (vec!["--vsock-listen", &format!("1={socket}")], "is there already"),
        (vec!["--vsock-listen", "1=/no/such/socket"], "the folder it is in"),
    ] {
        let out = output(run(&args).args(["--", "true"]), b"");
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
}
