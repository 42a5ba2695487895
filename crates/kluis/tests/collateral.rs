//! `kluis serve collateral`, through the built command. `dcap-qvl`'s client fetches from it
//! as from anybody, and verifies; curl, Python and OpenSSL judge TLS and the lists.

mod common;

use common::{Scratch, kluis, output, text};
use dcap::{Collateral, Root, Time};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::collateral::CollateralClient;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use manufacturer::Manufacturer;
use manufacturer::testing::{quote_of, report};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::cell::RefCell;
use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where [`client`] finds what it is to do.
const TASK: &str = "KLUIS_TEST_CLIENT";

/// A user of a platform of their own, with a service, and all that was said by it.
struct User {
    scratch: Scratch,
    said: RefCell<String>,
}

impl User {
    fn new() -> Self {
        let user = Self::without_platform();
        user.make_platform();
        user
    }

    fn without_platform() -> Self {
        Self { scratch: Scratch::new(), said: RefCell::default() }
    }

    /// A platform; for all users the same, in a folder of each's own: its key takes seconds to
    /// make.
    fn make_platform(&self) {
        static ROOTS: OnceLock<Vec<u8>> = OnceLock::new();
        let roots = ROOTS.get_or_init(|| {
            let first = Self::without_platform();
            first.works(&["platform", "init"]);
            fs::read(first.scratch.path("p/roots")).unwrap()
        });
        let folder = self.scratch.path("p");
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let roots_file = self.scratch.file("p/roots", roots);
        fs::set_permissions(roots_file, Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = kluis();
        command.current_dir(self.scratch.path("")).env("KLUIS_PLATFORM", self.scratch.path("p")).args(args);
        command
    }

    fn works(&self, args: &[&str]) {
        let out = output(&mut self.command(args), b"");
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    }

    #[track_caller]
    fn refused(&self, args: &[&str], words: &[&str]) {
        let out = output(&mut self.command(&[&["serve", "collateral"], args].concat()), b"");
        let said = text(&out.stderr);
        assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(2), ""), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }

    fn serve(&self) -> Service {
        let mut command =
            self.command(&["serve", "collateral", "--listen", "127.0.0.1:0", "--verbose", "--json"]);
        Service::start(&mut command)
    }

    fn maker(&self) -> Manufacturer {
        Manufacturer::open(&self.scratch.path("p")).unwrap().unwrap()
    }

    fn root(&self) -> Root {
        self.maker().root().unwrap()
    }

    /// A quote of the platform of today.
    fn quote(&self) -> Vec<u8> {
        quote_of(&self.maker(), &report(), now()).unwrap().to_bytes().unwrap()
    }

    /// What `dcap-qvl` fetches for a quote, in a process of its own that trusts this file.
    fn fetch(&self, url: &str, trusted: &Path, quote: &[u8]) -> Result<QuoteCollateralV3, String> {
        self.scratch.file("quote", quote);
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "client", "--ignored", "--nocapture"])
            .current_dir(self.scratch.path(""))
            .env(TASK, url)
            .env("SSL_CERT_FILE", trusted)
            .env_remove("SSL_CERT_DIR")
            .env("no_proxy", "*");
        let out = output(&mut command, b"");
        let fetched = fs::read(self.scratch.path("fetched"));
        let _ = fs::remove_file(self.scratch.path("fetched"));
        match fetched {
            Ok(json) if out.status.success() => Ok(serde_json::from_slice(&json).unwrap()),
            _ => Err(text(&out.stdout) + &text(&out.stderr)),
        }
    }

    /// What `dcap-qvl` says of a quote and what it fetched; we say the same.
    fn verify(&self, quote: &[u8], collateral: &QuoteCollateralV3) -> Result<VerifiedReport, String> {
        let (root, at) = (self.root(), now());
        let ours = Collateral::from_json(&serde_json::to_string(collateral).unwrap()).unwrap();
        let ours = dcap::verify(quote, &ours, &root, at);
        let theirs =
            QuoteVerifier::new(root.certificate().der().to_vec()).verify(quote, collateral, at.unix());
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours.tcb.status.to_string(), theirs.status);
                assert_eq!(ours.tcb.advisory_ids, theirs.advisory_ids);
            }
            (Err(_), Err(_)) => {}
            _ => panic!("{ours:?}, {theirs:?}"),
        }
        theirs.map_err(|e| format!("{e:#}"))
    }

    /// What curl gets: exit code, and headers and body.
    fn curl(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--noproxy", "*"]).args(args);
        let out = output(&mut command, b"");
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &text(&out.stderr);
        self.said.borrow_mut().push_str(&said);
        (out.status.code().unwrap(), said)
    }
}

