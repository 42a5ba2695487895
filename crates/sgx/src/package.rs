//! What the logical processors of one machine share.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mem::secret::SecretBox;
use sgx_abi::PAGE_SIZE;
use zerocopy::{FromBytes, Immutable, IntoBytes};
use zeroize::{Zeroize, Zeroizing};

use crate::claim::Claims;
use crate::config::Config;
use crate::enclave::Enclaves;
use crate::epcm::{EpcPage, Epcm};
use crate::keys::{Roots, svn_step};
use crate::trace::Trace;

/// Secrets of the package, in memory of the processor.
pub struct Secrets {
    /// The platform's roots.
    pub roots: Roots,
    /// CR_REPORT_KEYID: drawn at reset.
    pub report_keyid: [u8; 32],
    /// CR_BASE_PK: the key of evicted pages, drawn at reset.
    pub paging_key: [u8; 16],
    /// A later security version that a runtime update brought, and its secret: what
    /// EUPDATESVN, or the next reset, makes the current one.
    loaded_svn: Option<(u8, [u8; 32])>,
}

impl Secrets {
    /// Makes a loaded security version the current one; false if there is none.
    fn take_loaded(&mut self) -> bool {
        let Some((cpusvn, mut svn_secret)) = self.loaded_svn.take() else { return false };
        self.roots.cpusvn = cpusvn;
        self.roots.svn_secret = svn_secret;
        svn_secret.zeroize();
        true
    }
}

/// The SGX part of a processor package: the EPC with its map, the enclaves in
/// it, the keys.
pub struct Package {
    /// What the model can do.
    pub config: Config,
    /// The EPC's content, encrypted outside the processor.
    pub dram: mee::Dram,
    /// The map.
    pub epcm: Epcm,
    /// Enclaves whose SECS is in the EPC.
    pub enclaves: Enclaves,
    /// Pages in use by running leaves.
    pub claims: Claims,
    /// Counters and the record of leaves.
    pub trace: Trace,
    secrets: std::sync::RwLock<SecretBox<Secrets>>,
    epc_base: AtomicU64,
    /// IA32_SGXLEPUBKEYHASH0–3.
    launch_hash: [AtomicU64; 4],
    next_eid: AtomicU64,
    next_version: AtomicU64,
    lost: AtomicBool,
}

impl Package {
    /// A package after reset with an EPC of `dram`'s size.
    ///
    /// # Errors
    /// If the host gives no memory for secrets or no random bytes.
    pub fn new(config: Config, dram: mee::Dram, roots: Roots) -> Result<Self, PackageError> {
        let (report_keyid, paging_key) = draw()?;
        let secrets = SecretBox::new(Secrets { roots, report_keyid, paging_key, loaded_svn: None })?;
        Ok(Package {
            config,
            epcm: Epcm::new(dram.pages()),
            dram,
            enclaves: Enclaves::default(),
            claims: Claims::default(),
            trace: Trace::default(),
            secrets: std::sync::RwLock::new(secrets),
            epc_base: AtomicU64::new(0),
            launch_hash: INTEL_LAUNCH_HASH.map(AtomicU64::new),
            next_eid: AtomicU64::new(1),
            next_version: AtomicU64::new(1),
            lost: AtomicBool::new(false),
        })
    }

