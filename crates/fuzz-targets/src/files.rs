//! Files and streams: kernels and multiboot images for [`boot`], Debian packages for
//! [`image`], overlays of disks, the agent's frames.

use agent_proto::{Decoder, Exec, ExitStatus, ToGuest, ToHost, Tty};
use devices::virtio::blk::BlockBackend;
use devices::virtio::overlay::OverlayBackend;
use std::io::{Read, Seek, Write};
use vm_memory::GuestAddress;

type Memory = vm_memory::GuestMemoryMmap<()>;

/// Bytes of RAM that kernels are loaded into.
const RAM: u64 = 64 << 20;

thread_local!(static GUEST: Memory = Memory::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("RAM"));

fn layout() -> boot::Layout {
    boot::Layout::new(std::iter::once(0..RAM).collect(), Vec::new())
}

/// Whether [`boot::load`] takes the kernel; panics if it goes where it should not.
pub fn boots(file: &[u8]) -> bool {
    let layout = layout();
    GUEST.with(|memory| match boot::load(memory, file, Some(&[7; 100]), "console=ttyS0", &layout) {
        Ok(entry) => {
            let (start, end) = entry.kernel;
            assert!(start >= 1 << 20 && end <= RAM && start < end, "kernel at {start:#x}..{end:#x}");
            assert!((start..end).contains(&entry.rip), "entry {:#x}", entry.rip);
            let (from, to) = entry.initrd.expect("one was given");
            assert!(to <= RAM && (to <= start || from >= end), "initrd at {from:#x}..{to:#x}");
            true
        }
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            false
        }
    })
}

/// [`boot::load`] on any file.
pub fn kernel_image(data: &[u8]) {
    boots(data);
}

/// Whether [`boot::multiboot::load`] takes the image; panics if it goes where it
/// should not.
pub fn boots_image(file: &[u8]) -> bool {
    let module = boot::multiboot::Module { data: &[7; 100], text: b"module" };
    GUEST.with(|memory| match boot::multiboot::load(memory, file, &[module], b"image", &layout()) {
        Ok(entry) => {
            let (start, end) = entry.kernel;
            assert!(start >= 1 << 20 && start < end, "image at {start:#x}..{end:#x}");
            assert!((start..end).contains(&entry.eip.into()), "entry {:#x}", entry.eip);
            let (from, to) = entry.modules[0];
            assert!(from >= end && to <= RAM, "module at {from:#x}..{to:#x}");
            true
        }
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            false
        }
    })
}

/// [`boot::multiboot::load`] on any file.
pub fn multiboot_image(data: &[u8]) {
    boots_image(data);
}

