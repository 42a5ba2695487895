//! From the command line to a machine that can be built, or the reason why
//! not: everything that can be refused before anything is made.

use super::{multiboot, network};
use crate::apt_proxy::Proxies;
use crate::capacity::Capacity;
use crate::cli::{ImageName, RunArgs};
use crate::exit::Error;
use crate::sizes::{self, Size};
use crate::snapshot::owner::Session;
use crate::units;
use agent_proto::{Exec, Mount, ToGuest, Tty};
use cpu::Model;
use machine::config::{MAX_CPUS, MIN_MEMORY};
use machine::snapshot::{About, DiskRecord};
use machine::{Disk, MachineError, Module, Share, VsockPorts};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;

/// The kernel command line that `--append` adds to: console on the first serial
/// port, without the kernel's chatter (each character costs time there), and a
/// kernel that panics ends the machine instead of hanging.
const CMDLINE: &str = "console=ttyS0 loglevel=6 panic=-1";
/// What is added for a system on a disk: `eth0` is the network's name, and its init
/// does not tell the serial port each step.
const CMDLINE_SYSTEM: &str = "kluis.root=/dev/vda net.ifnames=0 systemd.show_status=false";
/// The same for an own kernel without command: the console is all there is.
const CMDLINE_CONSOLE: &str = "console=ttyS0 panic=-1";

/// Bytes of a page of EPC.
const EPC_PAGE: u64 = 4 << 10;
/// Least EPC of a machine, in bytes: an enclave with its tables fits.
const MIN_EPC: u64 = 1 << 20;

/// How people and programs reach the guest.
pub(crate) enum Access {
    /// Through the agent; the frames that mount shares and start the command.
    Agent {
        /// Each encoded `Mount`, and an `Exec`.
        exec: Vec<u8>,
        /// It asks for a terminal.
        tty: bool,
    },
    /// Through the first serial port.
    Serial,
}

/// A machine to be built.
pub(crate) struct Plan {
    /// The size that was asked for, if one was.
    pub(crate) size: Option<&'static Size>,
    /// Processor model.
    pub(crate) model: Arc<Model>,
    /// Number of processors.
    pub(crate) cpus: usize,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// Enclave page cache in bytes, beside memory.
    pub(crate) epc: u64,
    /// Own kernel, or the default image's.
    pub(crate) kernel: Option<PathBuf>,
    /// The image, unless the kernel is the user's own.
    pub(crate) image: ImageName,
    /// Where what is written to the image's disk is kept.
    pub(crate) overlay: Option<PathBuf>,
    /// Own initial RAM disk; else the default image's, with its kernel only.
    pub(crate) initrd: Option<PathBuf>,
    /// Modules of a multiboot image.
    pub(crate) modules: Vec<Module>,
    /// Kernel command line.
    pub(crate) cmdline: String,
    /// Disks.
    pub(crate) disks: Vec<Disk>,
    /// Folders of the host, in the order of their tags.
    pub(crate) shares: Vec<Share>,
    /// Unix sockets for the guest's sockets.
    pub(crate) vsock: VsockPorts,
    /// The network.
    pub(crate) network: Option<net::Config>,
    /// apt's proxies, as the guest's settings of apt.
    pub(crate) apt: String,
    /// The way in.
    pub(crate) access: Access,
}

/// What the host's terminal is, as the plan depends on it.
#[derive(Clone, Debug)]
pub(crate) struct HostTerminal {
    /// Standard input and output are one.
    pub(crate) interactive: bool,
    /// Rows and columns.
    pub(crate) size: (u16, u16),
    /// Its type, for `TERM`.
    pub(crate) term: Vec<u8>,
}

