//! The runtime of enclaves in a machine: `guest/enclave-check` has an enclave, a good
//! host that tries all that the runtime offers, and a bad one that tries what it must not
//! allow.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::checked::{KEY, KEYS, config, enclave, encrypted, host, signed};
use common::gdb::Machine;
use common::session::Session;
use common::{Scratch, guest, kluis, output, output_within, platform, text, turn};
use dcap::policy::Digest;
use enclave_abi::encrypted::{Payload, Piece, SEALED_SIZE};
use enclave_image::{Config, Enclave, SigningKey, encrypt, sigstruct};
use manufacturer::Manufacturer;
use manufacturer::testing::quote_of;
use ratls::{Policy, Refusal, Time, Verifier, client_config, refusal_of};
use rustls::{ClientConnection, StreamOwned};
use sgx_abi::Report;
use zerocopy::{FromBytes, IntoBytes};

/// Limit of each run, for a machine whose host is busy.
const TIMEOUT: &str = "500s";

/// Files for a machine, by their names.
struct Package(Vec<(String, Vec<u8>)>);

impl Package {
    fn new() -> Self {
        Self(vec![("enclave-check".into(), host().to_vec())])
    }

    /// Adds an enclave as NAME.sgxs and NAME.sig.
    fn enclave(mut self, name: &str, choices: serde_json::Value, signer: usize) -> Self {
        let (stream, signature) = enclave(choices, signer);
        self.0.push((format!("{name}.sgxs"), stream));
        self.0.push((format!("{name}.sig"), signature));
        self
    }

    /// The same of an encrypted one for production, for which there is NAME.key too.
    fn encrypted(self, name: &str, mut choices: serde_json::Value) -> Self {
        choices["debug"] = false.into();
        let config = config(choices);
        self.signed(name, &encrypted(&config), &config).file(&format!("{name}.key"), KEY.into())
    }

    fn signed(self, name: &str, made: &Enclave, config: &Config) -> Self {
        let (stream, signature) = signed(made, config, 0);
        self.file(&format!("{name}.sgxs"), stream).file(&format!("{name}.sig"), signature)
    }

    fn file(mut self, name: &str, content: Vec<u8>) -> Self {
        self.0.push((name.into(), content));
        self
    }

    fn archive(&self) -> Vec<u8> {
        let files: Vec<_> = self.0.iter().map(|(name, content)| (&**name, &**content)).collect();
        guest::archive(&files)
    }

    /// Runs a script in a machine with these files; its output, and that of its errors.
    fn run(&self, args: &[&str], script: &str) -> (Vec<u8>, String) {
        self.run_within(Duration::from_secs(500), args, script)
    }

    /// The same for what takes longer.
    fn run_within(&self, limit: Duration, args: &[&str], script: &str) -> (Vec<u8>, String) {
        let s = Scratch::new();
        let mut command = kluis();
        let timeout = format!("{}s", limit.as_secs());
        command.env("XDG_RUNTIME_DIR", s.at("")).args(["run", "--quiet", "--timeout", &timeout]).args(args);
        command.args(["--", "sh", "-c", &format!("cd /tmp; tar x\n{script}")]);
        let out = output_within(limit + Duration::from_secs(60), &mut command, &self.archive());
        let (said, errors) = (text(&out.stdout), text(&out.stderr));
        println!("{said}{errors}");
        assert_eq!(out.status.code(), Some(0), "{said}{errors}");
        (out.stdout, errors)
    }
}

fn none() -> serde_json::Value {
    serde_json::json!({})
}

fn has(said: &[u8], lines: &[&str]) {
    let said = text(said);
    for line in lines {
        assert!(said.lines().any(|l| l.contains(line)), "{line}: {said}");
    }
}

