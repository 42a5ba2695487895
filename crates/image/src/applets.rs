//! Which commands a busybox has, read from the program itself: it is not run
//! on the host.
//!
//! Busybox keeps its applets' names sorted in one table of zero-ended strings,
//! ended by an empty one (*busybox applets/applet_tables.c*).

/// The first two names of every busybox built with its usual applets.
const START: &[u8] = b"[\0[[\0";

/// Names every useful busybox has; where one is missing, what was found is not
/// the table.
const EXPECTED: [&str; 8] = ["ash", "cat", "ls", "mount", "sh", "test", "uname", "wc"];

/// Names of the applets, or `None` if the table is not found.
pub(crate) fn list(program: &[u8]) -> Option<Vec<&str>> {
    program
        .windows(START.len())
        .enumerate()
        .filter(|(_, window)| *window == START)
        .find_map(|(at, _)| table(&program[at..]))
}

fn table(bytes: &[u8]) -> Option<Vec<&str>> {
    let mut names: Vec<&str> = Vec::new();
    for name in bytes.split(|&b| b == 0) {
        if name.is_empty() {
            break;
        }
        let name = std::str::from_utf8(name).ok()?;
        let plain = name.len() <= 32
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"[_-.+".contains(&b))
            && !name.starts_with('.');
        if !plain || names.last().is_some_and(|last| *last >= name) {
            return None;
        }
        names.push(name);
    }
    EXPECTED.iter().all(|e| names.contains(e)).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_found_among_other_bytes() {
        let mut program = b"\x7fELF [\0[[\0nonsense\0\0".to_vec();
        program.extend(b"[\0[[\0ash\0cat\0ls\0mount\0sh\0test\0uname\0wc\0zcat\0\0after\0");
        let names = list(&program).unwrap();
        assert_eq!(names.len(), 11);
        assert_eq!((names[0], names[10]), ("[", "zcat"));
        // out of order, a path, not ended
        for bad in [
            &b"[\0[[\0cat\0ash\0ls\0mount\0sh\0test\0uname\0wc\0\0"[..],
            b"[\0[[\0../x\0ash\0cat\0ls\0mount\0sh\0test\0uname\0wc\0\0",
            b"[\0[[\0ash\0ca",
        ] {
            assert_eq!(list(bad), None);
        }
    }
}
