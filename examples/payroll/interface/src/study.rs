//! What is studied, by whom, and how it is told from others.

use alloc::string::String;
use alloc::vec::Vec;

use enclave_channel::{Binding, PublicKey};
use enclave_interface::{Deserialize, Serialize};

/// A study, as the parties have agreed on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Study {
    /// What it is about.
    pub title: String,
    /// What people are grouped by. Others are refused: a name of its own would single a
    /// person out.
    pub groups: Vec<String>,
    /// How many people a group must have, whichever party's are left out, to be told of.
    pub minimum: u32,
    /// Those who take part.
    pub parties: Vec<Party>,
}

/// One who takes part in a study.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Party {
    /// Its name.
    pub name: String,
    /// Its key, as `payroll-client key` prints it.
    pub key: PublicKey,
    /// Whether the study is done when it has delivered, and not before.
    pub contributes: bool,
    /// Whether it gets the results.
    pub receives: bool,
}

/// Least number of people in a group: of two, each would learn the other's pay.
pub const LEAST_MINIMUM: u32 = 3;
/// Most parties, and most groups.
pub const MOST: usize = 64;
/// Most bytes of a name.
pub const NAME: usize = 100;

/// What is wrong with a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum BadStudy {
    /// A group of so few is no group.
    Minimum,
    /// There are none, too many, or two that are the same.
    Groups,
    /// There are too many, two that are the same, fewer than two that contribute, or none
    /// that receives.
    Parties,
    /// A name is empty, too long, or has a comma or a control character in it.
    Name,
}

impl core::fmt::Display for BadStudy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Minimum => write!(f, "the minimum is {LEAST_MINIMUM} people or more"),
            Self::Groups => write!(f, "it needs 1 to {MOST} groups, each other than the rest"),
            Self::Parties => write!(
                f,
                "it needs up to {MOST} parties, each other than the rest, two that contribute and one that receives"
            ),
            Self::Name => write!(f, "a name has 1 to {NAME} bytes, none of a comma or a control character"),
        }
    }
}

impl Study {
    /// Whether it can be done.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), BadStudy> {
        if self.minimum < LEAST_MINIMUM {
            return Err(BadStudy::Minimum);
        }
        if self.groups.is_empty() || self.groups.len() > MOST || !differ(&self.groups, |group| group) {
            return Err(BadStudy::Groups);
        }
        let contributing = self.parties.iter().filter(|party| party.contributes).count();
        if self.parties.len() > MOST
            || contributing < 2
            || !self.parties.iter().any(|party| party.receives)
            || !differ(&self.parties, |party| &party.name)
            || !differ(&self.parties, |party| &party.key)
        {
            return Err(BadStudy::Parties);
        }
        let names = self.parties.iter().map(|party| &party.name);
        let fits = |name: &String| {
            !name.is_empty() && name.len() <= NAME && !name.chars().any(|c| c == ',' || c.is_control())
        };
        if !names.chain(&self.groups).chain([&self.title]).all(fits) {
            return Err(BadStudy::Name);
        }
        Ok(())
    }
}

/// Whether no two of these have the same key.
fn differ<T, K: PartialEq + ?Sized>(all: &[T], key: impl Fn(&T) -> &K) -> bool {
    all.iter().enumerate().all(|(n, one)| all[..n].iter().all(|other| key(one) != key(other)))
}

/// A study in the hands of an enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Description {
    /// The study.
    pub study: Study,
    /// The key that the enclave has made for it.
    pub key: PublicKey,
    /// Which enclave that is (MRENCLAVE).
    pub enclave: [u8; 32],
    /// Whether debuggers of its host can look into it.
    pub debug: bool,
}

impl Description {
    /// What tells it from all others: all that a party agrees to by encrypting for it. The
    /// enclave has it put into its reports.
    pub fn binding(&self) -> Binding {
        let encoded = postcard::to_allocvec(self).expect("a description can be encoded");
        Binding::new(&self.key, &encoded)
    }
}

/// Purpose of what parties encrypt for the enclave: of another study, it does not open.
pub fn records(study: &Binding) -> Vec<u8> {
    [b"payroll: records of ", &study.hash()[..]].concat()
}

/// Purpose of what the enclave encrypts for a party.
pub fn results(study: &Binding) -> Vec<u8> {
    [b"payroll: results of ", &study.hash()[..]].concat()
}