#[test]
fn the_runtime_keeps_its_promises() {
    let _turn = turn();
    let package = Package::new()
        .enclave("check", none(), 0)
        .enclave("production", serde_json::json!({ "debug": false }), 0)
        .enclave("exinfo", serde_json::json!({ "exinfo": true }), 0)
        .enclave("newer", serde_json::json!({ "svn": 3 }), 0)
        .enclave("older", serde_json::json!({ "svn": 1 }), 0)
        .enclave("other", none(), 1)
        .enclave("product", serde_json::json!({ "product": 8 }), 0)
        .encrypted("locked", none())
        .encrypted("knowing", serde_json::json!({ "exinfo": true }));
    let script = "set -e\nc() { n=$1; shift; ./enclave-check $n.sgxs $n.sig $@; }\n\
        c locked encrypted locked.key; c knowing encrypted knowing.key lie; \
        c check check; c check bench 20 --json; c exinfo sgx2; c production production; c check seal s; \
        for n in check newer older other product; do echo $n; c $n unseal s; done";
    // less EPC than the heap grows to
    let args = ["--size", "Standard_DC2s_v3", "--memory", "1G", "--epc", "8M", "--stats", "--json"];
    let (said, stats) = package.run(&args, script);
    has(
        &said,
        &[
            "calls in calls in calls: ok",
            "arguments beyond the heap: ok",
            "algorithms: AES-128-GCM, AES-256-GCM, SHA-256, SHA-512, ECDSA P-256: ok",
            "reports verify, changed ones do not: ok",
            "a generator for crates: ok",
            "keys of EGETKEY: ok",
            "a value that all need is made once: ok",
            "and nothing was lost: ok",
            "#UD is handled inside: ok",
            "Panic is told: ok",
            "the heap grows: ok",
            "to its limit: ok",
            "#PF is handled inside, with its address: ok",
            "a panic is told without its message: ok",
            "a fault without its place: ok",
            "every function but one is refused as locked: ok",
            "nor if one piece is not: ok",
            "its code is not in its file: ok",
            "nor are its texts: ok",
            "its code cannot be written: the EPCM refuses: ok",
            "unlocked: ok",
        ],
    );
    assert_eq!(text(&said).matches("pages that are not restricted are not accepted: ok").count(), 2);
    assert!(!text(&said).contains("printed: "));
    let [ewb, eldu, eaug] = ["EWB", "ELDU", "EAUG"].map(|leaf| guest::leaves(&stats, leaf));
    assert!(ewb > 1000 && eldu > 1000 && eaug > 3000, "EWB {ewb}, ELDU {eldu}, EAUG {eaug}");
    let said_of = text(&said);
    let figures = said_of.lines().find(|line| line.starts_with('{')).unwrap();
    let figures: serde_json::Value = serde_json::from_str(figures).unwrap();
    let rates = figures["per_second"].as_object().unwrap();
    assert!(rates.len() == 7 && rates.values().all(|rate| rate.as_f64().unwrap() > 0.0), "{figures}");
    let unsealed = text(&said).split("check\nEnclave: svn").nth(1).map(|rest| format!("Enclave: svn{rest}"));
    assert_eq!(
        unsealed.unwrap(),
        "Enclave: svn 2, current true: ok\nSigner: svn 2, current true: ok\n\
         newer\nEnclave: svn 2, current false: ok\nSigner: svn 2, current false: ok\n\
         older\nEnclave: Downgrade\nSigner: Downgrade\n\
         other\nEnclave: svn 2, current true: ok\nSigner: Authentication\n\
         product\nEnclave: Authentication\nSigner: Authentication\n"
    );
}

#[test]
fn a_malicious_host() {
    let _turn = turn();
    let package = Package::new().enclave("check", none(), 0).encrypted("locked", none());
    let script = "set -e\n./enclave-check locked.sgxs locked.sig encrypted locked.key; \
        ./enclave-check check.sgxs check.sig check; ./enclave-check check.sgxs check.sig attack 200 1";
    let (said, _) = package.run(&["--size", "Standard_DC2s_v2", "--memory", "512M"], script);
    has(
        &said,
        &[
            "none is seen inside: ok",
            "refused, nothing written: ok",
            "waiting for a return: calls, exceptions and unknown commands are refused: ok",
            "and no second one: ok",
            "fuzzed arguments: ",
            "memory that changes: ",
            "mailboxes in the enclave, across its ends, unaligned, told twice: not used: ok",
            "a mailbox that changes at any time: ",
            "a percentage beyond a hundred is no percentage: ok",
            "results of any code, length and content are a value or an error: ok",
            "entries between an interrupt and its resumption are refused: ok",
            "no count is lost: ok",
            "every function but one is refused as locked: ok",
            "other commands, and messages in the enclave: refused, nothing written: ok",
            "wrong keys, sealed ones of nobody's, messages that are none: told, and still locked: ok",
            "it is unlocked once: ok",
            "its code can be written, without SGX2: ok",
            "unlocked: ok",
        ],
    );
}

