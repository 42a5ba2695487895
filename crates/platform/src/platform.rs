//! A platform to open, make, change, copy and bring back.

use crate::backup::{self, Passphrase};
use crate::books;
use crate::error::PlatformError;
use crate::folder::{Change, Folder};
use crate::format;
use crate::roots::{CpuSvn, Fused, Roots, SVN_MAX};
use serde::Serialize;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// A platform in use: nobody can change it until this is dropped, and other
/// machines may use it as well.
pub struct Platform {
    folder: Folder,
    roots: Roots,
    held: Held,
}

/// What keeps others from changing it.
enum Held {
    /// The shared lock.
    Shared { _lock: File },
    /// It is not written yet; others wait for it.
    Draft(Option<Change>),
}

/// What may be told of a platform: nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Its identity, in hexadecimal.
    pub id: String,
    /// Its security version.
    pub svn: u8,
    /// CPUSVN as enclaves see it, in hexadecimal.
    pub cpusvn: String,
    /// How many owner epochs there were, this one included.
    pub owner_epoch_number: u32,
    /// When it was made, in seconds since 1970 (UTC).
    pub created: u64,
    /// When it was last changed, in seconds since 1970 (UTC).
    pub changed: u64,
}

/// A change of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The next security version: keys of it and of all earlier ones can be
    /// had from now on. There is no way back.
    SvnUp,
    /// Another owner epoch: seal, report and launch keys change, all data that
    /// was sealed before is lost (*SDM vol. 3D, EGETKEY*, OWNEREPOCH).
    NewOwnerEpoch,
    /// A weakness of that name becomes known, which the next security version mends: from
    /// now on this one is out of date.
    Advisory(String),
    /// The PCK certificate of this security version is taken back: nobody believes its
    /// quotes any more. The next security version has another one.
    Revoke,
}

impl Update {
    /// Whether it changes what processors have in their fuses.
    fn is_of_processors(&self) -> bool {
        matches!(self, Self::SvnUp | Self::NewOwnerEpoch)
    }
}

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The platform that is there now.
    pub info: Info,
    /// Where the file of the one before it is now, if there was one.
    pub replaced: Option<PathBuf>,
}

/// Now, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Info {
    fn of(roots: &Roots) -> Self {
        // the version of roots that were read is never 0
        let cpusvn = CpuSvn::new(roots.svn).map_or([0; 16], CpuSvn::to_bytes);
        Self {
            id: hex(&roots.platform_id),
            svn: roots.svn,
            cpusvn: hex(&cpusvn),
            owner_epoch_number: roots.owner_epoch_number,
            created: roots.created,
            changed: roots.changed,
        }
    }
}

