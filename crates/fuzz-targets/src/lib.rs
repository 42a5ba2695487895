//! What the fuzzers run: one plain function of bytes for everything that takes
//! bytes from a guest or a file.
//!
//! Each must return whatever the bytes: no panic, no hang, no access out of
//! bounds. `cargo test -p fuzz-targets` runs all of them on seeds, mutated
//! seeds, random bytes and past finds; `fuzz/` wraps the same functions for
//! libFuzzer (see `docs/fuzzing.md`).
//!
//! * [`code`]: machine code on a processor
//! * [`device`]: register accesses, rings and host events on devices
//! * [`network`]: frames at the NAT
//! * [`share`]: FUSE requests on a shared folder
//! * [`enclave`]: programs, streams and signatures of enclaves, messages of their clients
//! * [`store`]: an enclave's store, crashes, and who keeps its files
//! * [`attestation`]: quotes, certificates and collateral, judged by another verifier
//! * [`aesm`](mod@aesm): requests to the service that makes quotes, judged by another parser
//! * [`mod@ratls`]: certificates with evidence of enclaves
//! * [`requests`]: what clients ask the collateral service
//! * [`files`]: kernels, multiboot images, Debian packages, overlays of disks, the agent's
//!   frames
//! * [`input`], [`mutate`]: reading and making inputs
#![forbid(unsafe_code)]

pub mod aesm;
pub mod attestation;
pub mod code;
pub mod device;
pub mod enclave;
pub mod files;
pub mod input;
pub mod mutate;
pub mod network;
pub mod ratls;
pub mod requests;
pub mod share;
pub mod store;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also of its binary in `fuzz/` and its folder of past finds.
    pub name: &'static str,
    /// Runs it on one input; a find is a panic.
    pub run: fn(&[u8]),
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs that the bounded tests run, on top of seeds and finds: what
    /// takes about a second or two.
    pub cases: u32,
    /// The longest random input made for it, in bytes.
    pub max_len: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "code_bytes", run: code::code_bytes, seeds: code::seeds, cases: 6000, max_len: 512 },
    Target {
        name: "kernel_image",
        run: files::kernel_image,
        seeds: files::kernels,
        cases: 10_000,
        max_len: 4096,
    },
    Target {
        name: "multiboot_image",
        run: files::multiboot_image,
        seeds: files::images,
        cases: 10_000,
        max_len: 4096,
    },
    Target { name: "deb_image", run: files::deb_image, seeds: files::packages, cases: 10_000, max_len: 4096 },
    Target {
        name: "disk_overlay",
        run: files::disk_overlay,
        seeds: files::overlays,
        cases: 2000,
        max_len: 8192,
    },
    Target {
        name: "agent_frames",
        run: files::agent_frames,
        seeds: files::frames,
        cases: 20_000,
        max_len: 512,
    },
    Target {
        name: "snapshot_state",
        run: files::snapshot_state,
        seeds: files::states,
        cases: 10_000,
        max_len: 4096,
    },
    Target {
        name: "enclave_files",
        run: enclave::enclave_files,
        seeds: enclave::files,
        cases: 4000,
        max_len: 4096,
    },
    Target {
        name: "enclave_host_files",
        run: enclave::enclave_host_files,
        seeds: enclave::loaded,
        cases: 4000,
        max_len: 4096,
    },
    Target {
        name: "enclave_store",
        run: store::enclave_store,
        seeds: store::seeds,
        cases: 3000,
        max_len: 256,
    },
    Target {
        name: "enclave_messages",
        run: enclave::enclave_messages,
        seeds: enclave::messages,
        cases: 20_000,
        max_len: 512,
    },
    Target { name: "device_serial", ..device::SMALL[0] },
    Target { name: "device_rtc", ..device::SMALL[1] },
    Target { name: "device_pit", ..device::SMALL[2] },
    Target { name: "device_pic", ..device::SMALL[3] },
    Target { name: "device_ioapic", ..device::SMALL[4] },
    Target { name: "device_pm", ..device::SMALL[5] },
    Target { name: "device_i8042", ..device::SMALL[6] },
    Target { name: "device_apic", ..device::SMALL[7] },
    Target { name: "device_pci", ..device::SMALL[8] },
    Target { name: "device_qemu", ..device::SMALL[9] },
    Target { name: "device_virtio_blk", ..device::VIRTIO[0] },
    Target { name: "device_virtio_rng", ..device::VIRTIO[1] },
    Target { name: "device_virtio_console", ..device::VIRTIO[2] },
    Target { name: "device_virtio_fs", ..device::VIRTIO[3] },
    Target { name: "device_virtio_vsock", ..device::VIRTIO[4] },
    Target { name: "device_virtio_net", ..device::VIRTIO[5] },
    Target { name: "network", run: network::run, seeds: network::seeds, cases: 150, max_len: 1024 },
    Target {
        name: "share_requests",
        run: share::share_requests,
        seeds: share::seeds,
        cases: 3000,
        max_len: 512,
    },
    Target {
        name: "dcap_quote",
        run: attestation::dcap_quote,
        seeds: attestation::quotes,
        cases: 20_000,
        max_len: 6000,
    },
    Target {
        name: "dcap_pki",
        run: attestation::dcap_pki,
        seeds: attestation::certificates,
        cases: 20_000,
        max_len: 2000,
    },
    Target {
        name: "dcap_documents",
        run: attestation::dcap_documents,
        seeds: attestation::documents,
        cases: 4000,
        max_len: 2000,
    },
    Target {
        name: "dcap_bundle",
        run: attestation::dcap_bundle,
        seeds: attestation::changes,
        cases: 600,
        max_len: 15,
    },
    Target {
        name: "aesm_messages",
        run: aesm::aesm_messages,
        seeds: aesm::seeds,
        cases: 20_000,
        max_len: 512,
    },
    Target {
        name: "collateral_requests",
        run: requests::collateral_requests,
        seeds: requests::targets,
        cases: 20_000,
        max_len: 1000,
    },
    Target {
        name: "ratls_certificate",
        run: ratls::ratls_certificate,
        seeds: ratls::certificates,
        cases: 10_000,
        max_len: 2000,
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