impl Plan {
    /// Checks all of `args`.
    ///
    /// # Errors
    /// Bad input, with cause and remedy.
    pub(crate) fn new(args: &RunArgs, terminal: &HostTerminal) -> Result<Self, Error> {
        let by_shape = args.size.is_none() && (args.cpus.is_some() || args.memory.is_some());
        let name = args.size.as_deref().unwrap_or(sizes::DEFAULT);
        let size = Size::by_name(name).ok_or_else(|| {
            // Azure's other families: https://learn.microsoft.com/azure/virtual-machines/sizes
            let azure = name.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("Standard_"));
            let what = if azure { "no size with an EPC, which SGX needs" } else { "unknown" };
            Error::bad(format!(
                "the size {name:?} is {what}: give --size one of these, or --cpus and --memory\n{}",
                sizes::names()
            ))
        })?;
        let model = model(args.cpu.as_deref().unwrap_or(size.model))?;
        let cpus = args.cpus.unwrap_or(usize::from(size.cpus));
        let memory = args.memory.unwrap_or(size.memory());
        if !by_shape && memory > size.memory() {
            return Err(Error::bad(format!(
                "--memory {} is more than {} has ({}): leave it out, or choose a larger --size",
                units::bytes(memory),
                size.name,
                units::bytes(size.memory())
            )));
        }
        let epc = epc(args.epc, (!by_shape).then_some(size), &model)?;
        check_shape(&model, cpus, memory, epc).map_err(Error::bad)?;
        let what = if by_shape { "the machine" } else { size.name };
        Capacity::of_host().check(memory, epc).map_err(|why| Error::bad(format!("{what} {why}")))?;
        // the machine reads them again: what is wrong shows before the default image
        // is built for nothing
        let kernel = args.kernel.as_deref().map(boot::read_kernel).transpose().map_err(Error::bad)?;
        let image = args.kernel.as_deref().filter(|_| kernel.is_some_and(|k| boot::multiboot::is_image(&k)));
        let modules = match (image, &args.initrd) {
            (Some(_), Some(list)) => multiboot::modules(list)?,
            (None, Some(file)) => {
                boot::read_initrd(file).map_err(Error::bad)?;
                Vec::new()
            }
            (_, None) => Vec::new(),
        };
        args.disk.iter().try_for_each(check_disk).map_err(Error::bad)?;
        check_shares(&args.share).map_err(Error::bad)?;
        let vsock = VsockPorts {
            connect: ports("--vsock", &args.vsock)?,
            listen: ports("--vsock-listen", &args.vsock_listen)?,
        };
        let system = args.image == ImageName::Debian;
        if args.overlay.is_some() && !system {
            return Err(Error::bad(
                "--overlay is for an image with a disk: add --image debian, or give your own with --disk",
            ));
        }

