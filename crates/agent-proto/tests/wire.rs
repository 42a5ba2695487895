//! What is sent arrives, however it is cut; what is not a message is refused
//! and the stream goes on.

use agent_proto::*;

fn exec() -> Exec {
    Exec {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), vec![0xFF, b'\n', 0x80]],
        env: vec![(b"A".to_vec(), b"x=y".to_vec()), (b"B".to_vec(), vec![])],
        cwd: b"/tmp".to_vec(),
        tty: Some(Tty { rows: 24, cols: 513, term: b"xterm".to_vec() }),
    }
}

fn to_guest() -> Vec<ToGuest> {
    vec![
        ToGuest::Exec(exec()),
        ToGuest::Exec(Exec::default()),
        ToGuest::StdinEof { total: u64::MAX - 3 },
        ToGuest::Winsize { rows: 1, cols: 999 },
        ToGuest::Signal(64),
        ToGuest::CloseOutput(Stream::Stdout),
        ToGuest::CloseOutput(Stream::Stderr),
        ToGuest::Mount(Mount { tag: b"share0".to_vec(), target: b"/w x".to_vec(), read_only: true }),
        ToGuest::Mount(Mount { tag: b"".to_vec(), target: vec![0xFF], read_only: false }),
        ToGuest::Shutdown,
        ToGuest::Resume { wall_ns: u64::MAX - 7, seed: std::array::from_fn(|i| i as u8) },
    ]
}

fn to_host() -> Vec<ToHost> {
    vec![
        ToHost::Hello { version: VERSION },
        ToHost::Exit { status: ExitStatus::Code(255), stdout: 1 << 40, stderr: 7 },
        ToHost::Exit { status: ExitStatus::Signal(9), stdout: 0, stderr: 0 },
        ToHost::Resumed,
        ToHost::Refused { reason: "busy: ü".into() },
    ]
}

#[test]
fn messages_survive_any_cutting() {
    let (mut down, mut up) = (Vec::new(), Vec::new());
    to_guest().iter().for_each(|m| m.encode(&mut down).unwrap());
    to_host().iter().for_each(|m| m.encode(&mut up).unwrap());
    for piece in [1, 2, 3, 5, 7, 64, usize::MAX] {
        let mut d = Decoder::new();
        let mut got = Vec::new();
        for chunk in down.chunks(piece.min(down.len())) {
            d.push(chunk);
            while let Some(m) = ToGuest::next(&mut d).unwrap() {
                got.push(m);
            }
        }
        assert_eq!(got, to_guest(), "pieces of {piece}");

        let mut d = Decoder::new();
        let mut got = Vec::new();
        for chunk in up.chunks(piece.min(up.len())) {
            d.push(chunk);
            while let Some(m) = ToHost::next(&mut d).unwrap() {
                got.push(m);
            }
        }
        assert_eq!(got, to_host(), "pieces of {piece}");
    }
}

#[test]
fn oversized_frame_is_skipped_once_and_the_stream_goes_on() {
    let len = MAX_PAYLOAD as u32 + 1;
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.push(1);
    bytes.resize(bytes.len() + len as usize, 0x06);
    ToGuest::Shutdown.encode(&mut bytes).unwrap();
    let mut d = Decoder::new();
    let (mut errors, mut messages) = (Vec::new(), Vec::new());
    for chunk in bytes.chunks(4096) {
        d.push(chunk);
        loop {
            match ToGuest::next(&mut d) {
                Ok(None) => break,
                Ok(Some(m)) => messages.push(m),
                Err(e) => errors.push(e),
            }
        }
    }
    assert_eq!(errors, [FrameError::Oversized { len }]);
    assert_eq!(messages, [ToGuest::Shutdown]);
}

#[test]
fn too_long_a_command_is_refused_and_leaves_the_buffer_alone() {
    let mut out = vec![1, 2, 3];
    let message = ToGuest::Exec(Exec { argv: vec![vec![b'a'; MAX_PAYLOAD]], ..Exec::default() });
    assert!(matches!(message.encode(&mut out), Err(EncodeError::TooLong { .. })));
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn bad_payloads_are_told_apart() {
    assert_eq!(ToGuest::decode(0, &[]), Err(Malformed::UnknownType(0)));
    assert_eq!(ToGuest::decode(0x81, &[1, 0, 0, 0]), Err(Malformed::UnknownType(0x81)));
    assert_eq!(ToHost::decode(0x01, &[]), Err(Malformed::UnknownType(0x01)));
    assert_eq!(ToGuest::decode(0x06, &[0]), Err(Malformed::TrailingBytes(1)));
    assert_eq!(ToGuest::decode(0x02, &[0; 7]), Err(Malformed::Truncated));
    for n in [0, 65, 255] {
        assert_eq!(ToGuest::decode(0x04, &[n]), Err(Malformed::BadValue("signal number")));
    }
    // 4 Gi arguments in a payload of a few bytes
    assert_eq!(ToGuest::decode(0x01, &[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]), Err(Malformed::Truncated));
    // a zero byte within an argument
    let mut frame = Vec::new();
    ToGuest::Exec(Exec { argv: vec![b"a\0b".to_vec()], ..Exec::default() }).encode(&mut frame).unwrap();
    assert_eq!(ToGuest::decode(0x01, &frame[HEADER_LEN..]), Err(Malformed::BadValue("argument")));
}

#[test]
fn every_truncation_and_every_byte_flip_is_an_error_or_a_message() {
    let mut frame = Vec::new();
    ToGuest::Exec(exec()).encode(&mut frame).unwrap();
    let payload = &frame[HEADER_LEN..];
    for cut in 0..payload.len() {
        assert!(ToGuest::decode(1, &payload[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..payload.len() {
        for flip in 1..=255u8 {
            let mut p = payload.to_vec();
            p[at] ^= flip;
            // must not panic; what is accepted must encode to the same bytes
            if let Ok(m) = ToGuest::decode(1, &p) {
                let mut again = Vec::new();
                m.encode(&mut again).unwrap();
                assert_eq!(&again[HEADER_LEN..], &p[..]);
            }
        }
    }
}

#[test]
fn garbage_streams_never_panic_nor_pile_up() {
    // xorshift64: fixed seed, no dependency
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..2000 {
        let mut d = Decoder::new();
        for _ in 0..8 {
            let mut chunk = Vec::new();
            for _ in 0..24 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                // small numbers often, so that lengths are often plausible
                chunk.push(if x & 3 == 0 { (x >> 8) as u8 } else { (x >> 8 & 7) as u8 });
            }
            d.push(&chunk);
            let mut steps = 0;
            while !matches!(ToGuest::next(&mut d), Ok(None)) {
                steps += 1;
                assert!(steps < 100, "no progress");
            }
        }
    }
}

#[test]
fn long_reasons_are_cut_at_a_character() {
    let mut out = Vec::new();
    ToHost::Refused { reason: "ü".repeat(5000) }.encode(&mut out).unwrap();
    let mut d = Decoder::new();
    d.push(&out);
    match ToHost::next(&mut d) {
        Ok(Some(ToHost::Refused { reason })) => assert_eq!(reason, "ü".repeat(2048)),
        other => panic!("{other:?}"),
    }
}