/// With numbers that no run before had; the seed is printed, and taken from
/// KLUIS_ATTACK_SEED.
#[test]
#[ignore = "a minute: cargo test --profile tested -p kluis --test enclave -- --ignored at_length"]
fn a_malicious_host_at_length() {
    let _turn = turn();
    let seed = std::env::var("KLUIS_ATTACK_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64
    });
    let package = Package::new().enclave("check", none(), 0);
    let script = format!("./enclave-check check.sgxs check.sig attack 5000 {seed}");
    let hour = Duration::from_secs(3600);
    let (said, _) = package.run_within(hour, &["--size", "Standard_DC2s_v2", "--memory", "512M"], &script);
    has(&said, &[&format!("5000 rounds, seed {seed}"), "no count is lost: ok"]);
}

#[test]
fn sealed_data_outlasts_the_machine_and_stays_on_its_platform() {
    let _turn = turn();
    let s = Scratch::new();
    let other = s.at("other");
    platform::Platform::load_or_init(Path::new(&other)).unwrap();
    let size = ["--size", "Standard_DC1s_v2", "--memory", "256M"];
    let package = Package::new().enclave("check", none(), 0).encrypted("locked", none());
    let seal = "./enclave-check check.sgxs check.sig seal s >&2 && \
        ./enclave-check locked.sgxs locked.sig unlock locked.key k >&2 && cat k s.enclave s.signer";
    let (sealed, errors) = package.run(&size, seal);
    assert!(errors.contains("Signer: unsealed at once: ok"), "{errors}");
    let (key, sealed) = sealed.split_at(SEALED_SIZE);
    let (enclave, signer) = sealed.split_at(sealed.len() / 2);
    let package = package.file("s.enclave", enclave.to_vec()).file("s.signer", signer.to_vec());
    let package = package.file("k", key.to_vec());
    // the sealed key opens it without the key file
    let unseal = "./enclave-check check.sgxs check.sig unseal s; \
        ./enclave-check locked.sgxs locked.sig unlock nowhere.key k; true";
    let (said, _) = package.run(&size, unseal);
    has(&said, &["Enclave: svn 2, current true: ok", "Signer: svn 2, current true: ok", "unlocked: ok"]);
    let (said, _) = package.run(&[&size[..], &["--platform", &other]].concat(), unseal);
    has(&said, &["Enclave: Authentication", "Signer: Authentication", "there is no nowhere.key"]);
}

/// A start from a snapshot is a power transition: what was in the EPC is gone.
#[test]
fn an_enclave_that_was_lost_is_loaded_again() {
    let _turn = turn();
    let s = Scratch::new();
    let package = Package::new().enclave("check", none(), 0);
    let archive = package.archive();
    let script = format!(
        "cd /tmp; head -c {} | tar x; ./enclave-check check.sgxs check.sig lost; echo ended $?",
        archive.len()
    );
    let own = |args: &[&str]| {
        let mut command = kluis();
        command.env("XDG_RUNTIME_DIR", s.at("")).args(args);
        command
    };
    let args = ["run", "--quiet", "--timeout", TIMEOUT, "--memory", "256M", "--", "sh", "-c", &script];
    let mut machine = own(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // without an end of its input the enclave is held
    let mut input = machine.stdin.take().unwrap();
    input.write_all(&archive).unwrap();
    let mut lines = BufReader::new(machine.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "holding"));
    let snap = s.at("held.snap");
    let taken = output(&mut own(&["snapshot", "take", &snap]), b"");
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    machine.kill().unwrap();
    machine.wait().unwrap();
    let again = output(&mut own(&["run", "--quiet", "--timeout", TIMEOUT, "--snapshot", &snap]), b"");
    has(
        &again.stdout,
        &[
            "the enclave is lost; load it again",
            "then: Err(Call(Lost { reloaded: true }))",
            "the loss is told: ok",
            "after that: Ok(0)",
            "ended 0",
        ],
    );
}