/// The service as a process; ended by SIGTERM when dropped.
struct Service {
    child: Child,
    ready: Value,
    log: Arc<Mutex<String>>,
}

impl Service {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (log, stderr) = (Arc::new(Mutex::new(String::new())), child.stderr.take().unwrap());
        let lines = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            thread::sleep(Duration::from_millis(200));
            panic!("{line:?}, {}", log.lock().unwrap())
        });
        Self { child, ready, log }
    }

    fn ready(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    /// What it has told so far, once that includes `word`.
    fn log(&self, word: &str) -> String {
        for _ in 0..600 {
            let log = self.log.lock().unwrap().clone();
            if log.contains(word) {
                return log;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{word:?} is not in {}", self.log.lock().unwrap());
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Signal::TERM);
        }
    }
}

fn now() -> Time {
    Time::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Not a test: what other tests run as a process, for whom it trusts is said by its
/// environment. The client is `dcap-qvl`'s with its own transport.
#[test]
#[ignore = "a part of the other tests"]
fn client() {
    let Ok(url) = env::var(TASK) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = CollateralClient::with_default_http(url).unwrap();
    let collateral = runtime.block_on(client.fetch(&fs::read("quote").unwrap())).unwrap();
    fs::write("fetched", serde_json::to_vec(&collateral).unwrap()).unwrap();
}

#[test]
fn another_verifiers_client_fetches_all_it_needs() {
    let user = User::new();
    let service = user.serve();
    let (url, ca) = (format!("https://{}", service.ready("address")), Path::new(service.ready("tls_ca")));
    let quote = user.quote();
    let fetch = |quote: &[u8]| user.fetch(&url, ca, quote).unwrap();
    let fresh = fetch(&quote);
    let verdict = user.verify(&quote, &fresh).unwrap();
    assert_eq!((verdict.status.as_str(), verdict.advisory_ids.len()), ("UpToDate", 0));
    // all of it is the service's
    let log = service.log("rootcacrl");
    for asked in ["pckcrl?ca=platform&encoding=der", "tcb?fmspc=4B4C55490001&update=standard", "qe/identity?"]
    {
        assert!(log.contains(&format!("GET /sgx/certification/v4/{asked}")), "{log}");
    }
    assert!(log.lines().count() == 4 && log.lines().all(|line| line.contains(" 200 ")), "{log}");
    // the same as the maker says
    let issued = user.maker().issued(now()).unwrap().collateral;
    assert_eq!(fresh.tcb_info, issued.tcb_info);
    assert_eq!((&fresh.root_ca_crl, &fresh.pck_crl), (&issued.root_ca_crl, &issued.pck_crl));

    // whom the client has not been told to believe
    let other = user.scratch.file("other.pem", include_bytes!("../../dcap/testdata/README.md"));
    let refused = user.fetch(&url, Path::new(&other), &quote).unwrap_err();
    assert!(refused.to_lowercase().contains("certificate") || refused.contains("builder"), "{refused}");

    // the drills show in the next answer
    user.works(&["platform", "update", "--advisory", "KLUIS-SA-00001"]);
    let verdict = user.verify(&quote, &fetch(&quote)).unwrap();
    assert_eq!(
        (verdict.status.as_str(), &verdict.advisory_ids[..]),
        ("OutOfDate", &["KLUIS-SA-00001".to_owned()][..])
    );
    user.works(&["platform", "update", "--svn-up"]);
    let newer = user.quote();
    let collateral = fetch(&newer);
    assert_eq!(user.verify(&newer, &collateral).unwrap().status, "UpToDate");
    assert_eq!(user.verify(&quote, &fetch(&quote)).unwrap().status, "OutOfDate");
    user.works(&["platform", "revoke"]);
    let collateral = fetch(&newer);
    let refused = user.verify(&newer, &collateral).unwrap_err();
    assert!(refused.to_lowercase().contains("revoked"), "{refused}");
    assert_eq!(user.verify(&quote, &fetch(&quote)).unwrap().status, "OutOfDate");
}

#[test]
fn curl_python_and_openssl_agree() {
    let user = User::new();
    let mut service = user.serve();
    let port = service.ready("address").rsplit_once(':').unwrap().1.to_owned();
    let base = format!("https://localhost:{port}/sgx/certification/v4");
    let ca = service.ready("tls_ca").to_owned();
    let get = |path: &str| {
        let (code, said) = user.curl(&["--cacert", &ca, &format!("{base}/{path}")]);
        assert_eq!(code, 0, "{path}: {said}");
        said
    };
    let status = |path: &str| get(path).split(' ').nth(1).unwrap().to_owned();
    let body = |path: &str| get(path).split_once("\r\n\r\n").unwrap().1.to_owned();
    let file = |name: &str, path: &str| user.scratch.file(name, body(path));

    // TLS: who is told to believe the authority does, nobody else
    assert_eq!(user.curl(&[&format!("{base}/rootcacrl")]).0, 60);
    let python = "import ssl, sys, urllib.request as r\n\
        c = ssl.create_default_context(cafile=sys.argv[2]); c.verify_flags |= ssl.VERIFY_X509_STRICT\n\
        o = r.build_opener(r.ProxyHandler({}), r.HTTPSHandler(context=c))\n\
        print(o.open(sys.argv[1]).headers['Request-ID'])";
    let id = run(
        "python3",
        &["-c", python, &format!("https://127.0.0.1:{port}/sgx/certification/v4/fmspcs"), &ca],
    );
    assert_eq!(id.trim().len(), 32, "{id}");
    service.log(id.trim());
    let x509 = run(
        "openssl",
        &["x509", "-in", &ca, "-noout", "-subject", "-ext", "nameConstraints,basicConstraints"],
    );
    for word in
        ["Kluis collateral service", "Kluis software platform", "Permitted", "DNS:localhost", "pathlen:0"]
    {
        assert!(x509.contains(word), "{word} is not in {x509}");
    }

    // the PCK certificate of the platform's TCB, its chain and lists, as OpenSSL sees them
    let raw = format!("pckcert?qeid={}&cpusvn=01{}&pcesvn=0100&pceid=0000", "ab".repeat(16), "00".repeat(15));
    let pck = get(&raw).to_lowercase();
    for header in [
        format!("sgx-tcbm: 01{}0100\r", "00".repeat(15)),
        "sgx-fmspc: 4b4c55490001\r".into(),
        "sgx-pck-certificate-ca-type: platform\r".into(),
        "content-type: application/x-pem-file\r".into(),
        "sgx-pck-certificate-issuer-chain: -----begin%20certificate-----%0a".into(),
    ] {
        assert!(pck.contains(&header), "{header} is not in {pck}");
    }
    let issued = user.maker().issued(now()).unwrap();
    let root = user.scratch.file("root.pem", dcap::pki::to_pem([issued.root.der()]));
    let chain = user.scratch.file("chain.pem", &issued.collateral.pck_crl_issuer_chain);
    let lists = body("pckcrl?ca=platform&encoding=pem") + &body("rootcacrl?encoding=pem");
    let lists = user.scratch.file("lists.pem", lists);
    let leaf = file("pck.pem", &raw);
    let verify =
        ["verify", "-crl_check_all", "-CAfile", &root, "-untrusted", &chain, "-CRLfile", &lists, &leaf];
    assert!(run("openssl", &verify).contains("OK"));
    let digits = body("rootcacrl");
    assert_eq!(dcap::hex::decode(&digits, "list").unwrap(), issued.collateral.root_ca_crl);
    assert_eq!(body("pckcrl?ca=platform"), dcap::hex::encode(&issued.collateral.pck_crl));

    // documents
    let tcb = get("tcb?fmspc=4b4c55490001");
    assert!(tcb.contains("\r\ntcb-info-issuer-chain: -----BEGIN%20CERTIFICATE"), "{tcb}");
    let tcb: Value = serde_json::from_str(&body("tcb?fmspc=4b4c55490001&tcbEvaluationDataNumber=1")).unwrap();
    assert_eq!((&tcb["tcbInfo"]["id"], tcb["signature"].as_str().unwrap().len()), (&"SGX".into(), 128));
    let identity = get("qe/identity");
    assert!(identity.contains("\r\nsgx-enclave-identity-issuer-chain: -----BEGIN"), "{identity}");
    assert_eq!(body("fmspcs"), r#"[{"fmspc":"4B4C55490001","platform":"Kluis"}]"#);

    // what there is not
    for (path, expected) in [
        ("tcb?fmspc=00906ED50000", "404"),
        ("tcb?fmspc=4b4c55490001&tcbEvaluationDataNumber=0", "410"),
        ("tcb?fmspc=4b4c55490001&tcbEvaluationDataNumber=2", "404"),
        (&raw.replace("cpusvn=01", "cpusvn=02"), "404"),
        (&raw.replace("pceid=0000", "pceid=0100"), "404"),
        (&raw.replace("pcesvn=0100", "pcesvn=0000"), "404"),
        ("pckcrl?ca=processor", "404"),
        ("qve/identity", "404"),
        ("nothing", "404"),
        ("tcb?fmspc=%4", "400"),
        ("tcb?fmspc=4b4c5549", "400"),
        ("tcb?fmspc=4b4c55490001&fmspc=4b4c55490001", "400"),
        (&format!("tcb?fmspc={}", "4b".repeat(20_000)), "431"),
    ] {
        assert_eq!(status(path), expected, "{path}");
    }
    let tdx = format!("https://localhost:{port}/tdx/certification/v4/tcb?fmspc=4b4c55490001");
    assert!(user.curl(&["--cacert", &ca, &tdx]).1.contains("have no TDX"));
    let (_, posted) = user.curl(&["--cacert", &ca, "--data", "x", &format!("{base}/rootcacrl")]);
    assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD"), "{posted}");

    // clients that do not speak TLS, or not at all
    let _silent: Vec<TcpStream> = (0..20).map(|_| connect(&port)).collect();
    let mut plain = connect(&port);
    plain.write_all(b"GET /sgx/certification/v4/rootcacrl HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut told = String::new();
    plain.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    assert_eq!(body("rootcacrl"), digits);

    // a platform that is not there for a moment
    let (here, away) = (user.scratch.path("p"), user.scratch.path("away"));
    let ca = user.scratch.file("ca.pem", fs::read(&ca).unwrap());
    fs::rename(&here, &away).unwrap();
    let (_, failed) = user.curl(&["--cacert", &ca, &format!("{base}/rootcacrl")]);
    fs::rename(&away, &here).unwrap();
    assert!(failed.starts_with("HTTP/1.1 500 ") && !failed.contains(here.to_str().unwrap()), "{failed}");
    assert!(service.log("ERROR").contains("no platform"));
    assert_eq!(body("rootcacrl"), digits);

    // the authority is the same for ever, and wherever it is written
    assert_eq!(service.end(Signal::INT).code(), Some(0));
    let elsewhere = user.scratch.at("elsewhere.pem");
    let again = ["serve", "collateral", "--listen", "127.0.0.1:0", "--json", "--tls-ca", &elsewhere];
    let mut second = Service::start(&mut user.command(&again));
    assert_eq!(second.ready("tls_ca_fingerprint"), service.ready("tls_ca_fingerprint"));
    assert_eq!(fs::read(elsewhere).unwrap(), fs::read(&ca).unwrap());
    assert_eq!(second.end(Signal::TERM).code(), Some(0));
    assert_eq!(*second.log.lock().unwrap(), "", "without --verbose nothing is told");

    // nobody was told a secret
    let roots = fs::read(user.scratch.path("p/roots")).unwrap();
    let told = (user.said.borrow().clone() + &service.log.lock().unwrap()).to_lowercase();
    assert!(told.contains("pckcrl") && !told.contains("private key"));
    let key = String::from_utf8_lossy(&roots[16 + 122..]).lines().nth(2).unwrap().to_lowercase();
    assert!(key.len() == 64 && !told.contains(&key));
    for secret in roots[16 + 32..16 + 80].windows(8).chain(roots[16 + 88..16 + 120].windows(8)) {
        assert!(!told.contains(&dcap::hex::encode(secret)));
    }
}

fn connect(port: &str) -> TcpStream {
    TcpStream::connect(format!("127.0.0.1:{port}")).unwrap()
}

/// What a tool that must succeed prints.
fn run(tool: &str, args: &[&str]) -> String {
    let out = output(Command::new(tool).args(args), b"");
    assert!(out.status.success(), "{tool} {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

#[test]
fn what_cannot_be_served_is_refused_in_one_line() {
    let user = User::without_platform();
    user.refused(&["--listen", "127.0.0.1:0"], &["no platform", "kluis platform init"]);
    user.make_platform();
    user.refused(&["--listen", "localhost"], &["--listen localhost"]);
    user.refused(&["--listen", "0.0.0.0:0"], &["0.0.0.0:0 is open to other hosts", "--other-hosts"]);
    user.refused(&["--listen", "0.0.0.0:0", "--other-hosts"], &["no certificate can be made", "name one"]);
    user.refused(&["--listen", "127.0.0.1:0", "--tls-ca", "no/such/file"], &["cannot write no/such/file"]);
    let service = user.serve();
    user.refused(&["--listen", service.ready("address")], &["cannot listen", "--listen"]);
}