impl Platform {
    /// The platform in `dir`, in use from now on; `None` if there is none.
    /// Waits while it is being changed.
    ///
    /// # Errors
    /// Others may read or change it, it is damaged, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Option<Self>, PlatformError> {
        let folder = Folder::new(dir);
        // a look first: nothing shall be made where nothing is
        if folder.read()?.is_none() {
            return Ok(None);
        }
        let lock = folder.share()?;
        let roots = folder.read()?;
        Ok(roots.map(|roots| Self { folder, roots, held: Held::Shared { _lock: lock } }))
    }

    /// Makes a platform in `dir`, and the folder if need be.
    ///
    /// # Errors
    /// There is one, or it cannot be written.
    pub fn init(dir: &Path) -> Result<Self, PlatformError> {
        let mut platform = Self::draft(Folder::new(dir))?.ok_or(PlatformError::Exists(dir.to_owned()))?;
        platform.save()?;
        Ok(platform)
    }

    /// A new one that is not written yet; `None` if there is one already.
    fn draft(folder: Folder) -> Result<Option<Self>, PlatformError> {
        let change = folder.change()?;
        if change.is_taken() {
            return Ok(None);
        }
        let held = Held::Draft(Some(change));
        Roots::generate(now()).map(|roots| Some(Self { folder, roots, held }))
    }

    /// The platform in `dir`, or a new one ([`Platform::is_new`]) which
    /// [`Platform::save`] writes. Dropped unsaved, nothing of it is left;
    /// meanwhile others who would make one wait.
    ///
    /// # Errors
    /// As of [`Platform::open`] and [`Platform::init`].
    pub fn load_or_draft(dir: &Path) -> Result<Self, PlatformError> {
        let folder = Folder::new(dir);
        loop {
            if let Some(platform) = Self::open(dir)? {
                return Ok(platform);
            }
            // if there is one now, it has just come
            if let Some(platform) = Self::draft(folder.clone())? {
                return Ok(platform);
            }
        }
    }

    /// The platform in `dir`, or a new one, written; and whether it is new.
    ///
    /// # Errors
    /// As of [`Platform::open`] and [`Platform::init`].
    pub fn load_or_init(dir: &Path) -> Result<(Self, bool), PlatformError> {
        let mut platform = Self::load_or_draft(dir)?;
        let new = platform.is_new();
        platform.save()?;
        Ok((platform, new))
    }

    /// Whether it is not written yet.
    pub fn is_new(&self) -> bool {
        matches!(self.held, Held::Draft(_))
    }

    /// Writes it, if it is not yet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&mut self) -> Result<(), PlatformError> {
        let Held::Draft(Some(change)) = &self.held else { return Ok(()) };
        change.write(&self.roots)?;
        // in use before anybody else can change it
        let lock = self.folder.share()?;
        self.held = Held::Shared { _lock: lock };
        Ok(())
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// What may be told of it.
    pub fn info(&self) -> Info {
        Info::of(&self.roots)
    }

    /// What a processor of this platform has in its fuses.
    pub fn fused(&self) -> Fused {
        self.roots.fused()
    }

    /// What may be told of the platform in `dir`, whoever uses or changes it;
    /// `None` if there is none.
    ///
    /// # Errors
    /// Others may read or change it, it is damaged, or it cannot be read.
    pub fn peek(dir: &Path) -> Result<Option<Info>, PlatformError> {
        Ok(Folder::new(dir).read()?.as_ref().map(Info::of))
    }

    /// Changes the platform in `dir`, which no machine may use meanwhile if the change is
    /// one of its processors.
    ///
    /// # Errors
    /// There is none, it is in use, its security version is the last, the change was made
    /// already, or it cannot be written.
    pub fn update(dir: &Path, update: Update) -> Result<Info, PlatformError> {
        let folder = Folder::new(dir);
        if folder.read()?.is_none() {
            return Err(PlatformError::Missing(dir.to_owned()));
        }
        let change = folder.change()?;
        let _unused = match update.is_of_processors() {
            true => Some(change.exclude()?),
            false => None,
        };
        // others may have changed it until we had the lock
        let mut roots = folder.read()?.ok_or(PlatformError::Raced(dir.to_owned()))?;
        let now = now();
        match update {
            Update::SvnUp if roots.svn == SVN_MAX => return Err(PlatformError::SvnAtTop(SVN_MAX)),
            Update::SvnUp => roots.svn += 1,
            Update::NewOwnerEpoch => {
                getrandom::fill(&mut roots.owner_epoch).map_err(PlatformError::Random)?;
                roots.owner_epoch_number = roots.owner_epoch_number.saturating_add(1);
            }
            Update::Advisory(id) => {
                let svn = roots.svn;
                roots.books.publish(&id, svn, now)?;
            }
            Update::Revoke => {
                let svn = roots.svn;
                roots.books.revoke(svn, now)?;
            }
        }
        roots.changed = now;
        change.write(&roots)?;
        Ok(Info::of(&roots))
    }

    /// Gives the platform in `dir` the key that signs its architectural enclaves, which
    /// `make` makes (in PEM) if there is none yet.
    ///
    /// # Errors
    /// There is no platform, the key cannot be made or is too long, or it cannot be written.
    pub fn equip<E: From<PlatformError>>(
        dir: &Path,
        make: impl FnOnce() -> Result<Zeroizing<String>, E>,
    ) -> Result<(), E> {
        let folder = Folder::new(dir);
        let read = || folder.read()?.ok_or_else(|| PlatformError::Missing(dir.to_owned()));
        if !read()?.books.signing_key.is_empty() {
            return Ok(());
        }
        let change = folder.change()?;
        // others may have made one until we had the lock
        let mut roots = read()?;
        if roots.books.signing_key.is_empty() {
            let key = make()?;
            books::check_key(&key)?;
            roots.books.signing_key.push_str(&key);
            change.write(&roots)?;
        }
        Ok(())
    }

    /// Everything there is of this platform, for its maker, with the key that signs its
    /// architectural enclaves, which `make` makes (in PEM) if there is none yet. Of a new
    /// platform the key is written with all else, by [`Platform::save`].
    ///
    /// # Errors
    /// As of [`Platform::equip`].
    pub fn equipped<E: From<PlatformError>>(
        &mut self,
        make: impl FnOnce() -> Result<Zeroizing<String>, E>,
    ) -> Result<Roots, E> {
        if !self.is_new() {
            let dir = self.dir();
            Self::equip(dir, make)?;
            return Ok(Self::roots(dir)?.ok_or_else(|| PlatformError::Missing(dir.to_owned()))?);
        }
        if self.roots.books.signing_key.is_empty() {
            let key = make()?;
            books::check_key(&key)?;
            self.roots.books.signing_key.push_str(&key);
        }
        Ok(format::decode(&format::encode(&self.roots)).expect("they were just encoded"))
    }

    /// Everything there is of the platform in `dir`, for its maker; `None` if there is none.
    ///
    /// # Errors
    /// Others may read or change it, it is damaged, or it cannot be read.
    pub fn roots(dir: &Path) -> Result<Option<Roots>, PlatformError> {
        Folder::new(dir).read()
    }

    /// Writes an encrypted copy of the platform in `dir` to a new file, which
    /// brings back everything: whoever has it and the passphrase *is* this
    /// platform.
    ///
    /// # Errors
    /// There is no platform, the file exists, or it cannot be written.
    pub fn backup(dir: &Path, to: &Path, passphrase: &Passphrase) -> Result<Info, PlatformError> {
        let roots = Folder::new(dir).read()?.ok_or_else(|| PlatformError::Missing(dir.to_owned()))?;
        // known at once, before the key is derived
        if to.symlink_metadata().is_ok() {
            return Err(PlatformError::BackupExists(to.to_owned()));
        }
        backup::write(to, &backup::encrypt(&roots, passphrase)?)?;
        Ok(Info::of(&roots))
    }

    /// Brings a platform back into `dir`. One that is there is only replaced
    /// if `replace` says so, and its file is kept beside the new one.
    ///
    /// # Errors
    /// There is one, it is in use, the backup cannot be decrypted, or the
    /// platform cannot be written.
    pub fn restore(
        dir: &Path,
        from: &Path,
        passphrase: &Passphrase,
        replace: bool,
    ) -> Result<Restored, PlatformError> {
        let roots = backup::decrypt(&backup::read(from)?, passphrase, from)?;
        let change = Folder::new(dir).change()?;
        if change.is_taken() && !replace {
            return Err(PlatformError::Exists(dir.to_owned()));
        }
        let _unused = change.exclude()?;
        let replaced = change.keep_aside(now())?;
        change.write(&roots)?;
        Ok(Restored { info: Info::of(&roots), replaced })
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Held::Draft(change) = &mut self.held
            && let Some(change) = change.take()
        {
            change.withdraw();
        }
    }
}

