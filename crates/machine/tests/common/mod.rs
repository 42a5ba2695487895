//! A small machine that boots a few bytes of 64-bit code instead of a kernel.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use machine::{Config, Epc, Paused, Running};

/// Where the code lies, and starts.
pub(crate) const CODE: u64 = 0x10_0000;

/// A 64-bit ELF of one segment: `code`, at [`CODE`] (*System V ABI, "Object Files"*).
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2u16.to_le_bytes()); // ET_EXEC
    file.extend(62u16.to_le_bytes()); // x86-64
    file.extend(1u32.to_le_bytes());
    file.extend(CODE.to_le_bytes()); // entry
    file.extend(64u64.to_le_bytes()); // program headers
    file.extend([0; 8 + 4]);
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes()); // PT_LOAD
    file.extend(7u32.to_le_bytes()); // RWX
    let len = code.len() as u64;
    for word in [HEADERS, CODE, CODE, len, len, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// A file of its own for each test; gone when dropped.
pub(crate) struct Kernel(PathBuf);

impl Kernel {
    /// A kernel of that code.
    pub(crate) fn new(name: &str, code: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("kluis-{name}-{}.elf", std::process::id()));
        std::fs::File::create(&path).and_then(|mut file| file.write_all(&elf(code))).unwrap();
        Self(path)
    }

    /// A machine that runs it.
    pub(crate) fn config(&self, cpus: usize) -> Config {
        let roots = sgx::keys::Roots {
            seal_fuses: [1; 16],
            provisioning_fuses: [2; 16],
            owner_epoch: [3; 16],
            cpusvn: 1,
            svn_secret: [4; 32],
        };
        Config {
            model: Arc::new(cpu::Model::xeon_e_2288g()),
            cpus,
            memory: 64 << 20,
            epc: Epc { bytes: 1 << 20, roots },
            kernel: self.0.clone(),
            initrd: None,
            initrd_more: Vec::new(),
            modules: Vec::new(),
            cmdline: String::new(),
            snapshot: None,
            disks: Vec::new(),
            shares: Vec::new(),
            vsock: machine::VsockPorts::default(),
            network: None,
            debug_exit: false,
            test_device: false,
            serial: Box::new(std::io::sink()),
            ports: Vec::new(),
            strict: false,
        }
    }
}

/// Starts a machine; it stands until the pause is dropped.
pub(crate) fn start(config: Config) -> (Arc<Running>, Paused) {
    let (prepared, _) = machine::prepare(config).unwrap();
    (prepared.machine().clone(), prepared.start().unwrap())
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
