//! Which files the process can open from now on.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use crate::JailError;

/// The newest Landlock that the rules are written for; an older kernel's does what it can.
const NEWEST: ABI = ABI::V6;

/// What is left of the file system. Everything else cannot be opened, made,
/// renamed or removed; what is open already stays open.
#[derive(Debug, Default)]
pub struct Files {
    rules: Vec<(PathBuf, BitFlags<AccessFs>)>,
}

/// How far the kernel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// Everything that the rules say.
    Full,
    /// An older Landlock: opening, making and removing files, but not all of the rest.
    Partial,
    /// This kernel has no Landlock, or it is switched off.
    None,
}

impl Files {
    /// Nothing at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// A file may be read, or a folder and all beneath it.
    #[must_use]
    pub fn read(self, path: impl AsRef<Path>) -> Self {
        self.rule(path, AccessFs::ReadFile | AccessFs::ReadDir)
    }

    /// A file may be read and written, or a folder and all beneath it changed at will
    /// (no program of it can be started all the same).
    #[must_use]
    pub fn write(self, path: impl AsRef<Path>) -> Self {
        self.rule(path, AccessFs::from_all(NEWEST) & !BitFlags::from(AccessFs::Execute))
    }

    /// Files and sockets of a folder may be made and removed, not read.
    #[must_use]
    pub fn names(self, folder: impl AsRef<Path>) -> Self {
        self.rule(folder, AccessFs::MakeSock | AccessFs::MakeReg | AccessFs::RemoveFile)
    }

    fn rule(mut self, path: impl AsRef<Path>, access: BitFlags<AccessFs>) -> Self {
        self.rules.push((path.as_ref().to_owned(), access));
        self
    }

    /// Builds the wall around this thread and those that it will start: call it
    /// before there are others. A path that does not exist is left out.
    ///
    /// # Errors
    /// The kernel has Landlock and refuses the rules.
    pub fn confine(self) -> Result<Strength, JailError> {
        let fail = |e: &dyn std::fmt::Display| JailError::Files(e.to_string());
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))
            .map_err(|e| fail(&e))?
            // no signals to other processes, no sockets of theirs without a path
            .scope(Scope::from_all(NEWEST))
            .map_err(|e| fail(&e))?
            .create()
            .map_err(|e| fail(&e))?;
        for (path, access) in self.rules {
            let Ok(fd) = PathFd::new(&path) else { continue };
            // rights of folders do not fit a file
            let fitting = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, fitting)).map_err(|e| fail(&e))?;
        }
        let status = ruleset.restrict_self().map_err(|e| fail(&e))?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Strength::Full,
            RulesetStatus::PartiallyEnforced => Strength::Partial,
            RulesetStatus::NotEnforced => Strength::None,
        })
    }
}