impl std::fmt::Debug for Platform {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("dir", &self.dir()).field("info", &self.info()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Books, Passphrase};

    /// Whether a type can be printed: what has `Debug` has a constant of its own, which goes
    /// before that of the trait.
    macro_rules! prints {
        ($type:ty) => {{
            #[allow(dead_code, reason = "types with Debug use the other")]
            trait No {
                const PRINTS: bool = false;
            }
            impl<T> No for Of<T> {}
            struct Of<T>(std::marker::PhantomData<T>);
            #[allow(dead_code, reason = "types without Debug use the other")]
            impl<T: std::fmt::Debug> Of<T> {
                const PRINTS: bool = true;
            }
            <Of<$type>>::PRINTS
        }};
    }

    #[test]
    fn secrets_cannot_be_printed() {
        assert_eq!([prints!(Platform), prints!(Info)], [true; 2], "this is how it would look");
        assert!(![prints!(Roots), prints!(Fused), prints!(Books), prints!(Passphrase)].contains(&true));
    }

    /// All bytes that a platform shows are its public ones.
    #[test]
    fn a_platform_is_printed_without_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("p");
        let platform = Platform::init(&dir).unwrap();
        let (printed, pretty) = (format!("{platform:?}"), format!("{platform:#?}"));
        assert!(printed.contains(&hex(&platform.roots.platform_id)));
        let Roots { seal_fuses, provisioning_fuses, owner_epoch, svn_top, .. } = &platform.roots;
        for secret in
            [&seal_fuses[..], provisioning_fuses, owner_epoch, svn_top, &platform.fused().svn_secret]
        {
            for part in secret.windows(8) {
                let numbers = format!("{part:?}").replace(['[', ']'], "");
                for text in [&printed, &pretty] {
                    assert!(!text.contains(&hex(part)));
                    assert!(!text.replace(",\n", ", ").replace("  ", "").contains(&numbers));
                }
            }
        }
    }
}