/// Whoever has gdb's port sees of an enclave for production what the guest's root does.
#[test]
fn a_debugger_sees_nothing_of_an_enclave_for_production() {
    let _turn = turn();
    let package = Package::new().enclave("closed", serde_json::json!({ "debug": false }), 0);
    let archive = package.archive();
    let script =
        format!("cd /tmp; head -c {} | tar x; ./enclave-check closed.sgxs closed.sig inside", archive.len());
    let args = ["--gdb", "127.0.0.1:0,nowait", "--memory", "256M", "--", "sh", "-c", &script];
    let mut machine = Machine::start(&args);
    machine.child.stdin.take().unwrap().write_all(&archive).unwrap();
    machine.until("inside");
    let look = [
        "monitor cpus",
        "printf \"exit %d, rax %lx, rdx %lx, r15 %lx\\n\", $rip == $rcx, $rax, $rdx, $r15",
        "x/2gx $rbx",
        // the TCS's FLAGS: opts in whom it may
        "set {long}($rbx + 8) = 1",
        "x/gx $rbx + 8",
        "set $rdx = 7",
        "monitor regs 1",
        "info threads",
    ];
    // at times the kernel has the processor
    let inside = || {
        let looks = std::iter::repeat_with(|| machine.gdb(&look)).take(20);
        looks.into_iter().find(|said| said.contains("Thread 1.1 (inside an enclave)")).expect("inside")
    };
    for _ in 0..2 {
        let said = inside();
        let ones = "0xffffffffffffffff";
        assert_eq!(said.matches(ones).count(), 3, "TCS and its FLAGS: {said}");
        for part in [
            "exit 1, rax 3, rdx 0, r15 0\n",
            "Could not write register \"rdx\"",
            "processor 1: inside an enclave; its registers are closed to debuggers\n",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(said.matches("its registers are closed").count(), 2, "cpus and regs: {said}");
    }
    machine.gdb(&["kill"]);
    assert_eq!(machine.end(), Some(125));
}

/// Adds encrypted enclaves of which something was changed and, where nothing else is said,
/// signed again: names, what is done with them, and what comes of it.
fn with_changed_ciphertext(package: Package) -> (Package, Vec<(&'static str, &'static str, &'static str)>) {
    let config = config(serde_json::json!({ "debug": false }));
    let good = encrypted(&config);
    // another build with the same key: its layout is another
    let other = encrypted(&self::config(serde_json::json!({ "debug": false, "heap": "1M" })));
    let payload = encrypt::payload(&good).unwrap();
    let other_payload = encrypt::payload(&other).unwrap();
    let code = payload.pieces().iter().position(|piece| piece.rights == 5).unwrap();
    assert_ne!(payload.id, other_payload.id);
    assert_eq!(payload.pieces[code].size, other_payload.pieces[code].size);
    let changed = |change: &dyn Fn(&mut Enclave)| {
        let mut made = good.clone();
        change(&mut made);
        made
    };
    let described = |change: &dyn Fn(&mut Payload)| changed(&|made| describe(made, change));
    let flipped = changed(&|made| content(made, payload.pieces[code].offset)[17] ^= 1);
    let exchanged = changed(&|made| {
        let piece = payload.pieces[code];
        for offset in (piece.offset..piece.end()).step_by(4096) {
            *content(made, offset) = *content(&mut other.clone(), offset);
        }
    });
    let mut with_tag = exchanged.clone();
    describe(&mut with_tag, &|p| p.pieces[code].tag = other_payload.pieces[code].tag);
    let last = payload.count as usize - 1;
    let cut = described(&|p| (p.count, p.pieces[last]) = (last as u64, Piece::default()));
    let shorter = described(&|p| p.pieces[0].size -= 4096);
    let emptied = changed(&|made| content(made, payload.pieces[last].end() - 4096).fill(0));
    let (_, of_good) = signed(&good, &config, 0);
    let package = package
        .signed("locked", &good, &config)
        .file("locked.key", KEY.into())
        .file("wrong.key", KEY.replace('f', "e").into())
        .file("none.key", b"none".to_vec())
        .file("unsigned.sgxs", flipped.write())
        .file("unsigned.sig", of_good)
        .signed("flipped", &flipped, &config)
        .signed("exchanged", &exchanged, &config)
        .signed("with-tag", &with_tag, &config)
        .signed("one-less", &cut, &config)
        .signed("shorter", &shorter, &config)
        .signed("emptied", &emptied, &config);
    let (right, changed, wrong) = ("unlock locked.key", "ciphertext was changed", "the key is not the one");
    let cases = vec![
        ("locked", "load", "encrypted and this program has no key"),
        ("locked", "unlock missing.key", "there is no missing.key"),
        ("locked", "unlock none.key", "none.key is no key of 64 hexadecimal digits"),
        ("locked", "unlock wrong.key", wrong),
        ("unsigned", right, "SGX_INVALID_MEASUREMENT (4)"),
        ("flipped", right, changed),
        ("exchanged", right, changed),
        ("with-tag", right, wrong),
        ("one-less", right, wrong),
        ("shorter", right, wrong),
        ("emptied", right, changed),
    ];
    (package, cases)
}

fn content(made: &mut Enclave, offset: u64) -> &mut [u8; 4096] {
    let page = made.pages.iter_mut().find(|page| page.offset == offset).unwrap();
    page.data.as_mut().unwrap()
}

/// Changes what the loader knows of the payload.
fn describe(made: &mut Enclave, change: &dyn Fn(&mut Payload)) {
    let pages = made.pages.iter_mut().filter_map(|page| page.data.as_mut());
    let found = pages.flat_map(|data| data.chunks_exact_mut(size_of::<Payload>()));
    let place = found.into_iter().find(|bytes| bytes.starts_with(&Payload::MAGIC)).unwrap();
    let mut payload = Payload::read_from_bytes(place).unwrap();
    change(&mut payload);
    place.copy_from_slice(payload.as_bytes());
}

#[test]
fn what_is_wrong_with_an_enclave_is_told_in_a_line() {
    let _turn = turn();
    let (stream, signature) = enclave(none(), 0);
    let mut tampered = stream.clone();
    // a byte of the code
    let code = stream.windows(7).position(|w| w == b"EEXTEND").unwrap() + 64 + 200;
    tampered[code] ^= 1;
    let mut forged = signature.clone();
    forged[600] ^= 1;
    let (_, of_another) = enclave(serde_json::json!({ "threads": 2 }), 0);
    let package = Package::new()
        .file("good.sgxs", stream.clone())
        .file("good.sig", signature.clone())
        .file("cut.sgxs", stream[..stream.len() - 100].to_vec())
        .file("cut.sig", signature[..1000].to_vec())
        .file("tampered.sgxs", tampered)
        .file("forged.sig", forged)
        .file("another.sig", of_another)
        .enclave("kss", serde_json::json!({ "kss": true }), 0)
        .enclave("large", serde_json::json!({ "heap": "8M" }), 0);
    let (package, locked) = with_changed_ciphertext(package);
    let cases = [
        ("missing.sgxs", "good.sig", "cannot read missing.sgxs"),
        ("good.sgxs", "missing.sig", "not signed: there is no missing.sig"),
        ("cut.sgxs", "good.sig", "the SGXS file is damaged"),
        ("good.sgxs", "cut.sig", "1000 bytes instead of 1808 (SGX_INVALID_SIG_STRUCT)"),
        ("tampered.sgxs", "good.sig", "SGX_INVALID_MEASUREMENT (4)"),
        ("good.sgxs", "forged.sig", "SGX_INVALID_SIGNATURE (8)"),
        ("good.sgxs", "another.sig", "SGX_INVALID_MEASUREMENT (4)"),
        ("kss.sgxs", "kss.sig", "attributes that it lacks"),
    ];
    let [one, other] = KEYS.map(|key| {
        let mrsigner = SigningKey::from_pem(key).unwrap().public().mrsigner();
        enclave_image::inspect::hex(&mrsigner)
    });
    let script: String = cases
        .iter()
        .map(|(stream, signature, _)| format!("./enclave-check {stream} {signature} load\n"))
        .chain(
            ["production", &format!("load {other}"), "nobody", &format!("load {one}"), "load"]
                .map(|how| format!("./enclave-check good.sgxs good.sig {how}\n")),
        )
        .chain(locked.iter().map(|(name, how, _)| format!("./enclave-check {name}.sgxs {name}.sig {how}\n")))
        .chain(["echo ==; set -e\n".into()])
        .chain(
            [("good", "full"), ("large", "fill 7000000")]
                .map(|(name, how)| format!("./enclave-check {name}.sgxs {name}.sig {how}\n")),
        )
        .collect();
    let args = ["--size", "Standard_DC1s_v2", "--memory", "512M", "--epc", "2M", "--stats", "--json"];
    let (said, stats) = package.run(&args, &script);
    // an EPC that others have, or that is less than the enclave's heap
    has(
        &said,
        &[
            "others ECREATE: the EPC has no page for the enclave (ECREATE or EADD: ENOMEM): end other enclaves,",
            "EADD: the EPC has no page for the enclave (ECREATE or EADD: ENOMEM): end other enclaves,",
            "when the others have gone there are pages: ok",
            "7000000 bytes of heap are what was written: ok",
            "once more: ok",
            "and nothing else was lost: ok",
        ],
    );
    let [ewb, eldu] = ["EWB", "ELDU"].map(|leaf| guest::leaves(&stats, leaf));
    assert!(ewb > 3000 && eldu > 3000, "EWB {ewb}, ELDU {eldu}");
    let said = text(&said);
    let lines: Vec<_> = said.lines().take_while(|line| *line != "==").collect();
    let (lines, of_locked) = lines.split_at(lines.len() - locked.len());
    for ((name, how, expected), line) in locked.iter().zip(of_locked) {
        assert!(line.starts_with("FAILED: ") && line.contains(expected), "{name} {how}: {line}");
    }
    assert_eq!(lines.len(), cases.len() + 5, "{said}");
    for ((_, _, expected), line) in cases.iter().zip(lines) {
        assert!(line.starts_with("FAILED: ") && line.contains(expected), "{expected}: {line}");
    }
    let [debug, signer, nobody, loaded @ ..] = &lines[cases.len()..] else { panic!("{said}") };
    assert!(debug.starts_with("FAILED: it is a debug enclave (ATTRIBUTES.DEBUG)"), "{said}");
    let expected =
        format!("FAILED: the enclave is signed by {one}, this program takes those of {other} alone");
    assert!(signer.starts_with(&expected), "{said}");
    assert!(nobody.starts_with("FAILED: no permission to use /dev/sgx_enclave"), "{said}");
    assert_eq!(loaded, ["loaded", "loaded"]);
    // and where there is no SGX
    let s = Scratch::new();
    let program = s.file("enclave-check", host());
    let (stream, signature) = (s.file("good.sgxs", stream), s.file("good.sig", signature));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    if !Path::new("/dev/sgx_enclave").exists() {
        let out = output(Command::new(program).args([&stream, &signature, "load"]), &[]);
        has(&out.stdout, &["there is no /dev/sgx_enclave"]);
    }
}

/// A TLS client on the host, of an enclave in the machine. The quoting enclave's part is done
/// by the maker of the platform, for a report that the enclave has made.
#[test]
fn tls_ends_in_the_enclave() {
    let _turn = turn();
    let s = Scratch::new();
    let package = Package::new().enclave("production", serde_json::json!({ "debug": false }), 0);
    std::fs::create_dir(s.path("files")).unwrap();
    for (name, content) in &package.0 {
        std::fs::write(s.path("files").join(name), content).unwrap();
    }
    let share = format!("{}:/files", s.at("files"));
    // the share's files are not programs
    let script = "cp /files/* /tmp; cd /tmp; chmod +x enclave-check; \
        exec ./enclave-check production.sgxs production.sig tls 7000";
    let mut session = Session::start(
        kluis()
            .env("XDG_RUNTIME_DIR", s.at(""))
            .args(["run", "--timeout", TIMEOUT, "--memory", "256M", "--publish", "0:7000"])
            .args(["--share", &share, "--", "sh", "-c", script]),
    );
    let address = session.published(7000);
    let report: Vec<u8> = dcap::hex::decode(&session.hear_after("report "), "report").unwrap();
    let report = Report::read_from_bytes(&report).unwrap();
    let maker = Manufacturer::equip(platform()).unwrap();
    let now = Time::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let quote = quote_of(&maker, &report.body, now).unwrap().to_bytes().unwrap();
    session.say(&(dcap::hex::encode(&quote) + "\n"));
    session.hear("serving");

    let mrenclave = sigstruct::read(&package.0[2].1).unwrap().enclavehash;
    let talk = |mrenclave: [u8; 32]| {
        let policy = Policy {
            mrenclave: Some(Digest(mrenclave)),
            accept_software_platform: true,
            ..Policy::default()
        };
        let collateral = maker.issued(now).unwrap().collateral;
        let config = client_config(Verifier::new(maker.root().unwrap(), collateral, policy));
        let client = ClientConnection::new(config.into(), "enclave".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(client, TcpStream::connect(&address).unwrap());
        stream.write_all(b"hello, enclave")?;
        let mut answer = [0; 14];
        stream.read_exact(&mut answer)?;
        stream.conn.send_close_notify();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        assert!(rest.is_empty());
        std::io::Result::Ok(answer)
    };
    let other = talk([0x33; 32]).unwrap_err();
    let refusal = other.get_ref().and_then(|error| refusal_of(error.downcast_ref()?));
    assert_eq!(refusal.map(Refusal::rule), Some("mrenclave"), "{other}");
    for _ in 0..2 {
        assert_eq!(&talk(mrenclave).unwrap(), b"HELLO, ENCLAVE");
    }

    // the quote in a file, for those who judge it later
    let file = s.at("quote");
    for args in [&["quote", &address, "-o", &file][..], &["verify", &file, "--accept-software-platform"]] {
        let out = output(kluis().arg("attest").args(args), b"");
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    }
    assert_eq!(std::fs::read(&file).unwrap(), quote);
}
