//! Which leaves may work on an EPC page at the same time (*SDM vol. 3D, the
//! leaves' "Concurrency Restrictions" tables*).
//!
//! A leaf claims each page it uses for as long as it runs. A claim that cannot
//! be had at once is a conflict: `#GP(0)` or SGX_EPC_PAGE_CONFLICT, as the
//! leaf's tables say; nobody waits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::epcm::EpcPage;

/// The tables' columns: claims conflict only within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// "Base".
    Base,
    /// "vs. EACCEPT, EACCEPTCOPY, EMODPE, EMODPR, EMODT".
    Modify,
    /// "vs. EADD, EEXTEND, EINIT".
    Build,
    /// "vs. ETRACK, ETRACKC".
    Track,
    /// One slot of a version array, by number: the leaves' "VA slot being modified".
    Slot(u16),
}

/// How a page is claimed; "Concurrent" of the tables is no claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With others who share.
    Shared,
    /// Alone.
    Exclusive,
}

/// All claims of a machine.
#[derive(Debug, Default)]
pub struct Claims(Mutex<HashMap<(EpcPage, Lane), i32>>);

/// Stands for all pages: while it is there nothing else is, nor can be claimed.
const ALL: (EpcPage, Lane) = (EpcPage(u32::MAX), Lane::Base);

impl Claims {
    /// Claims a page; `None` if that conflicts with another leaf. Given up when dropped.
    pub fn claim(&self, page: EpcPage, lane: Lane, mode: Mode) -> Option<Claim<'_>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(&ALL) {
            return None;
        }
        let count = held.entry((page, lane)).or_insert(0);
        match mode {
            Mode::Shared if *count >= 0 => *count += 1,
            Mode::Exclusive if *count == 0 => *count = -1,
            _ => return None,
        }
        Some(Claim { claims: self, page, lane })
    }

    /// Claims the whole EPC, exclusively; `None` if any other leaf has claimed anything.
    pub fn claim_all(&self) -> Option<Claim<'_>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.is_empty() {
            return None;
        }
        held.insert(ALL, -1);
        Some(Claim { claims: self, page: ALL.0, lane: ALL.1 })
    }

    /// True if a leaf has claimed the page for itself alone. Only looks, so that
    /// nobody else finds a conflict meanwhile.
    pub fn is_exclusive(&self, page: EpcPage, lane: Lane) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&(page, lane)).is_some_and(|&count| count < 0)
    }
}

/// A page claimed.
#[derive(Debug)]
#[must_use = "a claim is given up when dropped"]
pub struct Claim<'a> {
    claims: &'a Claims,
    page: EpcPage,
    lane: Lane,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut held = self.claims.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&(self.page, self.lane)) {
            *count = if *count > 0 { *count - 1 } else { 0 };
            if *count == 0 {
                held.remove(&(self.page, self.lane));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_conflict_within_a_lane_only() {
        let claims = Claims::default();
        let page = EpcPage(3);
        let a = claims.claim(page, Lane::Base, Mode::Shared);
        let b = claims.claim(page, Lane::Base, Mode::Shared);
        assert!(a.is_some() && b.is_some());
        assert!(claims.claim(page, Lane::Base, Mode::Exclusive).is_none());
        assert!(claims.claim(page, Lane::Track, Mode::Exclusive).is_some());
        drop((a, b));
        let c = claims.claim(page, Lane::Base, Mode::Exclusive);
        assert!(c.is_some() && claims.claim(page, Lane::Base, Mode::Shared).is_none());
        drop(c);
        assert!(claims.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_whole_epc_is_claimed_alone() {
        let claims = Claims::default();
        let one = claims.claim(EpcPage(3), Lane::Slot(7), Mode::Shared);
        assert!(one.is_some() && claims.claim_all().is_none());
        assert!(!claims.is_exclusive(EpcPage(3), Lane::Slot(7)));
        drop(one);
        let all = claims.claim_all();
        assert!(all.is_some() && claims.claim_all().is_none());
        for mode in [Mode::Shared, Mode::Exclusive] {
            assert!(claims.claim(EpcPage(3), Lane::Track, mode).is_none());
        }
        drop(all);
        let one = claims.claim(EpcPage(3), Lane::Track, Mode::Exclusive);
        assert!(one.is_some() && claims.is_exclusive(EpcPage(3), Lane::Track));
        assert!(!claims.is_exclusive(EpcPage(3), Lane::Base));
    }
}
