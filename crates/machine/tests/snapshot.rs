//! A machine on disk: it goes on from there, as often as one likes; and files that
//! are not what they were.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Kernel, start};
use machine::{Config, Disk, Running, Snapshot};

const PATIENCE: Duration = Duration::from_secs(60);
const COUNT: u64 = 0x20_0000;
const TSC: u64 = COUNT + 8;

/// Counts at [`COUNT`] and stores the time-stamp counter at [`TSC`], for ever.
const COUNTER: &[u8] = &[
    0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // inc qword [0x200000]
    0x0f, 0x31, // rdtsc
    0x48, 0xc1, 0xe2, 0x20, // shl rdx, 32
    0x48, 0x09, 0xd0, // or rax, rdx
    0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x20, 0x00, // mov [0x200008], rax
    0xeb, 0xe5, // jmp back
];

fn word(running: &Running, address: u64) -> u64 {
    u64::from_le_bytes(running.bus_read(address, 8).try_into().unwrap())
}

fn wait_for_more(running: &Running, than: u64) {
    let begin = Instant::now();
    while word(running, COUNT) <= than {
        assert!(begin.elapsed() < PATIENCE, "the processor does not go on");
        std::thread::yield_now();
    }
}

/// A snapshot of a machine that counts, and what it had counted.
struct Taken {
    dir: tempfile::TempDir,
    kernel: Kernel,
    path: PathBuf,
    count: u64,
    guest_ns: u64,
}

impl Taken {
    fn new(name: &str, disks: &[Disk]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kernel = Kernel::new(name, COUNTER);
        let path = dir.path().join("snapshot");
        let config = Config { disks: disks.to_vec(), ..kernel.config(2) };
        let (running, paused) = start(config);
        drop(paused);
        wait_for_more(&running, 1000);
        let paused = running.pause().unwrap();
        let (count, guest_ns) = (word(&running, COUNT), paused.guest_ns());
        let mut told = Vec::new();
        let file = File::create_new(&path).unwrap();
        let owner = serde_json::json!({ "of": "the test" });
        let contents = running.save(&paused, owner, &file, &mut |done, all| told.push((done, all))).unwrap();
        assert_eq!((contents.memory, told.last()), (64 << 20, Some(&(64 << 20, 64 << 20))));
        assert!((2..2000).contains(&contents.pages), "{contents:?}");
        // it goes on
        drop(paused);
        wait_for_more(&running, count);
        Self { dir, kernel, path, count, guest_ns }
    }

    fn config(&self, cpus: usize, path: &Path) -> Result<Config, machine::SnapshotError> {
        let snapshot = Some(Box::new(Snapshot::open(path)?));
        Ok(Config { snapshot, ..self.kernel.config(cpus) })
    }

    fn refused(&self, path: &Path) -> String {
        let config = match self.config(2, path) {
            Ok(config) => config,
            Err(e) => return e.to_string(),
        };
        machine::prepare(config).err().map(|e| e.to_string()).expect("the snapshot was not refused")
    }
}

#[test]
fn machines_go_on_from_it_each_for_itself() {
    let taken = Taken::new("snapshot-on", &[]);
    let before = fs::read(&taken.path).unwrap();
    let snapshot = Snapshot::open(&taken.path).unwrap();
    snapshot.verify(&mut |_, _| {}).unwrap();
    assert_eq!((snapshot.about().cpus, &*snapshot.about().model), (2, "xeon-e-2288g"));
    assert_eq!(snapshot.about().owner["of"], "the test");

    let again = || start(taken.config(2, &taken.path).unwrap());
    let ((one, one_paused), (other, other_paused)) = (again(), again());
    for (machine, paused) in [(&one, &one_paused), (&other, &other_paused)] {
        assert_eq!(word(machine, COUNT), taken.count);
        assert_eq!(paused.guest_ns(), taken.guest_ns);
    }
    drop(one_paused);
    wait_for_more(&one, taken.count + 1000);
    assert_eq!(word(&other, COUNT), taken.count, "the other machine's memory is its own");
    drop(other_paused);
    wait_for_more(&other, taken.count);
    let hz = u128::from(cpu::Model::xeon_e_2288g().tsc_hz);
    let ns = u128::from(word(&other, TSC)) * 1_000_000_000 / hz;
    let since = ns as u64 - taken.guest_ns;
    assert!(since < PATIENCE.as_nanos() as u64, "guest time goes on from where it stood: {since}");

    // a snapshot of a machine from a snapshot
    let again = taken.dir.path().join("again");
    let paused = one.pause().unwrap();
    let count = word(&one, COUNT);
    one.save(&paused, serde_json::Value::Null, &File::create_new(&again).unwrap(), &mut |_, _| {}).unwrap();
    drop(paused);
    let (third, paused) = start(taken.config(2, &again).unwrap());
    assert_eq!(word(&third, COUNT), count);
    drop(paused);
    wait_for_more(&third, count);
    drop((one, other, third));
    assert!(fs::read(&taken.path).unwrap() == before, "machines do not change it");
}

