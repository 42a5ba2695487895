//! Images, and `kluis image`.

use clap::{Subcommand, ValueEnum};

/// The images there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageName {
    /// A kernel and a small userland, all in memory
    #[default]
    Default,
    /// A whole Debian on a disk: apt, sshd, python3, gcc
    Debian,
}

impl ImageName {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Debian => "debian",
        }
    }
}

impl From<ImageName> for image::Name {
    fn from(name: ImageName) -> Self {
        match name {
            ImageName::Default => Self::Default,
            ImageName::Debian => Self::Debian,
        }
    }
}

pub(super) const IMAGE_EXAMPLES: &str = "\
Examples:
  kluis image build debian
  kluis image list
  kluis image show debian --json | jq '.manifest.packages | length'
  kluis image remove debian";

/// What to do with images.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build one from the packages that are current now
    ///
    /// Packages come through this machine's own apt configuration, without
    /// root; `kluis run` does the same on first use. The Debian image is set up
    /// in a Kluis machine: no package's program runs on this host.
    Build {
        /// Which
        #[arg(value_enum, default_value_t)]
        name: ImageName,
    },
    /// Tell what an image is made of, without building it
    Show {
        /// Which
        #[arg(value_enum, default_value_t)]
        name: ImageName,
    },
    /// List the images that are built, with the space they take
    List,
    /// Remove all builds of an image, and the packages kept for it
    ///
    /// Machines that run are not disturbed. An --overlay works only with the
    /// very build of the Debian image that it was made on.
    Remove {
        /// Which
        #[arg(value_enum)]
        name: ImageName,
    },
}
