//! Every target on its seeds, on what was found before, on mutated seeds and
//! on random bytes: the same inputs in each run.

use fuzz_targets::mutate::{Rng, mutate};
use fuzz_targets::{TARGETS, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// An input that takes this long hangs; the slowest takes far less than a second.
const HANG: Duration = Duration::from_secs(120);

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let seeds = (target.seeds)();
    let mut all = seeds.clone();
    all.push(Vec::new());
    let finds = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name);
    if let Ok(files) = std::fs::read_dir(finds) {
        let mut paths: Vec<_> = files.map(|f| f.unwrap().path()).collect();
        paths.sort();
        all.extend(paths.iter().map(|path| std::fs::read(path).unwrap()));
    }
    let mut rng = Rng::new(target.name.bytes().map(u64::from).sum());
    for case in 0..target.cases {
        all.push(if seeds.is_empty() || case % 3 == 0 {
            rng.bytes(target.max_len)
        } else {
            let mut data = seeds[rng.below(seeds.len())].clone();
            mutate(&mut data, &mut rng);
            data
        });
    }
    all
}

/// Runs all inputs of a target in a thread of its own, so that a hang is
/// reported too.
fn check(name: &str) {
    let target = fuzz_targets::target(name).unwrap();
    let inputs = inputs(target);
    let (tell, told) = channel();
    let work = inputs.clone();
    let worker = std::thread::spawn(move || {
        for data in &work {
            let ok = catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_ok();
            if tell.send(ok).is_err() {
                return;
            }
        }
    });
    for (i, data) in inputs.iter().enumerate() {
        let what = match told.recv_timeout(HANG) {
            Ok(true) => continue,
            Ok(false) => "panicked",
            Err(RecvTimeoutError::Timeout) => "hangs",
            Err(RecvTimeoutError::Disconnected) => "ended the thread",
        };
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = folder.join(format!("{name}-{i}"));
        std::fs::write(&file, data).unwrap();
        panic!(
            "input {i} of {name} ({} bytes) {what}; to see it again:\n\
             cargo run -p fuzz-targets -- run {name} {}",
            data.len(),
            file.display()
        );
    }
    worker.join().unwrap();
}

macro_rules! bounded {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_tested_and_wrapped() {
            let tested = [$(stringify!($name)),*];
            let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
            assert_eq!(tested.as_slice(), names);
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/Cargo.toml");
            let manifest = std::fs::read_to_string(fuzz).unwrap();
            for name in names {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
            }
        }
    };
}

bounded! {
    code_bytes kernel_image multiboot_image deb_image disk_overlay agent_frames snapshot_state
    enclave_files enclave_host_files enclave_store enclave_messages device_serial device_rtc device_pit
    device_pic device_ioapic device_pm device_i8042 device_apic
    device_pci device_qemu device_virtio_blk device_virtio_rng device_virtio_console device_virtio_fs
    device_virtio_vsock device_virtio_net network share_requests dcap_quote dcap_pki dcap_documents
    dcap_bundle aesm_messages collateral_requests ratls_certificate
}

/// A fuzzer that never gets past the first check finds nothing.
#[test]
fn seeds_reach_the_far_end() {
    for (i, kernel) in fuzz_targets::files::kernels().iter().enumerate() {
        assert!(fuzz_targets::files::boots(kernel), "kernel {i}");
    }
    for (i, image) in fuzz_targets::files::images().iter().enumerate() {
        assert!(fuzz_targets::files::boots_image(image), "image {i}");
    }
    for (i, package) in fuzz_targets::files::packages().iter().enumerate() {
        let packed = image::fuzz_package(package);
        assert!(packed.is_ok(), "package {i}: {packed:?}");
    }
    for (i, talk) in fuzz_targets::enclave::messages().iter().enumerate() {
        assert_eq!(fuzz_targets::enclave::talk(talk), 6, "talk {i}");
    }
    for (i, code) in fuzz_targets::code::seeds().iter().enumerate() {
        assert!(fuzz_targets::code::run(code) > 8, "code {i}");
    }
    for (i, frames) in fuzz_targets::network::seeds().iter().enumerate() {
        assert!(net::fuzz(frames) > 2, "network {i}");
    }
    for (i, virtio) in fuzz_targets::device::virtio::seeds().iter().enumerate() {
        let completed = fuzz_targets::device::virtio::completed(virtio);
        assert!(completed.iter().all(|&n| n > 0), "virtio {i}: {completed:?} chains");
    }
    for (i, talk) in fuzz_targets::device::sockets::seeds().iter().enumerate() {
        // the host's request; the answers to the guest's; what it said, and the end
        let completed = fuzz_targets::device::sockets::run(talk);
        assert!(completed >= 5, "talk {i}: {completed} chains");
    }
    for (i, quote) in fuzz_targets::attestation::quotes().iter().enumerate() {
        assert!(dcap::Quote::parse(quote).is_ok(), "quote {i}");
    }
    for (i, changes) in fuzz_targets::attestation::changes().iter().enumerate() {
        assert!(fuzz_targets::attestation::verdicts(changes), "changes {i}");
    }
    for (i, request) in fuzz_targets::aesm::requests().iter().enumerate() {
        // done, or of another service
        let code = fuzz_targets::aesm::answered(request);
        assert_eq!(code, if i < 5 { 30 } else { 0 }, "request {i}");
    }
    for (i, target) in fuzz_targets::requests::targets().iter().enumerate() {
        assert!(fuzz_targets::requests::ask(target).is_some(), "target {i}");
    }
    for (i, requests) in fuzz_targets::share::seeds().iter().enumerate() {
        let answered = fuzz_targets::share::run(requests);
        assert!(answered > 8, "requests {i}: {answered} succeeded");
    }
    for (i, course) in fuzz_targets::store::seeds().iter().enumerate() {
        let committed = fuzz_targets::store::run(course);
        assert!(committed >= 2, "course {i}: {committed} commits");
    }
}
