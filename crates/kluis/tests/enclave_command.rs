//! `kluis enclave`, as its users have it: a new project is built, signed, run and tested.

mod common;

use common::session::Session;
use common::{kluis, output, text, turn};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

/// A project that was made and built, and the folder of what belongs to its user.
struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    fn root(&self) -> PathBuf {
        self.dir.path().join("hello")
    }

    fn built(&self, name: &str) -> PathBuf {
        self.root().join("target/enclave").join(name)
    }

    /// Runs `kluis enclave` in a folder.
    fn enclave_in(&self, folder: &Path, args: &[&str]) -> Output {
        let mut command = kluis();
        command.current_dir(folder).env("XDG_STATE_HOME", self.dir.path().join("state"));
        output(command.arg("enclave").args(args), b"")
    }

    fn enclave(&self, args: &[&str]) -> Output {
        self.enclave_in(&self.root(), args)
    }

    /// The same, which works; its standard output.
    fn works(&self, args: &[&str]) -> String {
        let out = self.enclave(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// The same, which is refused in one line.
    fn refused(&self, args: &[&str], word: &str) {
        let out = self.enclave(args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("kluis: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(word), "{args:?}: {said}");
    }
}

/// Built once for all tests, which take turns with it.
fn project() -> &'static Project {
    static PROJECT: OnceLock<Project> = OnceLock::new();
    PROJECT.get_or_init(|| {
        let project = Project { dir: tempfile::tempdir().unwrap() };
        let made = project.enclave_in(project.dir.path(), &["new", "hello"]);
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        let built = project.enclave(&["build"]);
        let said = text(&built.stderr);
        assert_eq!(built.status.code(), Some(0), "{said}");
        assert!(said.contains("kluis: making a key of yours"), "{said}");
        let key = project.dir.path().join("state/kluis/enclave-development.pem");
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        project
    })
}

fn mrenclave(project: &Project, folder: &Path) -> String {
    let out = project.enclave_in(folder, &["inspect", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let measured = report["stream"]["mrenclave"].as_str().unwrap();
    assert_eq!(report["sigstruct"]["mrenclave"], measured);
    measured.to_owned()
}

#[test]
fn a_new_project_runs_and_so_do_its_tests() {
    let _turn = turn();
    let project = project();
    let out = project.enclave(&["run", "--encrypted", "--quiet", "--timeout", "500s", "--", "Ada"]);
    assert_eq!(text(&out.stdout), "Hello, Ada, from inside an enclave!\n", "{}", text(&out.stderr));
    assert_eq!(out.status.code(), Some(0));
    // encrypted, so that its text is in no file; in clear it is
    let key = fs::metadata(project.built("hello.key")).unwrap();
    assert_eq!((key.permissions().mode() & 0o777, key.len()), (0o600, 65));
    let inspected = project.works(&["inspect"]);
    for line in
        [" rwx REG ", "measured, ciphertext; r-x once decrypted, with SGX2", "without SGX2 it can still be"]
    {
        assert!(inspected.contains(line), "{line}: {inspected}");
    }
    let says = |what: &[u8]| {
        let stream = fs::read(project.built("hello.sgxs")).unwrap();
        stream.windows(what.len()).any(|window| window == what)
    };
    assert!(!says(b", from inside an enclave"));
    project.works(&["build"]);
    assert!(says(b", from inside an enclave"));

    // A key elsewhere: OpenSSL signs what the first step wrote, the processor takes it.
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").current_dir(project.root()).args(args).status().unwrap();
        assert!(done.success(), "{args:?}");
    };
    let before = project.works(&["inspect"]);
    openssl(&["genrsa", "-3", "-out", "vendor.pem", "3072"]);
    openssl(&["rsa", "-in", "vendor.pem", "-pubout", "-out", "vendor.pub"]);
    project.works(&["sign", "hello", "--digest", "hello.tbs", "--product", "7", "--svn", "3"]);
    openssl(&["dgst", "-sha256", "-sign", "vendor.pem", "-out", "hello.raw", "hello.tbs"]);
    let second =
        ["sign", "hello", "--digest", "hello.tbs", "--signature", "hello.raw", "--public-key", "vendor.pub"];
    project.works(&second);
    let after = project.works(&["inspect"]);
    assert!(after.contains("product    7, security version 3"), "{after}");
    let signer = |text: &str| text.lines().find(|line| line.contains("MRSIGNER")).unwrap().to_owned();
    assert_ne!(signer(&before), signer(&after));
    // with less EPC than the enclave takes
    let out = project.enclave(&["run", "--quiet", "--timeout", "500s", "--epc", "1M"]);
    let errors = text(&out.stderr);
    assert_eq!(text(&out.stdout), "Hello, world, from inside an enclave!\n", "{errors}");
    let warning =
        errors.lines().find(|line| line.starts_with("kluis: the enclave hello takes ")).expect(&errors);
    for part in [" has an EPC of 1 MiB: Linux will swap its pages (EWB, ELDU)", "choose a larger --size"] {
        assert!(warning.contains(part), "{warning}");
    }
    // it was this signature: building has kept it
    assert_eq!(project.works(&["inspect"]), after);

    // Tests inside: one passes, one panics as it should, one fails and says why.
    let main = project.root().join("enclave/src/main.rs");
    let source = fs::read_to_string(&main).unwrap();
    let more = "
        #[enclave::enclave_test]
        fn prints() { enclave::println!(\"from inside\") }
        #[enclave::enclave_test(should_panic)]
        fn panics() { panic!(\"on purpose\") }
        #[enclave::enclave_test]
        fn fails() { assert_eq!(GREETER.greet(\"x\").len(), 1, \"too long\") }";
    fs::write(&main, source.clone() + more).unwrap();
    let out = project.enclave(&["test", "--quiet", "--timeout", "500s"]);
    let some = project.works(&["test", "prints", "--nocapture", "--quiet", "--timeout", "500s"]);
    fs::write(&main, source).unwrap();
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{said}{}", text(&out.stderr));
    for line in [
        "running 4 tests in hello.sgxs",
        "test hello::prints ... ok",
        "test hello::greets_by_name ... ok",
        "test hello::panics - should panic ... ok",
        "test hello::fails ... FAILED",
        "assertion `left == right` failed: too long",
        "test result: FAILED. 3 passed; 1 failed; 0 filtered out",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("from inside"), "what passes prints nothing: {said}");
    for line in [
        "running 1 test in hello.sgxs\nfrom inside\ntest hello::prints ... ok\n",
        "test result: ok. 1 passed; 0 failed; 3 filtered out",
    ] {
        assert!(some.contains(line), "{line}: {some}");
    }
}

/// gdb itself, with commands by its standard input as by a terminal.
#[test]
fn gdb_is_in_the_enclave() {
    let _turn = turn();
    let project = project();
    let main = fs::read_to_string(project.root().join("enclave/src/main.rs")).unwrap();
    let line = main.lines().position(|line| line.contains("format!(")).unwrap() + 1;
    let mut command = kluis();
    command.current_dir(project.root()).env("XDG_STATE_HOME", project.dir.path().join("state"));
    command.args(["enclave", "debug", "--quiet", "--timeout", "500s", "--break", &format!("main.rs:{line}")]);
    command.args(["--", "Ada"]);
    let commands = "backtrace
        print name
        set var *name.data_ptr = 79
        print name
        watch *name.data_ptr
        next
        monitor cpus
        delete
        break enclave_leave
        tbreak enclave_dispatch
        info breakpoints
        continue
        ";
    let out = output(&mut command, commands.as_bytes());
    let (said, errors) = (text(&out.stdout), text(&out.stderr));
    println!("{said}{errors}");
    for part in [
        "hello::{impl#0}::greet (self=",
        "enclave/src/main.rs:",
        "in hello::enclave_dispatch (function=0, arguments=...)",
        "in enclave_entry ()",
        "$1 = \"Ada\"",
        "Hardware watchpoint 2: *name.data_ptr",
        "Hello, Oda, from inside an enclave!\n",
    ] {
        assert!(said.contains(part), "{part}: {said}{errors}");
    }
    assert_eq!(out.status.code(), Some(0), "{said}{errors}");
}

/// A gdb of the user's own comes to the port as it was told; Ctrl-C, twice as in
/// `kluis run`, ends what is debugged.
#[test]
fn a_gdb_of_ones_own_comes_to_the_port() {
    let _turn = turn();
    let project = project();
    let folder = project.dir.path();
    let mut command = kluis();
    command.current_dir(project.root()).env("XDG_STATE_HOME", folder.join("state"));
    command.env("XDG_RUNTIME_DIR", folder);
    command.args(["enclave", "debug", "--quiet", "--timeout", "500s", "--gdb", "0", "--", "Ada"]);
    let mut debugged = Session::start(&mut command);
    let port = debugged.told("kluis: the enclave is at 0x");
    let gdb = debugged.told("gdb ");
    assert!(port.contains("the machine waits for gdb at 127.0.0.1:"), "{port}");
    let mut gdb = Session::start(Command::new("sh").args(["-c", &format!("exec gdb -nx {gdb}")]));
    // on a line of its own, behind the prompt
    gdb.say("printf \"\\nfunction %d\\n\", function\n");
    gdb.hear("function 0");

    let machines = output(kluis().env("XDG_RUNTIME_DIR", folder).args(["ps", "--json"]), b"");
    let machines: serde_json::Value = serde_json::from_slice(&machines.stdout).unwrap();
    let machine = machines[0]["pid"].as_u64().unwrap();
    let [command, machine] = [debugged.pid().into(), machine].map(|pid| Pid::from_raw(pid as i32).unwrap());
    // the first is the host program's, which stands; two within two seconds end it
    for _ in 0..100 {
        kill_process(command, Signal::INT).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        if test_kill_process(machine).is_err() {
            break;
        }
    }
    let (status, said, errors) = debugged.end();
    assert_eq!((status.code(), said.as_str()), (Some(130), ""), "{errors}");
    assert_eq!(test_kill_process(machine), Err(Errno::SRCH), "the machine is still there");
    // whether it has noticed or not, it has nothing to hold any more
    gdb.end();
}

#[test]
fn one_source_has_one_measurement() {
    let _turn = turn();
    let project = project();
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("another/place");
    fs::create_dir_all(&copy).unwrap();
    let archive = "tar c --exclude ./target . | tar x -C \"$0\"";
    let copied = Command::new("sh").current_dir(project.root()).args(["-c", archive]).arg(&copy).status();
    assert!(copied.unwrap().success());
    // without the host program, which takes its time and is not measured
    let manifest = copy.join("Cargo.toml");
    let text_of = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text_of.replace(", \"host\"", "")).unwrap();
    let out = project.enclave_in(&copy, &["build"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    // whatever others have built there meanwhile
    project.works(&["build"]);
    assert_eq!(mrenclave(project, &copy), mrenclave(project, &project.root()));
    let [one, other] =
        [copy.clone(), project.root()].map(|at| fs::read(at.join("target/enclave/hello.sgxs")).unwrap());
    assert!(one == other, "the streams differ");
    // encrypted likewise, with the same key
    let key = elsewhere.path().join("release.key");
    fs::write(&key, "9".repeat(64)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let encrypted = |folder: &Path| {
        let old = folder.join("target/enclave/hello.key");
        let _ = fs::remove_file(&old);
        let out =
            project.enclave_in(folder, &["build", "--encrypted", "--encryption-key", key.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        mrenclave(project, folder)
    };
    assert_eq!(encrypted(&copy), encrypted(&project.root()));
    project.works(&["build"]);
    // and its program says nothing of the folder
    let place = elsewhere.path().to_str().unwrap().as_bytes();
    assert!(!one.windows(place.len()).any(|window| window == place));
}

#[test]
fn what_is_wrong_is_told_in_one_line() {
    let _turn = turn();
    let project = project();
    project.works(&["build"]);
    let stream = fs::read(project.built("hello.sgxs")).unwrap();
    let signature = fs::read(project.built("hello.sig")).unwrap();
    let case = |name: &str, stream: &[u8], signature: Option<&[u8]>| {
        fs::write(project.root().join(name).with_extension("sgxs"), stream).unwrap();
        if let Some(signature) = signature {
            fs::write(project.root().join(name).with_extension("sig"), signature).unwrap();
        }
        format!("{name}.sgxs")
    };
    let changed = |bytes: &[u8], at: usize| {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        changed
    };
    // within the content of the first page
    let tampered = case("tampered", &changed(&stream, 64 + 64 + 64 + 100), Some(&signature));
    project.refused(&["inspect", &tampered], "SGX_INVALID_MEASUREMENT");
    let truncated = case("truncated", &stream[..stream.len() - 7], Some(&signature));
    project.refused(&["inspect", &truncated], "cut short");
    let forged = case("forged", &stream, Some(&changed(&signature, 600)));
    project.refused(&["inspect", &forged], "SGX_INVALID_SIGNATURE");
    let damaged = case("damaged", &stream, Some(&changed(&signature, 0)));
    project.refused(&["inspect", &damaged], "SGX_INVALID_SIG_STRUCT");
    let short = case("short", &stream, Some(&signature[..100]));
    project.refused(&["inspect", &short], "SGX_INVALID_SIG_STRUCT");
    let unsigned = case("unsigned", &stream, None);
    assert!(project.works(&["inspect", &unsigned]).contains("not signed"));
    project.refused(&["inspect", "README.md"], "no SGXS file");
    project.refused(&["inspect", "missing.sgxs"], "missing.sgxs");

    // the same by the host program, which finds it before it looks for a processor with SGX
    let host = |name: &str, word: &str| {
        let folder = tempfile::tempdir().unwrap();
        for extension in ["sgxs", "sig"] {
            let from = project.root().join(name).with_extension(extension);
            if from.exists() {
                fs::copy(from, folder.path().join("hello").with_extension(extension)).unwrap();
            }
        }
        let out = output(Command::new(project.built("hello-host")).current_dir(&folder), b"");
        let said = text(&out.stderr);
        assert_eq!((out.status.code(), said.lines().count()), (Some(1), 1), "{name}: {said}");
        assert!(said.starts_with("hello-host: ") && said.contains(word), "{name}: {said}");
    };
    host("unsigned", "is not signed: there is no hello.sig");
    host("truncated", "the SGXS file is damaged");
    host("short", "100 bytes instead of 1808 (SGX_INVALID_SIG_STRUCT)");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/enclave-keys/other.pem");
    let other = other.to_str().unwrap();
    case("debug", &stream, None);
    project.works(&["sign", "debug.sgxs", "--key", other, "--debug"]);
    host("debug", "it is a debug enclave (ATTRIBUTES.DEBUG)");
    if !Path::new("/dev/sgx_enclave").exists() {
        case("good", &stream, Some(&signature));
        host("good", "there is no /dev/sgx_enclave");
    }

    // signers
    const OTHER: &str = "3eae93ab144157f51ea5153440e479f9d31392faa9eea6809a0051fd6d9d1746";
    project.refused(&["inspect", "--signer", other], &format!("not by {OTHER} as --signer says (MRSIGNER)"));
    project.refused(&["inspect", "--signer", OTHER, &unsigned], "SGX_INVALID_SIG_STRUCT");
    project.works(&["inspect", "--signer", OTHER, "debug.sgxs"]);
    project.refused(&["run", "--signer", OTHER], &format!("not by {OTHER}"));
    project.refused(&["run", "--signer", "nowhere.pem"], "neither an MRSIGNER");
    project.refused(&["run", "--signer", "README.md"], "README.md");

    // debuggers
    project.refused(&["debug", "--release"], "leave out --release");
    project
        .refused(&["debug", "--debugger", "no-gdb"], "there is no no-gdb: install gdb, or have one of yours");
    project.refused(&["debug", "nobody"], "nobody is no enclave of the project: it has hello");
    project.refused(&["debug", "--gdb", "here"], "--gdb here is no port for gdb: write it as 127.0.0.1:1234");
    project.refused(&["debug", "--gdb", "192.0.2.1:1"], "use 127.0.0.1 and ssh -L, or add ,remote");
    project.refused(&["debug", "--gdb", "1234,nowait"], "leave out --reboot, --tty and ,nowait");

    // too large for the machine: EPC, and what Linux can swap it to
    let manifest = project.root().join("enclave/Cargo.toml");
    let before = fs::read_to_string(&manifest).unwrap();
    let heap = "[package.metadata.enclave]\nheap = \"100M\"\n";
    let larger = before.replace("heap = \"1M\"\n", "").replace("[package.metadata.enclave]\n", heap);
    fs::write(&manifest, larger).unwrap();
    project.refused(&["run", "--memory", "128M", "--epc", "2M"], "EADD would find no page");
    fs::write(
        &manifest,
        before.replace("[package.metadata.enclave]\n", "[package.metadata.enclave]\nheap-limit = \"100G\"\n"),
    )
    .unwrap();
    project.refused(&["build"], "exceeds 64 GiB");
    fs::write(&manifest, &before).unwrap();

    // what is not encrypted, and with what it is not
    project.refused(&["test", "--encrypted"], "leave out --encrypted");
    project.refused(&["debug", "--encrypted"], "leave out --encrypted");
    let debug = before.replace("[package.metadata.enclave]\n", "[package.metadata.enclave]\ndebug = true\n");
    fs::write(&manifest, debug).unwrap();
    project.refused(&["build", "--encrypted"], "hello is a debug enclave");
    fs::write(&manifest, &before).unwrap();
    let with = ["build", "--encrypted", "--encryption-key"];
    let key = project.root().join("some.key");
    for (content, mode, word) in [
        ("5a".repeat(32), 0o640, "open to others"),
        ("5a".repeat(31), 0o600, "is no key of 64 hexadecimal digits: `openssl rand -hex 32` makes one"),
    ] {
        fs::write(&key, content).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        project.refused(&[&with[..], &["some.key"]].concat(), word);
    }
    project.refused(&[&with[..], &["missing.key"]].concat(), "the key missing.key cannot be read");

    // keys and names
    project.refused(&["sign", "hello", "--key", "README.md"], "openssl genrsa -3 3072");
    project.refused(&["sign", "nobody", "--key", "README.md"], "it has hello");
    fs::write(project.root().join("empty.tbs"), b"").unwrap();
    let second = ["--signature", "empty.tbs", "--public-key", "README.md"];
    project.refused(&[&["sign", "hello", "--digest", "empty.tbs"], &second[..]].concat(), "digest");
    project.refused(&["sign", "hello", "--digest", "x.tbs", "--date", "today"], "--date today");

    // machines and projects, before anything is built
    project.refused(&["run", "--size", "Standard_D2s_v3"], "no size with an EPC");
    project.refused(&["run", "--size", "nonsense"], "is unknown: give --size");
    project.refused(&["run", "--project", "nowhere"], "nowhere is no folder");
    let nothing = project.enclave_in(project.dir.path(), &["build"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("kluis enclave new"), "{}", text(&nothing.stderr));
    let again = project.enclave_in(project.dir.path(), &["new", "hello"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("hello"), "{}", text(&again.stderr));
}
