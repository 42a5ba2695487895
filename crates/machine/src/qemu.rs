//! What images made for QEMU look for beside a PC's own devices
//! (`devices::qemu`): the firmware configuration device of a machine that boots a
//! multiboot image, and what the user asks for.

use std::sync::{Arc, Mutex};

use boot::multiboot;
use devices::IrqLine;
use devices::qemu::fw_cfg::key;
use devices::qemu::{DebugExit, ExitSink, FwCfg, TestMemory, TestPorts, testdev};

use crate::board::{Access, lock};
use crate::config::Config;
use crate::parts::Part;

/// PM1 control of the boards that QEMU had before 2014, as programs that switch off
/// blindly still try it.
pub(crate) const OLD_PM1_CONTROL: u16 = 0xb004;
/// First port of `isa-debug-exit`, as everybody places it.
const EXIT: u16 = 0xf4;
/// What a snapshot calls fw_cfg.
pub(crate) const FW_CFG_NAME: &str = "fw-cfg";
/// First port of fw_cfg.
const FW_CFG: u16 = 0x510;

/// Which of them a machine has.
pub(crate) struct Wanted {
    pub(crate) fw_cfg: Option<FwCfg>,
    pub(crate) debug_exit: bool,
    pub(crate) test_device: bool,
}

/// Those that a machine has.
pub(crate) struct QemuDevices {
    fw_cfg: Option<Mutex<FwCfg>>,
    exit: Option<Mutex<DebugExit>>,
    test: Option<(Mutex<TestPorts>, Mutex<TestMemory>)>,
}

impl QemuDevices {
    /// Makes them; `gsi` gives interrupt wires.
    pub(crate) fn new(wanted: Wanted, exit: Arc<dyn ExitSink>, gsi: impl Fn(u8) -> Arc<dyn IrqLine>) -> Self {
        let exit = wanted.debug_exit.then(|| Mutex::new(DebugExit::new(exit)));
        let test = wanted
            .test_device
            .then(|| (Mutex::new(TestPorts::new((0..24).map(gsi))), Mutex::new(TestMemory::default())));
        Self { fw_cfg: wanted.fw_cfg.map(Mutex::new), exit, test }
    }

    /// What a snapshot keeps of them.
    pub(crate) fn parts(&self) -> Vec<(&str, &dyn Part)> {
        let QemuDevices { fw_cfg, exit, test } = self;
        let mut parts: Vec<(&str, &dyn Part)> = Vec::new();
        parts.extend(fw_cfg.iter().map(|device| (FW_CFG_NAME, device as &dyn Part)));
        parts.extend(exit.iter().map(|device| ("debug-exit", device as &dyn Part)));
        if let Some((ports, memory)) = test {
            parts.push(("test-ports", ports));
            parts.push(("test-memory", memory));
        }
        parts
    }

    /// Whether the machine boots an image that QEMU would boot.
    pub(crate) fn for_image(&self) -> bool {
        self.fw_cfg.is_some()
    }

    /// Calls `f` with the device at an I/O port and the port's offset there.
    pub(crate) fn with_port(&self, port: u16, f: impl FnOnce(&mut dyn Access, u64)) -> bool {
        let within = |first: u16, ports: u64| {
            let offset = u64::from(port.wrapping_sub(first));
            (offset < ports).then_some(offset)
        };
        if let (Some(device), Some(offset)) = (&self.exit, within(EXIT, DebugExit::PORTS)) {
            f(&mut *lock(device), offset);
        } else if let (Some(device), Some(offset)) = (&self.fw_cfg, within(FW_CFG, FwCfg::PORTS)) {
            f(&mut *lock(device), offset);
        } else if let (Some((ports, _)), true) = (&self.test, TestPorts::has(port)) {
            f(&mut *lock(ports), u64::from(port - testdev::FIRST_PORT));
        } else {
            return false;
        }
        true
    }

    /// Calls `f` with the device at a physical address and the address's offset there.
    pub(crate) fn with_memory(&self, gpa: u64, f: impl FnOnce(&mut dyn Access, u64)) -> bool {
        let offset = gpa.wrapping_sub(testdev::MEMORY);
        match &self.test {
            Some((_, memory)) if offset < TestMemory::LEN => f(&mut *lock(memory), offset),
            _ => return false,
        }
        true
    }
}

/// What the firmware configuration device tells of a machine.
pub(crate) fn fw_cfg(config: &Config, entry: &multiboot::Entry, layout: &boot::Layout) -> FwCfg {
    let word = |n: usize| (n as u16).to_le_bytes().to_vec();
    let (start, end) = entry.kernel;
    let cmdline = [config.cmdline.as_bytes(), &[0]].concat();
    let items = [
        (key::UUID, vec![0; 16]),
        (key::RAM_SIZE, config.memory.to_le_bytes().to_vec()),
        (key::NOGRAPHIC, word(1)),
        (key::NB_CPUS, word(config.cpus)),
        (key::MAX_CPUS, word(config.cpus)),
        (key::BOOT_DEVICE, word(0)),
        (key::BOOT_MENU, word(0)),
        // no nodes, and of each processor that it is in none
        (key::NUMA, vec![0; 8 * (1 + config.cpus)]),
        (key::KERNEL_ADDR, (start as u32).to_le_bytes().to_vec()),
        (key::KERNEL_SIZE, ((end - start) as u32).to_le_bytes().to_vec()),
        (key::KERNEL_ENTRY, entry.eip.to_le_bytes().to_vec()),
        (key::CMDLINE_SIZE, (cmdline.len() as u32).to_le_bytes().to_vec()),
        (key::CMDLINE_DATA, cmdline),
    ];
    FwCfg::new(items, [("etc/e820", e820(layout))])
}

/// Memory map: address, size and type, 20 bytes a range.
fn e820(layout: &boot::Layout) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in layout.e820() {
        out.extend(entry.range.start.to_le_bytes());
        out.extend((entry.range.end - entry.range.start).to_le_bytes());
        out.extend((entry.kind as u32).to_le_bytes());
    }
    out
}
