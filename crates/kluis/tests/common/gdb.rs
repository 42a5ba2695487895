//! gdb, and a machine that serves it.

use super::{kluis, output, text};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A machine that gdb may come to, killed when dropped.
pub(crate) struct Machine {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
    gdb: String,
}

impl Machine {
    /// Starts it, and a thread that reads its messages but the first, which tells the port.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = kluis();
        command.args(["run", "--network", "none", "--timeout", "500s"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        messages.read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "at").expect(&line);
        let gdb = words[at + 1].trim_end_matches(',').to_owned();
        std::thread::spawn(move || std::io::copy(&mut messages, &mut std::io::sink()));
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, gdb }
    }

    /// Its lines up to `wanted`.
    pub(crate) fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "ended before {wanted:?}: {all:?}");
            if line.trim() == wanted {
                return all;
            }
            all.push(line.trim().to_owned());
        }
    }

    /// What gdb prints for these commands.
    pub(crate) fn gdb(&self, commands: &[&str]) -> String {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-q", "-batch", "-iex", "set auto-load off", "-ex", "set confirm off"]);
        gdb.args(["-ex", &format!("target remote {}", self.gdb)]);
        gdb.args(commands.iter().flat_map(|command| ["-ex", command]));
        let out = output(&mut gdb, b"");
        let said = text(&out.stdout) + &text(&out.stderr);
        println!("{said}");
        said
    }

    /// Waits for it; its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
