//! `kluis enclave new`: a project that builds and runs at once.

use super::{build, sdk};
use crate::exit::{self, Error};
use std::fs;
use std::path::Path;

/// The project's files; `{{name}}` is its name, `{{crate}}` the same as Rust writes it.
const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    (".gitignore", "/target\n"),
    ("README.md", include_str!("template/README.md.in")),
    ("interface/Cargo.toml", include_str!("template/interface/Cargo.toml.in")),
    ("interface/src/lib.rs", include_str!("template/interface/lib.rs.in")),
    ("enclave/Cargo.toml", include_str!("template/enclave/Cargo.toml.in")),
    ("enclave/src/main.rs", include_str!("template/enclave/main.rs.in")),
    ("host/Cargo.toml", include_str!("template/host/Cargo.toml.in")),
    ("host/src/main.rs", include_str!("template/host/main.rs.in")),
];

/// Makes the project.
///
/// # Errors
/// The name is none, or the folder cannot be made.
pub(super) fn main(name: &str, json: bool) -> Result<u8, Error> {
    check(name)?;
    let folder = Path::new(name);
    fs::create_dir(folder).map_err(|e| build::cannot("make the folder", folder, &e))?;
    let files = TEMPLATE.iter().map(|(path, text)| (folder.join(path), fill_in(text, name).into_bytes()));
    let sdk = sdk::FILES.iter().map(|(path, text)| (folder.join("sdk").join(path), text.to_vec()));
    for (path, text) in files.chain(sdk) {
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|e| build::cannot("make", parent, &e))?;
        fs::write(&path, text).map_err(|e| build::cannot("write", &path, &e))?;
    }
    if json {
        crate::print_json(&serde_json::json!({ "project": folder }))?;
    } else {
        crate::print(&format!(
            "made the project {name}: its enclave is in {name}/enclave, its host program in {name}/host\n  \
             cd {name} && kluis enclave run\n"
        ))?;
    }
    Ok(exit::OK)
}

/// Cargo's rules for the name of a package, and that the crates of the project do not get
/// the names of crates that they use.
fn check(name: &str) -> Result<(), Error> {
    let letter = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if letter && word && name.len() <= 64 {
        return Ok(());
    }
    Err(Error::bad(format!(
        "{name:?} is no name for a project: take ASCII letters, digits, - and _, with a letter first, 64 at most"
    )))
}

fn fill_in(text: &str, name: &str) -> String {
    text.replace("{{name}}", name).replace("{{crate}}", &name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_packages() {
        for name in ["hello", "a", "My-enclave_2"] {
            check(name).unwrap();
        }
        for name in ["", "2fast", "-x", "_x", "a/b", "../x", "a b", "ä", "x\n", &"x".repeat(65)] {
            assert!(check(name).unwrap_err().to_string().contains("is no name"), "{name}");
        }
    }

    #[test]
    fn the_sdk_is_whole() {
        let has = |path: &str| sdk::FILES.iter().any(|(name, _)| *name == path);
        for path in [
            "Cargo.toml",
            "LICENSE",
            "crates/enclave/src/lib.rs",
            "crates/sgx-abi/Cargo.toml",
            "crates/dcap/src/pki/intel-sgx-root-ca.der",
        ] {
            assert!(has(path), "{path}");
        }
        let manifest = str::from_utf8(sdk::FILES[0].1).unwrap();
        assert!(manifest.contains("[workspace.dependencies]") && manifest.contains("[workspace.lints.rust]"));
        // crates of Kluis that are not part of it are not named
        assert!(!manifest.contains("crates/cpu") && manifest.contains("crates/sgx-abi"), "{manifest}");
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for (path, text) in TEMPLATE {
            assert!(!fill_in(text, "x").contains("{{"), "{path}");
        }
    }
}
