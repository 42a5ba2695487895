use sgx_abi::AttributeFlags;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn roots() -> Roots {
    Roots {
        seal_fuses: [1; 16],
        provisioning_fuses: [2; 16],
        owner_epoch: [3; 16],
        cpusvn: 5,
        svn_secret: [4; 32],
    }
}

/// An enclave in which every field that a key may depend on is set.
fn secs() -> Secs {
    let mut secs = Secs {
        miscselect: MiscSelect::EXINFO,
        attributes: Attributes {
            flags: AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::KSS,
            xfrm: 7,
        },
        mrenclave: [0x11; 32],
        mrsigner: [0x12; 32],
        configid: [0x13; 64],
        isvprodid: 0x1415,
        isvsvn: 9,
        configsvn: 8,
        ..Secs::default()
    };
    secs.private.padding = PADDING;
    secs.private.isvfamilyid = [0x16; 16];
    secs.private.isvextprodid = [0x17; 16];
    secs
}

fn request(name: KeyName, keypolicy: KeyPolicy) -> Keyrequest {
    Keyrequest {
        keyname: name as u16,
        keypolicy,
        isvsvn: 6,
        cpusvn: [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        attributemask: Attributes { flags: AttributeFlags::MODE64BIT, xfrm: 3 },
        keyid: [0x21; 32],
        miscmask: 1,
        configsvn: 5,
        ..Keyrequest::default()
    }
}

struct Inputs {
    roots: Roots,
    secs: Secs,
    request: Keyrequest,
}

/// Changes the input and says what it is.
type Change = (&'static str, fn(&mut Inputs));

const CHANGES: &[Change] = &[
    ("seal fuses", |i| i.roots.seal_fuses[15] ^= 1),
    ("provisioning fuses", |i| i.roots.provisioning_fuses[0] ^= 1),
    ("owner epoch", |i| i.roots.owner_epoch[7] ^= 1),
    ("svn secret", |i| i.roots.svn_secret[31] ^= 1),
    ("SECS.MRENCLAVE", |i| i.secs.mrenclave[31] ^= 1),
    ("SECS.MRSIGNER", |i| i.secs.mrsigner[0] ^= 1),
    ("SECS.ISVPRODID", |i| i.secs.isvprodid ^= 0x8000),
    ("SECS.ISVSVN", |i| i.secs.isvsvn += 1),
    ("SECS.CONFIGID", |i| i.secs.configid[63] ^= 1),
    ("SECS.CONFIGSVN", |i| i.secs.configsvn += 1),
    ("SECS.ISVFAMILYID", |i| i.secs.private.isvfamilyid[0] ^= 1),
    ("SECS.ISVEXTPRODID", |i| i.secs.private.isvextprodid[0] ^= 1),
    ("SECS.PADDING", |i| i.secs.private.padding[100] ^= 1),
    ("SECS.DEBUG", |i| i.secs.attributes.flags ^= AttributeFlags::DEBUG),
    ("SECS.MODE64BIT", |i| i.secs.attributes.flags ^= AttributeFlags::MODE64BIT),
    ("SECS.XFRM, masked out", |i| i.secs.attributes.xfrm ^= 4),
    ("SECS.MISCSELECT", |i| i.secs.miscselect ^= MiscSelect::EXINFO),
    ("SECS.MISCSELECT, masked out", |i| i.secs.miscselect ^= MiscSelect::CPINFO),
    ("KEYREQUEST.ISVSVN", |i| i.request.isvsvn -= 1),
    ("KEYREQUEST.CPUSVN", |i| i.request.cpusvn[0] -= 1),
    ("KEYREQUEST.ATTRIBUTEMASK, of a bit not set", |i| i.request.attributemask.xfrm ^= 1 << 9),
    ("KEYREQUEST.ATTRIBUTEMASK, of INIT", |i| i.request.attributemask.flags ^= AttributeFlags::INIT),
    ("KEYREQUEST.KEYID", |i| i.request.keyid[31] ^= 1),
    ("KEYREQUEST.MISCMASK, of a bit not set", |i| i.request.miscmask ^= 1 << 5),
    ("KEYREQUEST.CONFIGSVN", |i| i.request.configsvn -= 1),
];

/// The SDM's table, one letter for each of [`CHANGES`]: `x` if the key depends on it.
#[rustfmt::skip]
const TABLE: &[(KeyName, KeyPolicy, &str)] = &[
    //                                                      roots SECS          REQUEST
    (KeyName::Seal, KeyPolicy::empty(),                    "xxxx..x.....xxx.x.xxxxxx."),
    (KeyName::Seal, KeyPolicy::MRENCLAVE,                  "xxxxx.x.....xxx.x.xxxxxx."),
    (KeyName::Seal, KeyPolicy::MRSIGNER,                   "xxxx.xx.....xxx.x.xxxxxx."),
    (KeyName::Seal, KeyPolicy::NOISVPRODID,                "xxxx........xxx.x.xxxxxx."),
    (KeyName::Seal, KeyPolicy::CONFIGID,                   "xxxx..x.x...xxx.x.xxxxxxx"),
    (KeyName::Seal, KeyPolicy::ISVFAMILYID,                "xxxx..x...x.xxx.x.xxxxxx."),
    (KeyName::Seal, KeyPolicy::ISVEXTPRODID,               "xxxx..x....xxxx.x.xxxxxx."),
    (KeyName::Seal, KeyPolicy::all(),                      "xxxxxx..x.xxxxx.x.xxxxxxx"),
    (KeyName::Report, KeyPolicy::empty(),                  "xxxxx...xx...xxxxx....x.."),
    (KeyName::Report, KeyPolicy::all(),                    "xxxxx...xx...xxxxx....x.."),
    (KeyName::Einittoken, KeyPolicy::empty(),              "xxxx.xx.....xxx.x.xx..x.."),
    (KeyName::Einittoken, KeyPolicy::all(),                "xxxx.xx.....xxx.x.xx..x.."),
    (KeyName::Provision, KeyPolicy::empty(),               ".x.x.xx.....xxx.x.xxxx.x."),
    (KeyName::Provision, KeyPolicy::all(),                 ".x.x.xx.....xxx.x.xxxx.x."),
    (KeyName::ProvisionSeal, KeyPolicy::empty(),           "xx.x.xx.....xxx.x.xxxx.x."),
    (KeyName::ProvisionSeal, KeyPolicy::MRENCLAVE,         "xx.x.xx.....xxx.x.xxxx.x."),
    (KeyName::ProvisionSeal, KeyPolicy::NOISVPRODID,       "xx.x.x......xxx.x.xxxx.x."),
    (KeyName::ProvisionSeal, KeyPolicy::CONFIGID,          "xx.x.xx.x...xxx.x.xxxx.xx"),
    (KeyName::ProvisionSeal, KeyPolicy::ISVFAMILYID,       "xx.x.xx...x.xxx.x.xxxx.x."),
    (KeyName::ProvisionSeal, KeyPolicy::ISVEXTPRODID,      "xx.x.xx....xxxx.x.xxxx.x."),
    (KeyName::ProvisionSeal, KeyPolicy::all(),             "xx.x.x..x.xxxxx.x.xxxx.xx"),
];

#[test]
fn each_key_depends_on_what_the_table_says_and_on_nothing_else() {
    for (name, policy, row) in TABLE {
        assert_eq!(row.len(), CHANGES.len());
        let inputs = || Inputs { roots: roots(), secs: secs(), request: request(*name, *policy) };
        let key = |i: &Inputs| requested_key(&i.roots, *name, &i.secs, &i.request).unwrap();
        let base = key(&inputs());
        for ((what, change), want) in CHANGES.iter().zip(row.chars()) {
            let mut other = inputs();
            change(&mut other);
            let depends = if key(&other) == base { '.' } else { 'x' };
            assert_eq!(depends, want, "{} with {policy:?}: {what}", name.name());
        }
    }
}

#[test]
fn policy_itself_counts_where_the_sdm_includes_it() {
    let bit = |name, policy| requested_key(&roots(), name, &secs(), &request(name, policy)).unwrap();
    let policies: Vec<_> = KeyPolicy::all().iter().chain([KeyPolicy::empty()]).collect();
    for name in KeyName::ALL {
        let mut keys: Vec<_> = policies.iter().map(|&p| *bit(name, p)).collect();
        keys.sort_unstable();
        keys.dedup();
        let counts = matches!(name, KeyName::Seal | KeyName::ProvisionSeal);
        assert_eq!(keys.len(), if counts { policies.len() } else { 1 }, "{}", name.name());
    }
    // even where the field that the bit adds is zero
    let empty = Secs::default();
    let key = |p| requested_key(&roots(), KeyName::Seal, &empty, &request(KeyName::Seal, p)).unwrap();
    assert_ne!(key(KeyPolicy::empty()), key(KeyPolicy::MRENCLAVE));
}

#[test]
fn key_names_never_meet() {
    let mut keys: Vec<_> = KeyName::ALL
        .iter()
        .map(|&n| *requested_key(&roots(), n, &secs(), &request(n, KeyPolicy::empty())).unwrap())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 5);
    // a blank request of a blank enclave: only the name differs
    let blank = |n| *requested_key(&roots(), n, &Secs::default(), &Keyrequest::default()).unwrap();
    assert_ne!(blank(KeyName::Seal), blank(KeyName::ProvisionSeal));
}

#[test]
fn reserved_and_unused_fields_of_the_request_do_not_count() {
    for name in KeyName::ALL {
        let plain = request(name, KeyPolicy::all());
        let other = Keyrequest {
            keyname: !0,
            reserved1: 1,
            reserved2: [1; 434],
            cet_attributes_mask: 1,
            ..plain.clone()
        };
        let key = |r| requested_key(&roots(), name, &secs(), r).unwrap();
        assert_eq!(key(&plain), key(&other));
    }
}

#[test]
fn report_key_is_the_one_the_target_gets() {
    let (roots, secs) = (roots(), secs());
    let keyid = [0x77; 32];
    let target = Targetinfo {
        measurement: secs.mrenclave,
        attributes: secs.attributes,
        configsvn: secs.configsvn,
        miscselect: secs.miscselect,
        configid: secs.configid,
        ..Targetinfo::default()
    };
    let made = report_key(&roots, &target, &keyid);
    let mut ask = request(KeyName::Report, KeyPolicy::empty());
    ask.keyid = keyid;
    assert_eq!(requested_key(&roots, KeyName::Report, &secs, &ask).unwrap(), made);
    // the request's CPUSVN, even one beyond, is not looked at
    ask.cpusvn = [0xff; 16];
    assert_eq!(requested_key(&roots, KeyName::Report, &secs, &ask).unwrap(), made);

    let mut others = Vec::new();
    for byte in (0..48).chain(50..52).chain(52..56).chain(64..128) {
        let mut other = target.clone();
        other.as_mut_bytes()[byte] ^= 1;
        others.push(*report_key(&roots, &other, &keyid));
    }
    others.push(*report_key(&roots, &target, &[0x78; 32]));
    others.push(*made);
    let all = others.len();
    others.sort_unstable();
    others.dedup();
    assert_eq!(others.len(), all, "every field of TARGETINFO has its own effect");
}

#[test]
fn token_key_is_the_one_the_launch_enclave_got() {
    let (roots, secs) = (roots(), secs());
    let ask = request(KeyName::Einittoken, KeyPolicy::empty());
    let got = requested_key(&roots, KeyName::Einittoken, &secs, &ask).unwrap();
    let token = Einittoken {
        cpusvnle: ask.cpusvn,
        isvprodidle: secs.isvprodid,
        isvsvnle: ask.isvsvn,
        maskedmiscselectle: MiscSelect::from_bits_retain(secs.miscselect.bits() & ask.miscmask),
        maskedattributesle: secs.attributes & (ask.attributemask | Attributes::REQUIRED_SEALING_MASK),
        keyid: ask.keyid,
        ..Einittoken::default()
    };
    assert_eq!(einittoken_key(&roots, &token, &secs.mrsigner).unwrap(), got);
    assert_ne!(einittoken_key(&roots, &token, &[0; 32]).unwrap(), got);
    for (byte, _) in token.as_bytes().iter().enumerate() {
        let mut other = token.clone();
        other.as_mut_bytes()[byte] ^= 1;
        // what the launch enclave is, not what it permits; not the MAC
        let counts = (192..212).contains(&byte) || (236..288).contains(&byte);
        match einittoken_key(&roots, &other, &secs.mrsigner) {
            Ok(key) => assert_eq!(key != got, counts, "byte {byte}"),
            Err(CpusvnBeyondCurrent) => assert!((192..208).contains(&byte), "byte {byte}"),
        }
    }
}

#[test]
fn later_processor_derives_earlier_keys_and_not_the_reverse() {
    // a chain of versions, the last the top: platform n is given secret n
    let top = Roots { cpusvn: 255, svn_secret: [9; 32], ..roots() };
    let at = |n: u8| Roots { cpusvn: n, svn_secret: *top.svn_secret(n).unwrap(), ..roots() };
    let seal = |roots: &Roots, version: u8| {
        let mut ask = request(KeyName::Seal, KeyPolicy::MRSIGNER);
        ask.cpusvn = [0; 16];
        ask.cpusvn[0] = version;
        requested_key(roots, KeyName::Seal, &secs(), &ask)
    };
    for now in [0, 1, 2, 3, 254, 255] {
        for asked in [0, 1, 2, 3, 254, 255] {
            let got = seal(&at(now), asked);
            if asked <= now {
                assert_eq!(got, seal(&top, asked), "version {asked} on {now}");
            } else {
                assert_eq!(got, Err(CpusvnBeyondCurrent), "version {asked} on {now}");
                assert!(at(now).svn_secret(asked).is_none());
            }
        }
    }
    assert_ne!(seal(&top, 2), seal(&top, 3));
}

#[test]
fn cpusvn_has_one_component() {
    let roots = roots();
    assert_eq!(roots.version_of(&roots.cpusvn()), Some(5));
    assert_eq!(roots.version_of(&[0; 16]), Some(0));
    for byte in 1..16 {
        let mut cpusvn = roots.cpusvn();
        cpusvn[byte] = 1;
        assert_eq!(roots.version_of(&cpusvn), None, "component {byte}");
    }
    for version in 0..=255 {
        let mut cpusvn = [0; 16];
        cpusvn[0] = version;
        assert_eq!(roots.version_of(&cpusvn), (version <= 5).then_some(version));
    }
}

#[test]
fn cmac_of_rfc_4493() {
    let key = *b"\x2b\x7e\x15\x16\x28\xae\xd2\xa6\xab\xf7\x15\x88\x09\xcf\x4f\x3c";
    let message = *b"\x6b\xc1\xbe\xe2\x2e\x40\x9f\x96\xe9\x3d\x7e\x11\x73\x93\x17\x2a\
                     \xae\x2d\x8a\x57\x1e\x03\xac\x9c\x9e\xb7\x6f\xac\x45\xaf\x8e\x51\
                     \x30\xc8\x1c\x46\xa3\x5c\xe4\x11";
    for (len, want) in [
        (0, "bb1d6929e95937287fa37d129b756746"),
        (16, "070a16b46b4d4144f79bdd9dd04a287c"),
        (40, "dfa66747de9ae63030ca32611497c827"),
    ] {
        let mac = cmac(&key, &message[..len]);
        assert_eq!(hex(&mac), want);
        assert!(cmac_holds(&key, &message[..len], &mac));
        for bit in 0..128 {
            let mut wrong = mac;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!cmac_holds(&key, &message[..len], &wrong));
        }
    }
}

/// Sealed data outlives a version of Kluis, so keys must not change. The values
/// are computed by another program, from the description at the head of the
/// module and the layout of [`KeyDependencies`].
#[test]
fn keys_are_the_same_for_ever() {
    let step = "3c4dcb60d99cb265a4d8bfc9cb18a5e58824875f86c54026c36a8024681821a4";
    assert_eq!(hex(&svn_step(&[0; 32])), step, "platform's chain has this value too");
    for (name, want) in [
        (KeyName::Einittoken, "3896df4fe21ba87920d668e99dd10392"),
        (KeyName::Provision, "a2b710eb07bb99b019c7f0f372683ccf"),
        (KeyName::ProvisionSeal, "834aa734ab8e24f95290874c4f435226"),
        (KeyName::Report, "3a4b38c489079f9055fa45bfcbec7792"),
        (KeyName::Seal, "1e27b2a3d56ce55aadbd4c5e86aadf24"),
    ] {
        let key = requested_key(&roots(), name, &secs(), &request(name, KeyPolicy::all())).unwrap();
        assert_eq!(hex(&key[..]), want, "{}", name.name());
    }
}