#[test]
fn damaged_and_foreign_files_are_refused_in_one_line() {
    let taken = Taken::new("snapshot-bad", &[]);
    let good = fs::read(&taken.path).unwrap();
    let path = taken.dir.path().join("bad");
    let write = |bytes: &[u8]| {
        // with holes, as it was
        let file = File::create(&path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (i, page) in bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|&b| b != 0)) {
            file.write_all_at(page, 4096 * i as u64).unwrap();
        }
    };
    let refused = |bytes: &[u8]| {
        write(bytes);
        let why = taken.refused(&path);
        assert_eq!(why.lines().count(), 1, "{why}");
        why
    };
    assert!(refused(b"").contains("no snapshot"));
    assert!(refused(&[0x7f; 8192]).contains("no snapshot"));
    for len in [100, 151, 152, 4096, 5000, good.len() - 4096, good.len() - 1] {
        let why = refused(&good[..len]);
        assert!(why.contains(if len < 152 { "no snapshot" } else { "damaged (cut short" }), "{len}: {why}");
    }
    let longer = [&good[..], &[0]].concat();
    assert!(refused(&longer).contains("damaged"));
    let state = u64::from_le_bytes(good[16..24].try_into().unwrap()) as usize;
    let flip = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bad
    };
    for at in 0..152 {
        let why = refused(&flip(at));
        let expected = match at {
            0..8 => "no snapshot",
            8..12 => "of format",
            _ => "damaged (its header)",
        };
        assert!(why.contains(expected), "{at}: {why}");
    }
    for at in (4096..4096 + state).step_by(state / 16) {
        assert!(refused(&flip(at)).contains("damaged (its state)"), "{at}");
    }
    // what is in memory is the guest's own: only `verify` looks
    let memory = good.len() - (64 << 20) + COUNT as usize;
    write(&flip(memory));
    let why = Snapshot::open(&path).unwrap().verify(&mut |_, _| {}).unwrap_err().to_string();
    assert!(why.contains("damaged (its memory"), "{why}");

    assert!(taken.refused(taken.dir.path()).contains("no snapshot"));
    assert!(taken.refused(&taken.dir.path().join("none")).contains("check the path"));
}

#[test]
fn other_machines_are_refused() {
    let taken = Taken::new("snapshot-other", &[]);
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = taken.config(2, &taken.path).unwrap();
        change(&mut config);
        machine::prepare(config).err().map(|e| e.to_string()).expect("another machine was not refused")
    };
    let model = refused(&|c| c.model = cpu::Model::xeon_8370c().into());
    assert!(model.contains("xeon-e-2288g, not xeon-8370c"), "{model}");
    assert!(refused(&|c| c.cpus = 1).contains("processors: 2, not 1"));
    assert!(refused(&|c| c.memory = 128 << 20).contains("bytes of memory"));
    assert!(refused(&|c| c.epc.bytes = 2 << 20).contains("bytes of EPC"));
    let port = || devices::virtio::console::PortConfig {
        name: "more".into(),
        console: false,
        sink: Box::new(|data: &[u8]| data.len()),
        on_event: None,
    };
    let devices = refused(&|c| c.ports = vec![port()]);
    assert!(devices.contains("has the devices ioapic, pic"), "{devices}");
}