/// The image builder on any package file.
pub fn deb_image(data: &[u8]) {
    for made in [image::fuzz_package(data), image::debian::fuzz_tree(data)] {
        if let Err(error) = made {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

/// Length of the disk under [`disk_overlay`].
const DISK: usize = 11 * 4096 + 512;

/// A file as the overlay of a disk: once it is open, what is written reads back,
/// also when it is opened anew.
pub fn disk_overlay(data: &[u8]) {
    let Ok(mut file) = tempfile::tempfile() else { return };
    file.write_all(data).expect("a file of a few kilobytes");
    let open = || {
        let file = file.try_clone().expect("another handle");
        OverlayBackend::new(vec![1u8; DISK], &[3; 32], file, true)
    };
    let mut disk = match open() {
        Ok(disk) => disk,
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
    };
    let seed = data.iter().fold(0usize, |a, b| a.wrapping_mul(31).wrapping_add(usize::from(*b)));
    let (at, len) = (seed % DISK, seed / DISK % (DISK - seed % DISK));
    disk.write_at(at as u64, &vec![7; len]).expect("a write on the disk");
    assert!(disk.write_at(DISK as u64, &[7]).is_err());
    disk.flush().expect("a flush");
    let mut back = vec![0; len];
    open().expect("it was open").read_at(at as u64, &mut back).expect("a read on the disk");
    assert!(back.iter().all(|&b| b == 7));
}

/// Overlays with some blocks.
pub fn overlays() -> Vec<Vec<u8>> {
    let made = |blocks: &[u64]| -> std::io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile()?;
        let mut disk = OverlayBackend::new(vec![1u8; DISK], &[3; 32], file.try_clone()?, true)
            .map_err(std::io::Error::other)?;
        blocks.iter().try_for_each(|block| disk.write_at(block * 4096, &[9; 512]))?;
        disk.flush()?;
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    [&[][..], &[0, 10], &[3, 4, 5, 11]].into_iter().filter_map(|blocks| made(blocks).ok()).collect()
}

/// A snapshot's file: as it is, and as the state of one whose digests are right.
pub fn snapshot_state(data: &[u8]) {
    machine::snapshot::parse(data);
    machine::snapshot::parse(&machine::snapshot::seal(data));
}

/// What is told in a snapshot of no machine, and a file of it.
pub fn states() -> Vec<Vec<u8>> {
    let base = [3u8; 32];
    let file = r#""path":"/d","bytes":1,"modified":[1,2]"#;
    let disks = format!(
        r#"[{{"file":{{{file}}},"read_only":true,"overlay":null}},
            {{"file":{{{file}}},"read_only":false,"overlay":{{"base":{base:?},"place":{{"kept":{{{file}}}}}}}}},
            {{"file":{{{file}}},"read_only":false,"overlay":{{"base":{base:?},"place":{{"held":{{"at":0,"bytes":4096}}}}}}}}]"#
    );
    let about = format!(
        r#"{{"kluis":"0","taken":1,"model":"m","processors":{{"by_host":["SHA"],"cpuid":"0"}},"cpus":1,"memory":4096,"epc":4096,"disks":{disks},"owner":null}}"#
    );
    let state = r#"{"guest_ns":1,"cpus":[],"launch_hash":[1,2,3,4],"devices":[{"name":"pit","version":1,"state":{"a":[1]}}]}"#;
    let told = format!(r#"{{"about":{about},"state":{state}}}"#).into_bytes();
    assert!(machine::snapshot::parse(&machine::snapshot::seal(&told)));
    vec![machine::snapshot::seal(&told), told]
}

/// Both directions of the agent's protocol; the first byte says in which
/// portions the stream arrives.
pub fn agent_frames(data: &[u8]) {
    let Some((&portion, stream)) = data.split_first() else { return };
    let portion = usize::from(portion).max(1);
    for to_guest in [false, true] {
        let mut decoder = Decoder::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(portion.min(rest.len()));
            decoder.push(now);
            rest = later;
            // Every turn takes a frame or an error off the stream.
            for _ in 0..=now.len() + 1 {
                let more = if to_guest {
                    next(ToGuest::next(&mut decoder), ToGuest::encode, ToGuest::next)
                } else {
                    next(ToHost::next(&mut decoder), ToHost::encode, ToHost::next)
                };
                if !more {
                    break;
                }
            }
        }
    }
}

/// Checks that a message read comes back the same when written; false if more
/// bytes are needed.
fn next<M: PartialEq + std::fmt::Debug, E: std::fmt::Debug, F: std::fmt::Debug>(
    read: Result<Option<M>, F>,
    write: impl Fn(&M, &mut Vec<u8>) -> Result<(), E>,
    again: impl Fn(&mut Decoder) -> Result<Option<M>, F>,
) -> bool {
    match read {
        Ok(None) => false,
        Err(_) => true,
        Ok(Some(message)) => {
            let mut frame = Vec::new();
            write(&message, &mut frame).expect("what was read fits into a frame");
            let mut decoder = Decoder::new();
            decoder.push(&frame);
            let back = again(&mut decoder).expect("a frame of our own");
            assert_eq!(back.as_ref(), Some(&message));
            true
        }
    }
}

/// Streams of valid messages.
pub fn frames() -> Vec<Vec<u8>> {
    let exec = Exec {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"exit 7".to_vec()],
        env: vec![(b"A".to_vec(), b"b".to_vec())],
        cwd: b"/tmp".to_vec(),
        tty: Some(Tty { rows: 24, cols: 80, term: b"xterm".to_vec() }),
    };
    let mut host = vec![7];
    for message in [
        ToGuest::Exec(exec),
        ToGuest::Exec(Exec::default()),
        ToGuest::StdinEof { total: 1 << 33 },
        ToGuest::Winsize { rows: 1, cols: 2 },
        ToGuest::Signal(15),
        ToGuest::CloseOutput(agent_proto::Stream::Stderr),
        ToGuest::Shutdown,
    ] {
        message.encode(&mut host).expect("small");
    }
    let mut guest = vec![255];
    for message in [
        ToHost::Hello { version: agent_proto::VERSION },
        ToHost::Refused { reason: "busy".to_owned() },
        ToHost::Exit { status: ExitStatus::Code(3), stdout: 5, stderr: u64::MAX },
        ToHost::Exit { status: ExitStatus::Signal(9), stdout: 0, stderr: 0 },
    ] {
        message.encode(&mut guest).expect("small");
    }
    vec![host, guest]
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A small `vmlinux` of two segments.
fn vmlinux() -> Vec<u8> {
    const START: u64 = 0x100_0000;
    let mut file = vec![0; 64 + 2 * 56];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &2u16.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 24, &(START + 0x10).to_le_bytes());
    put(&mut file, 32, &64u64.to_le_bytes());
    put(&mut file, 54, &56u16.to_le_bytes());
    put(&mut file, 56, &2u16.to_le_bytes());
    let text: Vec<u8> = (0..0x400u32).map(|i| (i % 251) as u8).collect();
    for (i, (address, data, memory)) in
        [(START, text.as_slice(), 0x3000u64), (START + 0x20_0000, b"data", 0x5000)].into_iter().enumerate()
    {
        let at = 64 + 56 * i;
        let offset = file.len() as u64;
        put(&mut file, at, &1u32.to_le_bytes());
        for (field, value) in
            [(8, offset), (16, address), (24, address), (32, data.len() as u64), (40, memory)]
        {
            put(&mut file, at + field, &value.to_le_bytes());
        }
        file.extend_from_slice(data);
    }
    file
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Multiboot images: with address fields, and in an ELF file.
pub fn images() -> Vec<Vec<u8>> {
    const MAGIC: u32 = 0x1bad_b002;
    const AT: u32 = 0x20_0000;
    let header = |flags: u32| [MAGIC, flags, 0u32.wrapping_sub(MAGIC).wrapping_sub(flags)];
    let mut flat = words(&header(1 << 16));
    flat.extend(words(&[AT, AT, 0, AT + 0x2000, AT + 0x20]));
    flat.resize(0x400, 0x90);

    let mut elf = vec![0; 0x400];
    put(&mut elf, 0, b"\x7fELF\x01\x01\x01");
    put(&mut elf, 16, &[2, 0, 3, 0]);
    put(&mut elf, 24, &words(&[0xc000_0010, 52]));
    put(&mut elf, 42, &[32, 0, 1, 0]);
    put(&mut elf, 52, &words(&[1, 0x100, 0xc000_0000, AT, 0x300, 0x2000]));
    put(&mut elf, 0x100, &words(&header(3)));
    vec![flat, elf]
}

/// A bzImage of boot protocol 2.15 around `payload`.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 3 * 512 + 0x400];
    file[0x1f1] = 2;
    put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x20fu16.to_le_bytes());
    file[0x211] = 0x83;
    for (at, value) in [(0x214, 0x10_0000u32), (0x22c, 0x7fff_ffff), (0x230, 0x20_0000), (0x238, 2047)] {
        put(&mut file, at, &value.to_le_bytes());
    }
    file[0x234] = 1;
    put(&mut file, 0x236, &0x7fu16.to_le_bytes());
    put(&mut file, 0x248, &0x400u32.to_le_bytes());
    put(&mut file, 0x24c, &(payload.len() as u32).to_le_bytes());
    put(&mut file, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut file, 0x260, &0x40_0000u32.to_le_bytes());
    file.extend_from_slice(payload);
    file
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut writer = liblzma::write::XzEncoder::new(Vec::new(), 1);
    writer.write_all(data).and_then(|()| writer.finish()).expect("into memory")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Small kernels, in every form and packing.
pub fn kernels() -> Vec<Vec<u8>> {
    let elf = vmlinux();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let gzip = gzip.write_all(&elf).and_then(|()| gzip.finish()).expect("into memory");
    let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
    let block = lz4_flex::block::compress(&elf);
    lz4.extend((block.len() as u32).to_le_bytes());
    lz4.extend(&block);
    let lzma = liblzma::stream::LzmaOptions::new_preset(1)
        .and_then(|o| liblzma::stream::Stream::new_lzma_encoder(&o))
        .expect("a preset");
    let mut lzma = liblzma::write::XzEncoder::new_stream(Vec::new(), lzma);
    let lzma = lzma.write_all(&elf).and_then(|()| lzma.finish()).expect("into memory");
    let mut all = vec![bzimage(&gzip), bzimage(&elf), bzimage(b"of a packing unknown here")];
    for mut packed in [lz4, lzma, xz(&elf), zstd(&elf)] {
        packed.extend((elf.len() as u32).to_le_bytes());
        all.push(bzimage(&packed));
    }
    all.push(elf);
    all
}

/// A kernel module with nothing but a `.modinfo` section.
fn module(info: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut file = vec![0; 64];
    put(&mut file, 0, b"\x7fELF\x02\x01");
    let info_at = file.len();
    file.extend(info.bytes());
    let names_at = file.len();
    file.extend(names);
    let table = file.len();
    for (name, at, len) in [(0u32, 0, 0), (1, info_at, info.len()), (10, names_at, names.len())] {
        let mut header = [0; 64];
        put(&mut header, 0, &name.to_le_bytes());
        put(&mut header, 0x18, &(at as u64).to_le_bytes());
        put(&mut header, 0x20, &(len as u64).to_le_bytes());
        file.extend(header);
    }
    put(&mut file, 0x28, &(table as u64).to_le_bytes());
    put(&mut file, 0x3a, &64u16.to_le_bytes());
    put(&mut file, 0x3c, &3u16.to_le_bytes());
    put(&mut file, 0x3e, &2u16.to_le_bytes());
    file
}

/// A tree with kernel, modules and busybox.
fn tree() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let busybox = b"\x7fELF [\0[[\0ash\0cat\0ls\0mount\0sh\0test\0uname\0wc\0\0".to_vec();
    let base = "lib/modules/6.1.0/kernel";
    for (path, data) in [
        ("boot/vmlinuz-6.1.0".to_owned(), b"kernel".to_vec()),
        ("usr/bin/busybox".to_owned(), busybox),
        ("lib/modules/6.1.0/modules.builtin".to_owned(), b"kernel/virtio_blk.ko\n".to_vec()),
        (format!("{base}/virtio.ko"), module("depends=\0")),
        (format!("{base}/virtio_pci.ko"), module("depends=virtio\0alias=pci:v1AF4*\0")),
        (format!("{base}/virtio_console.ko.xz"), xz(&module("depends=virtio\0"))),
        (format!("{base}/virtio-rng.ko.zst"), zstd(&module("depends=\0"))),
        (format!("{base}/virtio_net.ko"), module("depends=virtio\0")),
        (format!("{base}/vmw_vsock_virtio_transport.ko"), module("depends=virtio\0")),
        (format!("{base}/virtiofs.ko"), module("depends=virtio\0")),
        (format!("{base}/ext4.ko"), module("softdep=pre: virtio post: x\0")),
        (format!("{base}/{}", "long/".repeat(30)), Vec::new()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, data.as_slice()).expect("into memory");
    }
    builder.into_inner().expect("into memory")
}

/// Packages that hold all the image needs, in each packing.
pub fn packages() -> Vec<Vec<u8>> {
    let tree = tree();
    [("data.tar", tree.clone()), ("data.tar.xz", xz(&tree)), ("data.tar.zst", zstd(&tree))]
        .into_iter()
        .map(|(name, data)| {
            let mut out = b"!<arch>\n".to_vec();
            for (name, data) in [("debian-binary", b"2.0".to_vec()), (name, data)] {
                let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, data.len());
                out.extend(header.bytes());
                out.extend(&data);
                out.resize(out.len().next_multiple_of(2), b'\n');
            }
            out
        })
        .collect()
}