        let mut network = network(args)?;
        let proxies = match &network {
            Some(network) if system && !args.no_apt_proxy => Proxies::of_host(&network.allow_host),
            _ => Proxies::default(),
        };
        if let Some(network) = &mut network {
            network.services = proxies.services;
        }
        let own = args.kernel.is_some() || args.initrd.is_some();
        let access = match image {
            Some(_) if !args.command.is_empty() => {
                return Err(Error::bad(
                    "a multiboot image has no agent that could run a command: give it arguments with --append",
                ));
            }
            _ if own && args.command.is_empty() => Access::Serial,
            _ => agent(args, terminal)?,
        };
        let name = image.map(|path| path.to_string_lossy());
        let base = match (&name, &access) {
            (Some(name), _) => name,
            (None, Access::Serial) => CMDLINE_CONSOLE,
            (None, _) => CMDLINE,
        };
        // for our own init; other images know nothing of it
        let address = network.as_ref().filter(|_| image.is_none() && !system).map(|_| network::address());
        let system = system.then_some(CMDLINE_SYSTEM);
        let words = std::iter::once(base)
            .chain(system)
            .chain(address.as_deref())
            .chain(args.append.iter().map(String::as_str));
        Ok(Self {
            size: (!by_shape).then_some(size),
            model,
            cpus,
            memory,
            epc,
            image: args.image,
            overlay: args.overlay.clone(),
            kernel: args.kernel.clone(),
            initrd: args.initrd.clone().filter(|_| image.is_none()),
            modules,
            cmdline: words.collect::<Vec<_>>().join(" "),
            disks: args.disk.clone(),
            shares: args.share.iter().map(|share| share.host.clone()).collect(),
            vsock,
            network,
            apt: proxies.settings,
            access,
        })
    }

    /// The machine of a snapshot, and the way into its guest.
    ///
    /// # Errors
    /// It cannot be here, or does not fit what was asked for.
    pub(crate) fn of_snapshot(
        args: &RunArgs,
        about: &About,
        session: Session,
        terminal: &HostTerminal,
    ) -> Result<Self, Error> {
        let model = model(&about.model)?;
        check_shape(&model, about.cpus, about.memory, about.epc).map_err(Error::bad)?;
        Capacity::of_host()
            .check(about.memory, about.epc)
            .map_err(|why| Error::bad(format!("the snapshot's machine {why}")))?;
        let access = match session {
            Session::Idle => agent(args, terminal)?,
            _ if !args.command.is_empty() => {
                return Err(Error::bad(
                    "the snapshot's guest has something to go on with: leave out the command",
                ));
            }
            Session::Command { tty, .. } => Access::Agent { exec: Vec::new(), tty },
            Session::Serial => Access::Serial,
        };
        check_shares(&args.share).map_err(Error::bad)?;
        let vsock = VsockPorts {
            connect: ports("--vsock", &args.vsock)?,
            listen: ports("--vsock-listen", &args.vsock_listen)?,
        };
        let system = about.disks.iter().any(|disk| disk.overlay.is_some());
        Ok(Self {
            size: None,
            // a system on a disk takes its time to end
            image: if system { ImageName::Debian } else { ImageName::Default },
            overlay: None,
            model,
            cpus: about.cpus,
            memory: about.memory,
            epc: about.epc,
            kernel: None,
            initrd: None,
            modules: Vec::new(),
            cmdline: String::new(),
            disks: about.disks.iter().map(DiskRecord::disk).collect(),
            shares: args.share.iter().map(|share| share.host.clone()).collect(),
            vsock,
            network: network(args)?,
            apt: String::new(),
            access,
        })
    }

    /// Whether the guest can write to something that outlives it.
    pub(crate) fn keeps_data(&self) -> bool {
        self.overlay.is_some()
            || self.disks.iter().any(Disk::keeps_data)
            || self.shares.iter().any(|share| !share.read_only)
    }
}

/// The network, if the machine has one.
fn network(args: &RunArgs) -> Result<Option<net::Config>, Error> {
    match args.network {
        units::Network::Nat => Ok(Some(net::Config {
            publish: args.publish.clone(),
            allow_host: args.allow_host.iter().copied().collect(),
            services: BTreeMap::new(),
        })),
        units::Network::None if args.publish.is_empty() && args.allow_host.is_empty() => Ok(None),
        units::Network::None => {
            Err(Error::bad("--publish and --allow-host need a network: leave out --network none"))
        }
    }
}

fn model(name: &str) -> Result<Arc<Model>, Error> {
    let model = Model::by_name(name).ok_or_else(|| {
        let known = Model::all().map(|m| m.name).join(" or ");
        Error::bad(format!("unknown processor model {name:?}: give --cpu {known}"))
    })?;
    let missing = cpu::thunk::host_missing(&model);
    if !missing.is_empty() {
        return Err(Error::bad(format!(
            "this host's processor lacks {}, which {name} needs: run on another host (`kluis doctor` tells more)",
            missing.join(", ")
        )));
    }
    Ok(Arc::new(model))
}

