//! Modules of a multiboot image, as `--initrd` names them: QEMU's form
//! `FILE[ ARGUMENTS],FILE[ ARGUMENTS]…`, in which `,,` is a comma.

use crate::exit::Error;
use machine::Module;
use std::path::{Path, PathBuf};

/// The modules that `list` names; each is a file that can be read.
///
/// # Errors
/// Bad input, with cause and remedy.
pub(super) fn modules(list: &Path) -> Result<Vec<Module>, Error> {
    let Some(list) = list.to_str() else {
        return Err(Error::bad("--initrd names modules that are not UTF-8: rename their files"));
    };
    let modules: Vec<_> = split(list).into_iter().map(module).collect();
    for module in &modules {
        boot::read_module(&module.path).map_err(Error::bad)?;
    }
    Ok(modules)
}

/// What follows the first space are the module's arguments; it is told all of it.
fn module(text: String) -> Module {
    let file = text.split_once(' ').map_or(text.as_str(), |(file, _)| file);
    Module { path: PathBuf::from(file), text }
}

fn split(list: &str) -> Vec<String> {
    let mut texts = vec![String::new()];
    let mut rest = list.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, texts.last_mut()) {
            (',', _) if rest.peek() != Some(&',') => texts.push(String::new()),
            (c, Some(text)) => {
                if c == ',' {
                    rest.next(); // the second of two
                }
                text.push(c);
            }
            (_, None) => {}
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_part_modules_and_two_are_one() {
        for (list, texts) in [
            ("a", &["a"][..]),
            ("a b c,d", &["a b c", "d"]),
            ("a,,b,c", &["a,b", "c"]),
            ("a,,,b", &["a,", "b"]),
            ("a,", &["a", ""]),
            (",,", &[","]),
        ] {
            assert_eq!(split(list), texts, "{list}");
        }
    }

    #[test]
    fn a_module_knows_its_arguments() {
        let m = module("dir/file one two".into());
        assert_eq!((m.path.to_str(), m.text.as_str()), (Some("dir/file"), "dir/file one two"));
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let why = modules(Path::new("/dev/null/x arg")).unwrap_err().to_string();
        assert!(why.contains("module /dev/null/x") && !why.contains('\n'), "{why}");
    }
}