#[test]
fn disks_must_be_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk");
    let disk = |read_only| Disk { path: image.clone(), read_only, overlay: None };
    fs::write(&image, vec![7; 4096]).unwrap();
    let taken = Taken::new("snapshot-disk", &[disk(true)]);
    let with = |disks: Vec<Disk>| Config { disks, ..taken.config(2, &taken.path).unwrap() };
    let refused = |disks| machine::prepare(with(disks)).err().map(|e| e.to_string()).expect("not refused");
    let (running, paused) = start(with(vec![disk(true)]));
    drop(paused);
    wait_for_more(&running, taken.count);
    assert!(running.can_be_saved(false).is_ok());
    drop(running);
    assert!(refused(vec![]).contains("1 disks, not 0"));
    assert!(refused(vec![disk(false)]).contains("attached otherwise"));
    let time = fs::metadata(&image).unwrap().modified().unwrap();
    fs::write(&image, vec![8; 4096]).unwrap();
    assert!(refused(vec![disk(true)]).contains("has changed since"));
    File::options().write(true).open(&image).unwrap().set_modified(time).unwrap();
    fs::remove_file(&image).unwrap();
    assert!(refused(vec![disk(true)]).contains("cannot find it"));

    // one that the guest may write would run ahead of the snapshot
    fs::write(&image, vec![7; 4096]).unwrap();
    let config = Config { disks: vec![disk(false)], ..taken.kernel.config(1) };
    let (running, _paused) = start(config);
    let why = running.can_be_saved(false).unwrap_err().to_string();
    assert!(why.contains("add --stop"), "{why}");
    assert!(running.can_be_saved(true).is_ok());
}

/// Where the test's driver has its things.
const RINGS: [u64; 3] = [0x30_0000, 0x30_1000, 0x30_2000];
const REQUEST: u64 = 0x30_3000;
const STATUS: u64 = 0x30_4000;
const BUFFER: u64 = 0x31_0000;
const MARK: u64 = COUNT + 16;
/// The disk's registers: the second function beside the host bridge.
const DISK: u64 = 0xc000_0000 + 2 * devices::virtio::BAR_LEN;

/// Code that writes `len` bytes of `value` at `address`.
fn poke(code: &mut Vec<u8>, address: u64, len: usize, value: u32) {
    code.push(0xbe); // mov esi, address
    code.extend((address as u32).to_le_bytes());
    code.extend(match len {
        1 => &[0xc6, 0x06][..],
        2 => &[0x66, 0xc7, 0x06],
        _ => &[0xc7, 0x06],
    });
    code.extend(&value.to_le_bytes()[..len]);
}

/// Code that moves a block between [`BUFFER`] and the disk's block 2, as request `n`.
fn request(code: &mut Vec<u8>, n: u32, kind: u32) {
    poke(code, REQUEST, 4, kind);
    poke(code, REQUEST + 8, 4, 16); // sector
    poke(code, STATUS, 1, 0xee);
    let data = if kind == 0 { 3 } else { 1 };
    for (i, (at, len, flags)) in
        [(REQUEST, 16, 1), (BUFFER, 4096, data), (STATUS, 1, 2)].into_iter().enumerate()
    {
        let descriptor = RINGS[0] + 16 * i as u64;
        poke(code, descriptor, 4, at as u32);
        poke(code, descriptor + 8, 4, len);
        poke(code, descriptor + 12, 2, flags);
        poke(code, descriptor + 14, 2, i as u32 + 1);
    }
    poke(code, RINGS[1] + 2, 2, n);
    poke(code, DISK + 0x3000, 2, 0);
}

/// Writes a block to the disk, then counts while EBX is zero; then reads the block, and
/// counts on.
fn driver() -> Vec<u8> {
    let mut code = Vec::new();
    // *virtio 1.2 §3.1.1*
    for status in [0, 1, 3] {
        poke(&mut code, DISK + 0x14, 1, status);
    }
    poke(&mut code, DISK + 0x08, 4, 1);
    poke(&mut code, DISK + 0x0c, 4, 1); // VIRTIO_F_VERSION_1
    poke(&mut code, DISK + 0x14, 1, 0xb);
    poke(&mut code, DISK + 0x16, 2, 0);
    for (register, address) in [0x20, 0x28, 0x30].into_iter().zip(RINGS) {
        poke(&mut code, DISK + register, 4, address as u32);
    }
    poke(&mut code, DISK + 0x1c, 2, 1);
    poke(&mut code, DISK + 0x14, 1, 0xf);
    for at in (0..4096).step_by(4) {
        poke(&mut code, BUFFER + at, 4, 0x1234_0000 + at as u32);
    }
    request(&mut code, 1, 1);
    for at in (0..4096).step_by(4) {
        poke(&mut code, BUFFER + at, 4, 0);
    }
    poke(&mut code, MARK, 4, 1);
    code.extend([0x31, 0xdb]); // xor ebx, ebx
    code.extend([0x48, 0xff, 0x04, 0x25, 0, 0, 0x20, 0]); // inc qword [COUNT]
    code.extend([0x85, 0xdb, 0x74, 0xf4]); // test ebx, ebx; jz back
    request(&mut code, 2, 0);
    poke(&mut code, MARK, 4, 2);
    code.extend([0x48, 0xff, 0x04, 0x25, 0, 0, 0x20, 0, 0xeb, 0xf6]); // count, for ever
    code
}

