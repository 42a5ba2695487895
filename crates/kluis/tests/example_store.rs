//! `examples/store`: an encrypted store on the host's files, and a counter outside of the
//! machine, by which an old state of all of them is found.

mod common;

use common::example::Example;
use common::{kluis, output, text, turn};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A counter that runs.
struct Counter {
    process: Child,
    port: String,
    /// Its key, for whoever makes a store.
    public: String,
}

impl Counter {
    fn start(example: &Example, folder: &str) -> Self {
        let mut command = Command::new(example.program("store-counter"));
        command.arg(example.user.path(folder)).arg("127.0.0.1:0").stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let port = said.trim().rsplit(':').next().unwrap().to_owned();
        let public = std::fs::read_to_string(example.user.path(folder).join("public")).unwrap();
        Self { process, port, public }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_old_state_of_all_files_is_found() {
    let _turn = turn();
    let example = Example::new("store");
    example.works(&["build"]);
    example.unit_tests("store-counter");
    let counter = Counter::start(&example, "counter");
    let other = Counter::start(&example, "other");
    std::fs::create_dir(example.user.path("data")).unwrap();

    let script = format!(
        "cd /enclave
        s() {{ where=$1; shift; ./store-host /data 10.0.2.2:$where \"$@\" 2>&1; echo ends with $?; }}
        s {port} create {public}
        printf 'put ada 0 negative\\nput bob A positive\\n' | s {port}
        cp -r /data /old
        printf 'put ada B negative\\nremove bob\\nget ada\\nget bob\\nkeys\\n' | s {port}
        cp -r /data /new
        echo the old state; cp /old/* /data; s {port} get ada
        echo an old log; cp /new/* /data; cp /old/log-a /data; s {port} get ada
        echo another counter; cp /new/* /data; s {other} get ada
        echo no counter; s 9 get ada
        echo the present state; s {port} get ada
        echo its key of another store; rm /data/*; s {port} create {public}; cp /new/head-* /data; s {port} keys
        cp /new/* /data",
        port = counter.port,
        public = counter.public,
        other = other.port,
    );
    let share = |name: &str, at: &str| format!("{name}:{at}");
    let built = share(example.built().to_str().unwrap(), "/enclave:ro");
    let data = share(&example.user.at("data"), "/data");
    let ports = format!("{},{}", counter.port, other.port);
    let mut command = kluis();
    command
        .env("XDG_RUNTIME_DIR", example.user.at(""))
        .args(["run", "--quiet", "--timeout", "500s", "--memory", "256M", "--allow-host", &ports])
        .args(["--share", &built, "--share", &data, "--", "sh", "-c", &script]);
    let out = output(&mut command, b"");
    let said = text(&out.stdout);
    println!("{said}{}", text(&out.stderr));
    let commits = |number| format!("{number} commits; its counter is {}", counter.public);
    let (none, two, four) = (commits(0), commits(2), commits(4));
    let elsewhere = "store-host: the store's counter: what answers is not the one that the store was made with; \
                     give the address of that one";
    let expected = [
        "made a store in /data",
        "ends with 0",
        &none,
        "ada is kept",
        "bob is kept",
        "ends with 0",
        &two,
        "ada is kept",
        "bob is gone",
        "B negative",
        "there is no bob",
        "ada",
        "ends with 0",
        "the old state",
        "store-host: the store is an old one: it has 2 commits, 4 were counted; find the present one",
        "ends with 2",
        "an old log",
        "store-host: the store was changed: the log is cut short; take a copy that was not",
        "ends with 2",
        "another counter",
        elsewhere,
        "ends with 2",
        "no counter",
        "store-host: the counter at 10.0.2.2:9: ",
        "store-host: the store's counter: it does not answer; start it, or give its address",
        "ends with 2",
        "the present state",
        &four,
        "B negative",
        "ends with 0",
        "its key of another store",
        "made a store in /data",
        "ends with 0",
        "store-host: the store was changed: neither head can be opened with this key and name; \
         take a copy that was not",
        "ends with 2",
    ];
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{expected}: {line}");
    }

    // what the host keeps tells nothing
    for file in std::fs::read_dir(example.user.path("data")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for word in [&b"negative"[..], b"positive", b"ada"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word));
        }
    }
}
