//! A leaf's checks by name. Each leaf's file begins with its table of rules, in
//! the SDM's order; tests count the rows of these tables, and `--trace sgx`
//! names the row that stopped a leaf.

use arch::Exception;
use sgx_abi::Status;

/// What a rule that does not hold leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `#GP(0)`.
    Gp,
    /// `#UD`.
    Ud,
    /// `#PF` at an operand's address, with the SGX bit where the EPCM says no.
    Pf,
    /// RAX = the code, ZF = 1.
    Status(Status),
    /// RAX = the code, CF = 1: some leaves tell so that there is nothing to do.
    Carry(Status),
}

/// A row of a leaf's table of checks.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The leaf, as the SDM calls it.
    pub leaf: &'static str,
    /// The rule's name.
    pub name: &'static str,
    /// What must hold.
    pub text: &'static str,
    /// What follows if it does not.
    pub outcome: Outcome,
}

impl Rule {
    /// Stops the leaf unless `holds`.
    pub fn check(&'static self, holds: bool) -> Result<(), Stop> {
        if holds || self.is_planted() { Ok(()) } else { Err(Stop::Refused(self, 0)) }
    }

    /// Stops the leaf unless `holds`; a page fault is at linear address `la`.
    pub fn check_at(&'static self, holds: bool, la: u64) -> Result<(), Stop> {
        if holds || self.is_planted() { Ok(()) } else { Err(Stop::Refused(self, la)) }
    }

    /// True if a bug is planted here: never, in an ordinary build.
    #[cfg(feature = "planted")]
    fn is_planted(&self) -> bool {
        crate::planted::holds(self)
    }
    #[cfg(not(feature = "planted"))]
    const fn is_planted(&self) -> bool {
        false
    }

    /// The value, or stops the leaf.
    pub fn some<T>(&'static self, value: Option<T>) -> Result<T, Stop> {
        value.ok_or(Stop::Refused(self, 0))
    }

    /// The value, or stops the leaf with a page fault at `la`.
    pub fn some_at<T>(&'static self, value: Option<T>, la: u64) -> Result<T, Stop> {
        value.ok_or(Stop::Refused(self, la))
    }
}

/// Why a leaf did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A rule does not hold; with the linear address for a page fault.
    Refused(&'static Rule, u64),
    /// An operand's access faulted.
    Fault(Exception),
    /// The EPC is lost: its memory image does not verify.
    Lost,
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Stop {
        Stop::Fault(exception)
    }
}

impl From<mee::Lost> for Stop {
    fn from(_: mee::Lost) -> Stop {
        Stop::Lost
    }
}

/// Declares a leaf's table: `rules! { ECREATE { NAME: Gp, "what must hold"; … } }`
/// makes a `static NAME: Rule` for each row and `RULES`, the rows in order.
/// An outcome is `Gp`, `Ud`, `Pf`, or in parentheses `(Status::…)` with ZF or
/// `(carry Status::…)` with CF.
macro_rules! rules {
    (@outcome Gp) => { $crate::rule::Outcome::Gp };
    (@outcome Ud) => { $crate::rule::Outcome::Ud };
    (@outcome Pf) => { $crate::rule::Outcome::Pf };
    (@outcome (carry $status:expr)) => { $crate::rule::Outcome::Carry($status) };
    (@outcome ($status:expr)) => { $crate::rule::Outcome::Status($status) };
    ($leaf:ident { $($name:ident: $outcome:tt, $text:literal;)* }) => {
        $(
            #[doc = $text]
            pub static $name: $crate::rule::Rule = $crate::rule::Rule {
                leaf: stringify!($leaf),
                name: stringify!($name),
                text: $text,
                outcome: $crate::rule::rules!(@outcome $outcome),
            };
        )*
        /// The leaf's checks, in the SDM's order.
        pub static RULES: &[&$crate::rule::Rule] = &[$(&$name),*];
    };
}
pub(crate) use rules;
