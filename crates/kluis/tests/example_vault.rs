//! `examples/vault`: secrets for those whom their owner names, as often and as long as the
//! owner says, by a vsock.

mod common;

use common::example::Example;
use common::session::Session;
use common::{output, text, turn};
use std::path::PathBuf;
use std::process::Command;

const SECRET: &str = "correct horse battery staple";

/// The vault's owner, its readers, and its operator.
struct People {
    example: Example,
    client: PathBuf,
}

/// A machine with the vault open.
struct Vault<'a> {
    people: &'a People,
    _session: Session,
    key: String,
}

impl People {
    fn new() -> Self {
        let example = Example::new("vault");
        let client = example.program("vault-client");
        std::fs::create_dir(example.user.path("folder")).unwrap();
        Self { example, client }
    }

    /// Makes a key; its public half.
    fn key(&self, name: &str) -> String {
        let out = output(Command::new(&self.client).args(["key", &self.example.user.at(name)]), b"");
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout).trim().to_owned()
    }

    fn state(&self) -> PathBuf {
        self.example.user.path("folder/vault.sealed")
    }

    fn open(&self) -> Vault<'_> {
        let socket = self.example.user.path("socket");
        let _ = std::fs::remove_file(&socket);
        let share = format!("{}:/vault", self.example.user.at("folder"));
        let listen = format!("7000={}", socket.display());
        let run = ["run", "--quiet", "--timeout", "500s", "--memory", "256M", "--vsock-listen", &listen];
        let host = ["--share", &share, "--", "/vault", "vsock:7000"];
        let mut session = Session::start(&mut self.example.enclave(&[&run[..], &host].concat()));
        let key = session.hear_after("vault ");
        Vault { people: self, _session: session, key }
    }
}

impl Vault<'_> {
    /// What somebody asks for, and what comes.
    fn ask(&self, who: &str, command: &str, rest: &[&str], input: &str) -> Result<String, String> {
        let user = &self.people.example.user;
        let mut client = Command::new(&self.people.client);
        client.args([command, &format!("unix:{}", user.at("socket")), &self.key, &user.at(who)]).args(rest);
        let out = output(&mut client, input.as_bytes());
        let (said, errors) = (text(&out.stdout), text(&out.stderr));
        match out.status.code() {
            Some(0) => Ok(said),
            Some(1) if said.is_empty() && errors.lines().count() == 1 => Err(errors.trim_end().to_owned()),
            code => panic!("{who} {command}: {code:?} {said}{errors}"),
        }
    }

    fn get(&self, who: &str) -> Result<String, String> {
        self.ask(who, "get", &["password"], "")
    }
}

#[test]
fn secrets_are_for_whom_as_often_and_as_long_as_their_owner_says() {
    let _turn = turn();
    let people = People::new();
    let [owner, ada, bob, eve] = ["owner", "ada", "bob", "eve"].map(|name| people.key(name));
    std::fs::write(people.example.user.path("folder/owner"), &owner).unwrap();

    let mut vault = people.open();
    let (twice, past) = (format!("{ada},reads=2"), format!("{bob},until=1000000000"));
    let put = |who: &str| vault.ask(who, "put", &["password", &twice, &past], SECRET);
    let why = |why: &str| Err(format!("vault-client: {why}"));
    assert_eq!(put("eve"), why("only the vault's owner may do that"));
    assert_eq!(put("owner"), Ok(String::new()));
    let first = std::fs::read(people.state()).unwrap();

    assert_eq!(vault.get("ada"), Ok(SECRET.into()));
    assert_eq!(vault.get("bob"), why("the time in which you may read it is over"));
    assert_eq!(vault.get("eve"), why("there is no such secret for you"));
    let list = format!("password\n  {ada} 1 times\n  {bob} always, until 1000000000\n");
    assert_eq!(vault.ask("owner", "list", &[], ""), Ok(list));
    assert_eq!(vault.get("ada"), Ok(SECRET.into()));
    assert_eq!(vault.get("ada"), why("you have read it as often as you may"));
    // what is encrypted for another vault is not for this one
    let key = std::mem::replace(&mut vault.key, eve);
    let forged = vault.get("ada").unwrap_err();
    assert!(forged.contains("the request is not that client's"), "{forged}");

    // what the host keeps tells nothing
    let last = std::fs::read(people.state()).unwrap();
    for state in [&first, &last] {
        assert!(!state.windows(8).any(|window| SECRET.as_bytes().windows(8).any(|wanted| window == wanted)));
    }
    drop(vault);

    // in another machine the vault is the same; set back, who has seen it later finds that
    std::fs::write(people.state(), &first).unwrap();
    let vault = people.open();
    assert_eq!(vault.key, key);
    let back = vault.get("ada").unwrap_err();
    assert!(back.contains("the vault was set back"), "{back}");
    drop(vault);
    std::fs::write(people.state(), &last).unwrap();
    let vault = people.open();
    assert_eq!(vault.get("ada"), why("you have read it as often as you may"));
    assert_eq!(vault.ask("owner", "remove", &["password"], ""), Ok(String::new()));
    assert_eq!(vault.ask("owner", "list", &[], ""), Ok(String::new()));
    drop(vault);

    // and what the enclave's own tests say, inside
    let out = people.example.works(&["test", "--quiet", "--timeout", "500s", "--memory", "256M"]);
    assert!(text(&out.stdout).contains("3 passed; 0 failed"), "{}", text(&out.stdout));
}
