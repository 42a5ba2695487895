//! Completions and manual pages, from the command line's own definition.

use crate::cli;
use crate::exit::{self, Error};
use clap_mangen::Man;
use std::fs;
use std::path::Path;

/// Prints completions for a shell.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<u8, Error> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "kluis", &mut text);
    crate::print(&String::from_utf8_lossy(&text))?;
    Ok(exit::OK)
}

/// Prints `kluis(1)`, or writes all pages to `dir`.
///
/// # Errors
/// The folder, or standard output, cannot be written.
pub(crate) fn man(dir: Option<&Path>) -> Result<u8, Error> {
    let pages = pages().map_err(|e| Error::failed(format!("cannot make the manual pages: {e}")))?;
    match dir {
        None => {
            let text: String = pages.iter().take(1).map(|(_, text)| text.as_str()).collect();
            crate::print(&text)?;
        }
        Some(dir) => {
            let fail = |e| Error::bad(format!("cannot write manual pages to {}: {e}", dir.display()));
            fs::create_dir_all(dir).map_err(fail)?;
            for (name, text) in pages {
                fs::write(dir.join(format!("{name}.1")), text).map_err(fail)?;
            }
        }
    }
    Ok(exit::OK)
}

/// Name and text of each page, `kluis` first.
fn pages() -> std::io::Result<Vec<(String, String)>> {
    let mut pages = Vec::new();
    let mut root = cli::definition();
    root.build();
    add(&root, "kluis".into(), &mut pages)?;
    Ok(pages)
}

fn add(command: &clap::Command, name: String, pages: &mut Vec<(String, String)>) -> std::io::Result<()> {
    let mut text = Vec::new();
    Man::new(command.clone().display_name(name.clone())).render(&mut text)?;
    pages.push((name.clone(), String::from_utf8_lossy(&text).into_owned()));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        add(sub, format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_command_has_a_page() {
        let pages = super::pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "kluis",
            "kluis-run",
            "kluis-image",
            "kluis-image-build",
            "kluis-doctor",
            "kluis-platform-update",
            "kluis-serve-collateral",
            "kluis-sizes",
        ] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        assert_eq!(names[0], "kluis");
        assert!(pages.iter().all(|(_, text)| text.contains(".TH")));
    }
}
