//! Requests to the collateral service: [`collateral`].

use collateral::query::{Query, encode};
use collateral::{Question, refusal};
use http::{Method, Uri};

/// A request's target.
pub fn collateral_requests(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = Query::parse(&format!("a=1&x={}", encode(&text))).expect("what is encoded can be decoded");
    assert_eq!(query.get("x"), Some(&*text));
    ask(data);
}

/// What a target asks for, if that is a question.
pub fn ask(target: &[u8]) -> Option<Question> {
    // what HTTP's own rules refuse does not get here
    let target = Uri::try_from(target).ok()?;
    let [posted, got] = [Method::POST, Method::GET].map(|method| {
        Question::parse(&method, &target).inspect_err(|problem| {
            assert!([400, 404, 405].contains(&problem.status.as_u16()), "{problem:?}");
            assert!(!problem.text.contains(char::is_control), "{problem:?}");
            assert_eq!(refusal(problem).status(), problem.status);
        })
    });
    assert!(posted.is_err());
    got.ok()
}

/// What clients ask.
pub fn targets() -> Vec<Vec<u8>> {
    let pck = format!("pckcert?qeid=00&cpusvn=01{}&pcesvn=0100&pceid=0000", "00".repeat(15));
    let list = format!("crl?uri={}", encode(manufacturer::PCK_CRL));
    let with_ppid = format!("{pck}&encrypted_ppid={}", "0".repeat(768));
    [
        "pckcrl?ca=platform&encoding=der",
        "rootcacrl",
        "tcb?fmspc=4B4C55490001&update=early",
        "tcb?tcbEvaluationDataNumber=2&fmspc=4B4C55490001",
        "qe/identity?update=standard&customParameter=%2B%3D",
        "fmspcs?platform=all",
        &pck.replace("pckcert?", "pckcert?a=b&"),
        &with_ppid,
        &list,
    ]
    .map(|resource| format!("/sgx/certification/v4/{resource}").into_bytes())
    .to_vec()
}