/// What the guest reads from its disk after it was told to.
fn block(running: &Running) -> Vec<u8> {
    let paused = running.pause().unwrap();
    paused.with_cpu(0, |engine| engine.cpu.s.regs.set(3, 1)).unwrap();
    drop(paused);
    let begin = Instant::now();
    while word(running, MARK) != 2 {
        assert!(begin.elapsed() < PATIENCE, "the block was not read");
        std::thread::yield_now();
    }
    assert_eq!(running.bus_read(STATUS, 1), [0]);
    running.bus_read(BUFFER, 4096)
}

#[test]
fn what_is_in_overlays_goes_along() {
    let dir = tempfile::tempdir().unwrap();
    let (image, kept) = (dir.path().join("disk"), dir.path().join("overlay"));
    fs::write(&image, vec![7; 40_448]).unwrap();
    let base = [9; 32];
    let disk = |place| Disk {
        path: image.clone(),
        read_only: false,
        overlay: Some(machine::Overlay { base, place }),
    };
    let expected: Vec<u8> = (0..4096u32).step_by(4).flat_map(|at| (0x1234_0000 + at).to_le_bytes()).collect();
    let kernel = Kernel::new("snapshot-overlay", &driver());
    let save = |running: &Running, name: &str| {
        wait_for_more(running, 0);
        let paused = running.pause().unwrap();
        assert_eq!(word(running, MARK), 1);
        let path = dir.path().join(name);
        let file = File::create_new(&path).unwrap();
        running.save(&paused, serde_json::Value::Null, &file, &mut |_, _| {}).unwrap();
        path
    };
    let from = |path: &Path| {
        let snapshot = Snapshot::open(path).unwrap();
        snapshot.verify(&mut |_, _| {}).unwrap();
        let disks = snapshot.about().disks.iter().map(|record| record.disk()).collect();
        Config { snapshot: Some(Box::new(snapshot)), disks, ..kernel.config(1) }
    };

    // one that goes with the machine: the machine goes on, and so do others
    let place = machine::Place::Passing(dir.path().into());
    let (running, paused) = start(Config { disks: vec![disk(place)], ..kernel.config(1) });
    drop(paused);
    assert!(running.can_be_saved(false).is_ok());
    let first = save(&running, "first");
    assert_eq!(block(&running), expected);
    drop(running);
    let (running, paused) = start(from(&first));
    drop(paused);
    let second = save(&running, "second");
    for path in [&second, &first] {
        let (running, paused) = start(from(path));
        drop(paused);
        assert_eq!(block(&running), expected);
    }
    assert!(fs::read(&image).unwrap() == vec![7; 40_448]);
    // every byte of it is looked at
    let damaged = dir.path().join("damaged");
    fs::copy(&first, &damaged).unwrap();
    let file = File::options().read(true).write(true).open(&damaged).unwrap();
    let at = file.metadata().unwrap().len() - 40_960 + 8192;
    file.write_all_at(&[1], at).unwrap();
    assert!(Snapshot::open(&damaged).unwrap().verify(&mut |_, _| {}).is_err());
    let mut other = from(&first);
    other.disks[0].overlay.as_mut().unwrap().base = [8; 32];
    let why = machine::prepare(other).err().map(|e| e.to_string()).unwrap();
    assert!(why.contains("attached otherwise"), "{why}");

    // one that is kept is as a disk that is written
    let (running, paused) =
        start(Config { disks: vec![disk(machine::Place::Kept(kept.clone()))], ..kernel.config(1) });
    drop(paused);
    assert!(running.can_be_saved(false).unwrap_err().to_string().contains("add --stop"));
    let third = save(&running, "third");
    running.stop();
    drop(running);
    let changed = dir.path().join("changed");
    fs::copy(&kept, &changed).unwrap();
    let (running, paused) = start(from(&third));
    drop(paused);
    assert_eq!(block(&running), expected);
    drop(running);
    fs::rename(&changed, &kept).unwrap();
    let why = machine::prepare(from(&third)).err().map(|e| e.to_string()).unwrap();
    assert!(why.contains("overlay: it has changed"), "{why}");
}