    /// Uses the package's secrets.
    pub fn with_secrets<T>(&self, f: impl FnOnce(&Secrets) -> T) -> T {
        f(&self.secrets.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the processor where the board has put the EPC: the physical address of
    /// its first page.
    pub fn set_epc_base(&self, address: u64) {
        self.epc_base.store(address, Ordering::Relaxed);
    }

    /// Physical address of an EPC page.
    pub fn physical(&self, page: EpcPage) -> u64 {
        self.epc_base.load(Ordering::Relaxed) + u64::from(page.0) * PAGE_SIZE as u64
    }

    /// Loads a runtime update with security version `cpusvn`, whose secret is
    /// `svn_secret`. It takes effect with EUPDATESVN, or at reset.
    ///
    /// # Errors
    /// [`PackageError::Update`] if it is not of this platform, or not later than what
    /// is current or loaded.
    pub fn load_update(&self, cpusvn: u8, svn_secret: &[u8; 32]) -> Result<(), PackageError> {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        let loaded = secrets.loaded_svn.map_or(secrets.roots.cpusvn, |(cpusvn, _)| cpusvn);
        if cpusvn <= loaded {
            return Err(PackageError::Update { cpusvn, loaded });
        }
        let mut earlier = Zeroizing::new(*svn_secret);
        for _ in secrets.roots.cpusvn..cpusvn {
            earlier = Zeroizing::new(svn_step(&earlier));
        }
        if *earlier != secrets.roots.svn_secret {
            return Err(PackageError::Update { cpusvn, loaded });
        }
        secrets.loaded_svn = Some((cpusvn, *svn_secret));
        Ok(())
    }

    /// Replaces the key of evicted pages and, if a later security version is loaded,
    /// makes it the current one and replaces CR_REPORT_KEYID: EUPDATESVN. True if
    /// there was one. The EPC must be empty, and claimed as a whole.
    pub(crate) fn update_svn(&self, paging_key: &[u8; 16], report_keyid: &[u8; 32]) -> bool {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.paging_key = *paging_key;
        let updated = secrets.take_loaded();
        if updated {
            secrets.report_keyid = *report_keyid;
        }
        updated
    }

    /// Reads a structure from an EPC page.
    pub fn read<T: FromBytes + IntoBytes>(&self, page: EpcPage, offset: usize) -> Result<T, mee::Lost> {
        let mut value = T::new_zeroed();
        self.dram.read(page.0, offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a structure to an EPC page.
    pub fn write<T: IntoBytes + Immutable>(
        &self,
        page: EpcPage,
        offset: usize,
        value: &T,
    ) -> Result<(), mee::Lost> {
        self.dram.write(page.0, offset, value.as_bytes())
    }

    /// Bytes of the EPC.
    pub fn epc_bytes(&self) -> u64 {
        u64::from(self.epcm.pages()) * PAGE_SIZE as u64
    }

    /// A number no enclave has had since reset.
    pub fn new_eid(&self) -> u64 {
        self.next_eid.fetch_add(1, Ordering::Relaxed)
    }

    /// A version that no evicted page has had.
    pub fn new_version(&self) -> u64 {
        self.next_version.fetch_add(1, Ordering::Relaxed)
    }

    /// IA32_SGXLEPUBKEYHASH as the 32 bytes of an MRSIGNER.
    pub fn launch_hash(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, word) in bytes.chunks_exact_mut(8).zip(&self.launch_hash) {
            to.copy_from_slice(&word.load(Ordering::SeqCst).to_le_bytes());
        }
        bytes
    }

    /// IA32_SGXLEPUBKEYHASH`index`.
    pub fn launch_hash_msr(&self, index: usize) -> u64 {
        self.launch_hash[index & 3].load(Ordering::SeqCst)
    }

    /// Writes IA32_SGXLEPUBKEYHASH`index`.
    pub fn set_launch_hash_msr(&self, index: usize, value: u64) {
        self.launch_hash[index & 3].store(value, Ordering::SeqCst);
    }

    /// The EPC is lost, by a power transition or because its memory image does
    /// not verify: until reset no page is valid and none becomes so.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.epcm.clear();
        self.enclaves.clear();
    }

    /// True from the loss of the EPC to the next reset.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst) || self.dram.is_lost()
    }

    /// Reset of the machine: an empty EPC, new keys, and the security version that was
    /// loaded last. No processor may be in
    /// enclave mode.
    ///
    /// # Errors
    /// If the host gives no random bytes.
    pub fn reset(&self) -> Result<(), PackageError> {
        let (report_keyid, paging_key) = draw()?;
        self.dram.reset()?;
        self.epcm.clear();
        self.enclaves.clear();
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.take_loaded();
        secrets.report_keyid = report_keyid;
        secrets.paging_key = paging_key;
        for (to, value) in self.launch_hash.iter().zip(INTEL_LAUNCH_HASH) {
            to.store(value, Ordering::SeqCst);
        }
        self.lost.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// IA32_SGXLEPUBKEYHASH0–3 at reset (*SDM vol. 4*): the hash of Intel's launch
/// enclave key, which software is free to replace.
const INTEL_LAUNCH_HASH: [u64; 4] =
    [0xa6053e051270b7ac, 0x6cfbe8ba8b3b413d, 0xc4916d99f2b3735d, 0xd4f8c05909f9bb3b];

fn draw() -> Result<([u8; 32], [u8; 16]), PackageError> {
    let (mut keyid, mut key) = ([0; 32], [0; 16]);
    getrandom::fill(&mut keyid).map_err(|e| PackageError::Random(e.to_string()))?;
    getrandom::fill(&mut key).map_err(|e| PackageError::Random(e.to_string()))?;
    Ok((keyid, key))
}

/// Why a package cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// No random bytes.
    #[error("the host gives no random bytes for the processor's keys: {0}")]
    Random(String),
    /// An update that cannot be loaded.
    #[error(
        "security version {cpusvn} cannot be loaded over {loaded}: it must be later, and of this platform"
    )]
    Update {
        /// Its security version.
        cpusvn: u8,
        /// What is current, or loaded already.
        loaded: u8,
    },
    /// No memory for secrets.
    #[error(transparent)]
    Secret(#[from] mem::secret::SecretError),
    /// No memory for the EPC.
    #[error(transparent)]
    Mee(#[from] mee::MeeError),
}