/// The EPC: that of the size, else of the model's smallest; or less of it, of a
/// machine without a size less than the model's largest has.
fn epc(asked: Option<u64>, size: Option<&Size>, model: &Model) -> Result<u64, Error> {
    let (usual, most) = match (size, Size::range_of(model.name)) {
        (Some(size), _) => (size.epc(), size),
        (None, Some((smallest, largest))) => (smallest.epc(), largest),
        (None, None) => return Err(Error::bad(format!("{} has no EPC: give a --size", model.name))),
    };
    let Some(epc) = asked else { return Ok(usual) };
    let bytes = units::bytes;
    if epc > most.epc() {
        return Err(Error::bad(format!(
            "--epc {} is more than {} has ({}): leave it out, or choose a larger --size",
            bytes(epc),
            most.name,
            bytes(most.epc())
        )));
    }
    if epc < MIN_EPC || epc % EPC_PAGE != 0 {
        return Err(Error::bad(format!(
            "--epc {} cannot be: give at least {}, in whole pages of {}",
            bytes(epc),
            bytes(MIN_EPC),
            bytes(EPC_PAGE)
        )));
    }
    Ok(epc)
}

/// What the machine would refuse as well, but before the image is built.
fn check_shape(model: &Model, cpus: usize, memory: u64, epc: u64) -> Result<(), MachineError> {
    if !(1..=MAX_CPUS).contains(&cpus) {
        return Err(MachineError::Cpus(cpus));
    }
    if memory < MIN_MEMORY {
        return Err(MachineError::TooLittleMemory { given: memory >> 20, least: MIN_MEMORY >> 20 });
    }
    let most = (1u64 << model.phys_bits).saturating_sub((1u64 << 30).saturating_add(epc));
    if memory > most {
        return Err(MachineError::TooMuchMemory { given: memory >> 30, most: most >> 30, model: model.name });
    }
    Ok(())
}

/// Looks at a disk without changing or locking it.
fn check_disk(disk: &Disk) -> Result<(), MachineError> {
    let fail = |reason: String| Err(MachineError::Disk { path: disk.path.clone(), reason });
    // metadata first: opening a pipe would wait for its other end
    let meta = match fs::metadata(&disk.path) {
        Ok(meta) => meta,
        Err(e) => return fail(format!("cannot find it: {e}; check the path")),
    };
    if meta.is_dir() {
        return fail("is a folder; give a raw disk image".into());
    }
    if !meta.is_file() && !meta.file_type().is_block_device() {
        return fail("is neither a regular file nor a block device; give a raw disk image".into());
    }
    if let Err(e) = OpenOptions::new().read(true).write(!disk.read_only).open(&disk.path) {
        let remedy =
            if disk.read_only { "check its permissions" } else { "add `,ro` if it may only be read" };
        return fail(format!("cannot open it: {e}; {remedy}"));
    }
    if meta.is_file() && (meta.len() == 0 || meta.len() % 512 != 0) {
        return fail(format!("has {} bytes, no multiple of 512; give a raw disk image", meta.len()));
    }
    Ok(())
}

/// Looks whether the folders can be shared, and each has a place of its own.
fn check_shares(shares: &[units::Share]) -> Result<(), String> {
    for (n, share) in shares.iter().enumerate() {
        if shares[..n].iter().any(|other| other.guest == share.guest) {
            return Err(format!("two shares at {} in the guest: leave one out", share.guest));
        }
        share::Share::open(&share.host.path, share.host.read_only, 1)
            .map_err(|why| MachineError::Share { path: share.host.path.clone(), why }.to_string())?;
    }
    Ok(())
}

/// Ports with their sockets.
fn ports(option: &str, given: &[(u32, PathBuf)]) -> Result<BTreeMap<u32, PathBuf>, Error> {
    let ports: BTreeMap<u32, PathBuf> = given.iter().cloned().collect();
    if ports.len() < given.len() {
        return Err(Error::bad(format!("{option} names a port twice: leave one out")));
    }
    Ok(ports)
}

