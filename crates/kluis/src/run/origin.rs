//! What a machine starts from: a snapshot, an image, or files of the user's own.

use super::plan::{HostTerminal, Plan};
use super::provision;
use crate::cli::{ImageName, RunArgs};
use crate::exit::Error;
use crate::snapshot::owner::Owner;
use crate::snapshot::prepare;
use machine::Snapshot;
use platform::Platform;
use std::path::PathBuf;

/// Where a machine that is not booted comes from.
pub(super) struct Origin {
    pub(super) path: PathBuf,
    pub(super) snapshot: Snapshot,
    pub(super) owner: Owner,
}

impl Origin {
    /// The snapshot that `args` names, or one prepared for them; `None` to boot, as
    /// always where one is being prepared.
    pub(super) fn of(
        args: &RunArgs,
        terminal: &HostTerminal,
        prepares: bool,
        platform: &mut Platform,
    ) -> Result<Option<Origin>, Error> {
        let path = match &args.snapshot {
            _ if prepares => return Ok(None),
            Some(path) => path.clone(),
            None if args.warm => prepare::warm(args, terminal, platform)?,
            None => return Ok(None),
        };
        let (snapshot, owner) = crate::snapshot::open(&path)?;
        if owner.platform != platform.info().id && !args.other_platform {
            let why = "was taken on another platform: what is sealed there cannot be unsealed here; give that \
                       one with --platform, or add --other-platform";
            return Err(crate::snapshot::of_file(&path, &why));
        }
        Ok(Some(Origin { path, snapshot, owner }))
    }
}

/// What the machine boots and has as disks.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) initrd_more: Vec<u8>,
    pub(super) disks: Vec<machine::Disk>,
}

impl Files {
    /// The user's own, or an image's, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn of(plan: &Plan, platform: &mut Platform, quiet: bool) -> Result<Self, Error> {
        let disks = plan.disks.clone();
        if let Some(kernel) = &plan.kernel {
            let (kernel, initrd) = (kernel.clone(), plan.initrd.clone());
            return Ok(Self { kernel, initrd, initrd_more: Vec::new(), disks });
        }
        if plan.image == ImageName::Debian {
            let image = crate::debian::for_machine(plan.overlay.as_deref(), platform.dir(), quiet)?;
            let root = crate::debian::root(&image, plan.overlay.as_deref());
            return Ok(Self {
                kernel: image.kernel,
                initrd: Some(image.initrd),
                initrd_more: [
                    image::debian::handed(&crate::debian::keys(quiet), &plan.apt),
                    provision::handed(platform, quiet)?,
                ]
                .concat(),
                disks: std::iter::once(root).chain(disks).collect(),
            });
        }
        let image = image::ensure(&image::Options { cache_dir: None, quiet })?;
        let (initrd, initrd_more) = match plan.initrd.clone() {
            Some(own) => (own, Vec::new()),
            None => (image.initrd, provision::handed(platform, quiet)?),
        };
        Ok(Self { kernel: image.kernel, initrd: Some(initrd), initrd_more, disks })
    }
}