/// What mounts the shares: a folder before those in it.
fn mounts(shares: &[units::Share]) -> Vec<ToGuest> {
    let mut by_path: Vec<_> = shares.iter().enumerate().collect();
    by_path.sort_by_key(|(_, share)| &share.guest);
    let mount = |(number, share): (usize, &units::Share)| {
        ToGuest::Mount(Mount {
            tag: Share::tag(number).into_bytes(),
            target: share.guest.clone().into_bytes(),
            read_only: share.host.read_only,
        })
    };
    by_path.into_iter().map(mount).collect()
}

fn agent(args: &RunArgs, terminal: &HostTerminal) -> Result<Access, Error> {
    let tty = args.tty || (args.command.is_empty() && terminal.interactive);
    if args.tty && !terminal.interactive {
        return Err(Error::bad("--tty needs a terminal as standard input and output: leave it out"));
    }
    let (rows, cols) = terminal.size;
    let exec = Exec {
        argv: args.command.iter().map(|arg| arg.clone().into_vec()).collect(),
        tty: tty.then(|| Tty { rows, cols, term: terminal.term.clone() }),
        ..Exec::default()
    };
    let mut frames = Vec::new();
    for message in mounts(&args.share).into_iter().chain([ToGuest::Exec(exec)]) {
        message.encode(&mut frames).map_err(Error::bad)?;
    }
    Ok(Access::Agent { exec: frames, tty })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Command};
    use std::ffi::OsString;

    fn plan(line: &[&str]) -> Result<Plan, String> {
        let terminal = HostTerminal { interactive: false, size: (24, 80), term: b"dumb".to_vec() };
        let args = ["kluis", "run"].iter().chain(line).map(OsString::from);
        match cli::parse(args).unwrap().command {
            Command::Run(args) => Plan::new(&args, &terminal).map_err(|e| {
                assert_eq!(e.code(), 2);
                e.to_string()
            }),
            other => panic!("{other:?}"),
        }
    }

    fn refused(line: &[&str]) -> String {
        plan(line).map(drop).unwrap_err()
    }

    #[test]
    fn default_is_the_smallest_size() {
        let p = plan(&["--", "true"]).unwrap();
        assert_eq!((p.size.unwrap().name, p.cpus, p.memory), ("Standard_DC1s_v2", 1, 4 << 30));
        assert_eq!(p.epc, 28 << 20);
        assert_eq!(p.model.name, "xeon-e-2288g");
        assert_eq!(p.cmdline, format!("{CMDLINE} {}", network::address()));
    }

    #[test]
    fn shape_is_filled_up_from_the_default() {
        let p = plan(&["--cpus", "8"]).unwrap();
        assert_eq!((p.size, p.cpus, p.memory, p.epc), (None, 8, 4 << 30, 28 << 20));
        let p = plan(&["--memory", "512M", "--cpu", "xeon-8370c"]).unwrap();
        assert_eq!((p.cpus, p.memory, p.epc, p.model.name), (1, 512 << 20, 4 << 30, "xeon-8370c"));
        let p = plan(&["--size", "Standard_DC48s_v3"]).unwrap();
        assert_eq!((p.cpus, p.memory, p.epc, p.model.name), (48, 384 << 30, 256 << 30, "xeon-8370c"));
    }

    #[test]
    fn of_a_size_there_can_be_less_and_never_more() {
        let less = ["--size", "Standard_DC2s_v3", "--memory", "1G", "--epc", "64M"];
        let p = plan(&less).unwrap();
        assert_eq!((p.size.unwrap().name, p.memory, p.epc), ("Standard_DC2s_v3", 1 << 30, 64 << 20));
        let p = plan(&["--size", "Standard_DC2s_v2", "--memory", "8G", "--epc", "56M"]).unwrap();
        assert_eq!((p.memory, p.epc), (8 << 30, 56 << 20));
        let p = plan(&["--epc", "27.5M"]).unwrap();
        assert_eq!((p.size.unwrap().name, p.epc), (sizes::DEFAULT, 55 << 19));

        let memory = refused(&["--size", "Standard_DC2s_v2", "--memory", "8.5G"]);
        assert_eq!(
            memory,
            "--memory 8.5 GiB is more than Standard_DC2s_v2 has (8 GiB): leave it out, or choose a larger --size"
        );
        for more in [&["--size", "Standard_DC2s_v2", "--epc", "57M"][..], &["--epc", "29M"]] {
            let epc = refused(more);
            assert!(epc.starts_with("--epc ") && epc.contains("is more than Standard_DC"), "{epc}");
        }
        for odd in ["4K", "1000K", "1025K"] {
            let epc = refused(&["--epc", odd]);
            assert!(epc.contains("at least 1 MiB, in whole pages of 4 KiB"), "{epc}");
        }
    }

    #[test]
    fn machine_without_a_size_has_epc_as_its_model_can() {
        let p = plan(&["--cpus", "2", "--epc", "168M"]).unwrap();
        assert_eq!(p.epc, 168 << 20);
        assert!(refused(&["--cpus", "2", "--epc", "169M"]).contains("Standard_DC8_v2"));
        let p = plan(&["--cpus", "2", "--cpu", "xeon-8370c", "--epc", "1G"]).unwrap();
        assert_eq!(p.epc, 1 << 30);
        assert!(refused(&["--cpus", "2", "--cpu", "xeon-8370c", "--epc", "257G"]).contains("Standard_DC48"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_remedy() {
        let size = refused(&["--size", "nonsense"]);
        assert!(size.starts_with("the size \"nonsense\" is unknown: give --size"), "{size}");
        let size = refused(&["--size", "standard_D2s_v3"]);
        assert!(size.starts_with("the size \"standard_D2s_v3\" is no size with an EPC"), "{size}");
        assert!(size.contains("Standard_DC48ds_v3"), "{size}");
        assert!(refused(&["--cpu", "z80"]).contains("xeon-8370c"));
        assert!(refused(&["--cpus", "0"]).contains("1 to 254"));
        assert!(refused(&["--cpus", "255"]).contains("1 to 254"));
        assert!(refused(&["--memory", "1M"]).contains("at least 64 MiB"));
        assert!(refused(&["--memory", "600G"]).contains("xeon-e-2288g can address"));
        assert!(refused(&["--tty", "--", "sh"]).contains("--tty"));
        assert!(refused(&["--kernel", "/no/such"]).contains("/no/such"));
    }

    #[test]
    fn disks_are_looked_at_before_anything_is_made() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name).display().to_string();
        fs::write(at("good"), [0; 1024]).unwrap();
        fs::write(at("odd"), [0; 1000]).unwrap();
        fs::write(at("empty"), []).unwrap();
        assert!(
            plan(&["--disk", &at("good"), "--disk", &format!("{},ro", at("good"))]).unwrap().keeps_data()
        );
        assert!(!plan(&["--disk", &format!("{},ro", at("good"))]).unwrap().keeps_data());
        for (file, text) in [
            (at("odd"), "1000 bytes, no multiple of 512"),
            (at("empty"), "0 bytes"),
            (at("missing"), "check the path"),
            (at(""), "is a folder"),
            ("/dev/null".into(), "neither a regular file"),
        ] {
            let why = refused(&["--disk", &file]);
            assert!(why.contains(text) && why.contains(file.as_str()), "{why}");
            assert_eq!(why.lines().count(), 1);
        }
    }

    #[test]
    fn shares_are_looked_at_and_mounted_from_the_outside_in() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().display().to_string();
        fs::write(tmp.path().join("file"), "").unwrap();
        let (inner, outer) = (format!("{dir}:/w/in:ro"), format!("{dir}:/w"));
        let p = plan(&["--share", &inner, "--share", &outer, "--", "true"]).unwrap();
        assert!(p.keeps_data());
        assert_eq!(p.shares.iter().map(|s| s.read_only).collect::<Vec<_>>(), [true, false]);
        let Access::Agent { exec, .. } = p.access else { panic!("no agent") };
        let mut decoder = agent_proto::Decoder::new();
        decoder.push(&exec);
        let mount = |tag: &str, target: &str, read_only| {
            ToGuest::Mount(Mount { tag: tag.into(), target: target.into(), read_only })
        };
        let next = |d: &mut agent_proto::Decoder| ToGuest::next(d).unwrap().unwrap();
        assert_eq!(next(&mut decoder), mount("share1", "/w", false));
        assert_eq!(next(&mut decoder), mount("share0", "/w/in", true));
        assert!(matches!(next(&mut decoder), ToGuest::Exec(_)));
        assert!(!plan(&["--share", &inner]).unwrap().keeps_data());

        for (share, text) in
            [(format!("{dir}/missing:/w"), "cannot be opened"), (format!("{dir}/file:/w"), "not a folder")]
        {
            let why = refused(&["--share", &share]);
            assert!(why.contains(text) && why.contains(&dir) && why.lines().count() == 1, "{why}");
        }
        assert!(refused(&["--share", &outer, "--share", &format!("{dir}:/w/:ro")]).contains("two shares"));
    }

    #[test]
    fn each_vsock_port_is_one_socket() {
        let p = plan(&["--vsock", "1=/a", "--vsock", "2=/b", "--vsock-listen", "1=/c"]).unwrap();
        assert_eq!(p.vsock.connect.len(), 2);
        assert_eq!(p.vsock.listen[&1], PathBuf::from("/c"));
        assert!(refused(&["--vsock", "1=/a", "--vsock", "1=/b"]).contains("--vsock names a port twice"));
        assert!(plan(&[]).unwrap().vsock.is_empty());
    }

    #[test]
    fn image_with_a_disk_is_named_to_the_guest() {
        let p = plan(&["--image", "debian", "--append", "x", "--overlay", "o"]).unwrap();
        assert_eq!(p.cmdline, format!("{CMDLINE} {CMDLINE_SYSTEM} x"));
        assert!(p.keeps_data() && matches!(p.access, Access::Agent { .. }));
        assert!(!plan(&["--image", "debian"]).unwrap().keeps_data());
        assert!(refused(&["--overlay", "o"]).contains("--image debian"));
    }

    #[test]
    fn own_kernel_without_command_is_on_the_serial_port() {
        let tmp = tempfile::NamedTempFile::new().unwrap();
        let file = tmp.path().to_str().unwrap();
        let p = plan(&["--kernel", file, "--append", "a=b", "--append", "c"]).unwrap();
        assert!(matches!(p.access, Access::Serial));
        assert_eq!(p.cmdline, format!("{CMDLINE_CONSOLE} {} a=b c", network::address()));
        let p = plan(&["--kernel", file, "--", "true"]).unwrap();
        assert!(matches!(p.access, Access::Agent { tty: false, .. }));
    }

    #[test]
    fn network_is_there_unless_refused() {
        let p = plan(&["--publish", "2222:22", "--allow-host", "80,443", "--allow-host", "3128"]).unwrap();
        let network = p.network.unwrap();
        assert_eq!(network.publish[0].guest, 22);
        assert_eq!(network.allow_host.into_iter().collect::<Vec<_>>(), [80, 443, 3128]);
        let p = plan(&["--network", "none"]).unwrap();
        assert!(p.network.is_none() && p.cmdline == CMDLINE);
        for option in [["--publish", "2222:22"], ["--allow-host", "80"]] {
            assert!(
                refused(&[&["--network", "none"][..], &option].concat()).contains("leave out --network none")
            );
        }
    }

    #[test]
    fn endless_command_is_refused_before_the_boot() {
        let long = "x".repeat(3 << 20);
        assert!(refused(&["--", &long]).contains("standard input"));
    }
}
