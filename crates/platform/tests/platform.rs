//! A platform's folder as machines and people find it.

use platform::{Passphrase, Platform, PlatformError, Update};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where the platform is.
    fn dir(&self) -> PathBuf {
        self.at("state/kluis/platform")
    }

    fn init(&self) -> Platform {
        Platform::init(&self.dir()).unwrap()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn words(text: &str) -> Passphrase {
    Passphrase::new(text.into()).unwrap()
}

/// All that keys are derived from.
fn secrets(platform: &Platform) -> Vec<u8> {
    let fused = platform.fused();
    let parts: [&[u8]; 6] = [
        &fused.platform_id,
        &fused.seal_fuses,
        &fused.provisioning_fuses,
        &fused.owner_epoch,
        &[fused.svn],
        &fused.svn_secret,
    ];
    parts.concat()
}

fn opened(dir: &Path) -> Platform {
    Platform::open(dir).unwrap().unwrap()
}

#[test]
fn new_platform_is_the_users_alone_and_the_same_each_time() {
    let place = Place::new();
    assert!(Platform::open(&place.dir()).unwrap().is_none());
    assert!(Platform::peek(&place.dir()).unwrap().is_none());
    assert!(!place.at("state").exists(), "looking makes nothing");
    let made = secrets(&place.init());
    assert_eq!(mode(&place.dir()), 0o700);
    assert_eq!(mode(&place.at("state")), 0o700);
    assert_eq!(names(&place.dir()), ["in-use", "roots"]);
    for name in names(&place.dir()) {
        assert_eq!(mode(&place.dir().join(name)), 0o600);
    }
    assert_eq!(secrets(&opened(&place.dir())), made);
    let other = Place::new();
    let other = other.init();
    assert_ne!(secrets(&other)[16..32], made[16..32], "another platform has other fuses");
    assert_ne!(other.info().id, opened(&place.dir()).info().id);
}

#[test]
fn second_init_is_refused_and_changes_nothing() {
    let place = Place::new();
    let made = secrets(&place.init());
    let e = Platform::init(&place.dir()).unwrap_err();
    assert!(matches!(e, PlatformError::Exists(_)), "{e}");
    assert_eq!(secrets(&opened(&place.dir())), made);
    // what is there and cannot be read is not written over either
    fs::write(place.dir().join("roots"), b"").unwrap();
    assert!(matches!(Platform::init(&place.dir()), Err(PlatformError::Exists(_))));
    assert_eq!(fs::read(place.dir().join("roots")).unwrap(), b"");
}

#[test]
fn of_many_that_start_at_once_one_makes_it() {
    let place = Arc::new(Place::new());
    let barrier = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (place, barrier) = (place.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                let (platform, new) = Platform::load_or_init(&place.dir()).unwrap();
                (secrets(&platform), new)
            })
        })
        .collect();
    let found: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(found.iter().filter(|(_, new)| *new).count(), 1);
    assert!(found.iter().all(|(secrets, _)| *secrets == found[0].0));
}

#[test]
fn unsaved_draft_leaves_nothing_and_the_next_may_make_one() {
    let place = Place::new();
    let draft = Platform::load_or_draft(&place.dir()).unwrap();
    assert!(draft.is_new());
    let waiting = {
        let dir = place.dir();
        thread::spawn(move || Platform::load_or_init(&dir).unwrap().1)
    };
    drop(draft);
    assert!(waiting.join().unwrap(), "who waited for the draft makes one of its own");
    let again = Platform::load_or_draft(&place.dir()).unwrap();
    assert!(!again.is_new());

    let place = Place::new();
    drop(Platform::load_or_draft(&place.dir()).unwrap());
    assert!(!place.dir().exists());
}

#[test]
fn too_open_and_foreign_things_are_refused_with_the_remedy() {
    let place = Place::new();
    drop(place.init());
    let roots = place.dir().join("roots");
    for bad in [0o640, 0o604, 0o620, 0o602, 0o777] {
        chmod(&roots, bad);
        let e = Platform::open(&place.dir()).unwrap_err();
        assert!(matches!(e, PlatformError::TooOpen { .. }), "{e}");
        let text = e.to_string();
        assert!(text.contains(&format!("{bad:04o}")) && text.contains("chmod 600"), "{text}");
        assert!(Platform::peek(&place.dir()).is_err());
        assert!(Platform::update(&place.dir(), Update::SvnUp).is_err());
        assert!(Platform::backup(&place.dir(), &place.at("b"), &words("long enough")).is_err());
    }
    chmod(&roots, 0o600);
    for bad in [0o750, 0o705, 0o701, 0o770] {
        chmod(&place.dir(), bad);
        let text = Platform::open(&place.dir()).unwrap_err().to_string();
        assert!(text.contains("chmod 700"), "{text}");
        assert!(Platform::init(&place.dir()).is_err());
    }
    chmod(&place.dir(), 0o700);
    assert!(Platform::open(&place.dir()).unwrap().is_some());
    // only root can give a file away, and would be told so
    if fs::metadata(&roots).unwrap().uid() == 0 {
        for path in [&roots, &place.dir()] {
            chown(path, Some(12345), None).unwrap();
            let e = Platform::open(&place.dir()).unwrap_err();
            assert!(matches!(e, PlatformError::Foreign { owner: 12345, you: 0, .. }), "{e}");
            chown(path, Some(0), None).unwrap();
        }
    }
    assert!(!place.at("b").exists());
}

#[test]
fn links_and_other_kinds_of_files_are_refused() {
    let place = Place::new();
    drop(place.init());
    let roots = place.dir().join("roots");
    let elsewhere = place.at("elsewhere");
    fs::rename(&roots, &elsewhere).unwrap();
    symlink(&elsewhere, &roots).unwrap();
    let e = Platform::open(&place.dir()).unwrap_err();
    assert!(matches!(e, PlatformError::Kind { .. }), "{e}");
    fs::remove_file(&roots).unwrap();
    fs::create_dir(&roots).unwrap();
    chmod(&roots, 0o700);
    assert!(matches!(Platform::open(&place.dir()), Err(PlatformError::Kind { .. })));
    fs::write(place.at("file"), b"").unwrap();
    let e = Platform::open(&place.at("file")).unwrap_err();
    assert!(matches!(e, PlatformError::Kind { wanted: "folder", .. }), "{e}");
    assert!(Platform::init(&place.at("file")).is_err());
    symlink(place.at("nowhere"), place.at("link")).unwrap();
    let e = Platform::init(&place.at("link")).unwrap_err();
    assert!(matches!(e, PlatformError::Kind { wanted: "folder", .. }), "{e}");
    // a folder may be a link to one
    symlink(place.dir(), place.at("other")).unwrap();
    fs::remove_dir(&roots).unwrap();
    fs::rename(&elsewhere, &roots).unwrap();
    assert!(Platform::open(&place.at("other")).unwrap().is_some());
}

#[test]
fn damaged_files_are_refused_and_never_replaced_by_new_roots() {
    let place = Place::new();
    drop(place.init());
    let roots = place.dir().join("roots");
    let good = fs::read(&roots).unwrap();
    let mut flipped = good.clone();
    flipped[50] ^= 1;
    for bad in [&good[..good.len() - 1], &[], &flipped, &[good.clone(), vec![0; 1 << 20]].concat()] {
        fs::write(&roots, bad).unwrap();
        let e = Platform::load_or_init(&place.dir()).unwrap_err();
        assert!(matches!(e, PlatformError::Damaged { .. }), "{e}");
        assert!(e.to_string().contains("restore"), "{e}");
        assert!(matches!(Platform::update(&place.dir(), Update::SvnUp), Err(PlatformError::Damaged { .. })));
        assert_eq!(fs::read(&roots).unwrap(), bad);
    }
    fs::write(&roots, &good).unwrap();
    assert!(Platform::open(&place.dir()).unwrap().is_some());
}

#[test]
fn many_use_it_nobody_changes_it_meanwhile() {
    let place = Place::new();
    let first = place.init();
    let second = opened(&place.dir());
    assert_eq!(secrets(&first), secrets(&second));
    let e = Platform::update(&place.dir(), Update::SvnUp).unwrap_err();
    assert!(matches!(e, PlatformError::InUse(_)), "{e}");
    drop(first);
    assert!(matches!(Platform::update(&place.dir(), Update::NewOwnerEpoch), Err(PlatformError::InUse(_))));
    // looking and copying disturb nobody
    assert_eq!(Platform::peek(&place.dir()).unwrap(), Some(second.info()));
    Platform::backup(&place.dir(), &place.at("backup"), &words("long enough")).unwrap();
    let e = Platform::restore(&place.dir(), &place.at("backup"), &words("long enough"), true).unwrap_err();
    assert!(matches!(e, PlatformError::InUse(_)), "{e}");
    drop(second);
    assert_eq!(Platform::update(&place.dir(), Update::SvnUp).unwrap().svn, 2);
}

#[test]
fn concurrent_updates_are_all_done() {
    let place = Arc::new(Place::new());
    drop(place.init());
    let barrier = Arc::new(Barrier::new(16));
    let threads: Vec<_> = (0..16)
        .map(|i| {
            let (place, barrier) = (place.clone(), barrier.clone());
            let update = if i % 2 == 0 { Update::SvnUp } else { Update::NewOwnerEpoch };
            thread::spawn(move || {
                barrier.wait();
                Platform::update(&place.dir(), update).unwrap()
            })
        })
        .collect();
    let mut ends: Vec<_> = threads
        .into_iter()
        .map(|t| t.join().unwrap())
        .map(|info| u32::from(info.svn) + info.owner_epoch_number)
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, (3..19).collect::<Vec<_>>(), "each saw what the one before it had left");
    let info = Platform::peek(&place.dir()).unwrap().unwrap();
    assert_eq!((info.svn, info.owner_epoch_number), (9, 9));
    assert_eq!(names(&place.dir()), ["in-use", "roots"]);
}

#[test]
fn svn_goes_up_to_its_end_and_older_secrets_stay() {
    let place = Place::new();
    let first = place.init().fused();
    let info = Platform::update(&place.dir(), Update::SvnUp).unwrap();
    assert_eq!((info.svn, info.cpusvn.as_str()), (2, "02000000000000000000000000000000"));
    let second = opened(&place.dir()).fused();
    assert_ne!(second.svn_secret, first.svn_secret);
    assert_eq!(*second.svn_secret(1).unwrap(), first.svn_secret);
    assert_eq!(first.svn_secret(2), None);
    assert_eq!(platform::svn_step(&second.svn_secret), first.svn_secret);
    assert_eq!(second.seal_fuses, first.seal_fuses);
    for svn in 3..=255 {
        assert_eq!(Platform::update(&place.dir(), Update::SvnUp).unwrap().svn, svn);
    }
    let e = Platform::update(&place.dir(), Update::SvnUp).unwrap_err();
    assert!(matches!(e, PlatformError::SvnAtTop(255)), "{e}");
    assert_eq!(*opened(&place.dir()).fused().svn_secret(1).unwrap(), first.svn_secret);
}

#[test]
fn owner_epoch_changes_alone() {
    let place = Place::new();
    let before = place.init().fused();
    let info = Platform::update(&place.dir(), Update::NewOwnerEpoch).unwrap();
    assert_eq!((info.svn, info.owner_epoch_number), (1, 2));
    let after = opened(&place.dir()).fused();
    assert_ne!(after.owner_epoch, before.owner_epoch);
    assert_eq!(after.seal_fuses, before.seal_fuses);
    assert_eq!(after.provisioning_fuses, before.provisioning_fuses);
    assert_eq!(after.svn_secret, before.svn_secret);
    assert_eq!(after.platform_id, before.platform_id);
}

#[test]
fn update_of_nothing_is_refused_and_makes_nothing() {
    let place = Place::new();
    let e = Platform::update(&place.dir(), Update::SvnUp).unwrap_err();
    assert!(matches!(e, PlatformError::Missing(_)), "{e}");
    let e = Platform::backup(&place.dir(), &place.at("b"), &words("long enough")).unwrap_err();
    assert!(matches!(e, PlatformError::Missing(_)), "{e}");
    assert_eq!(names(place.0.path()), [""; 0]);
}

#[test]
fn lost_platform_comes_back_from_its_backup() {
    let place = Place::new();
    drop(place.init());
    Platform::update(&place.dir(), Update::SvnUp).unwrap();
    Platform::update(&place.dir(), Update::NewOwnerEpoch).unwrap();
    let lost = opened(&place.dir());
    let (backup, passphrase) = (place.at("backup"), words("correct horse"));
    let info = Platform::backup(&place.dir(), &backup, &passphrase).unwrap();
    assert_eq!(info, lost.info());
    assert_eq!(mode(&backup), 0o600);
    let before = secrets(&lost);
    drop(lost);
    fs::remove_dir_all(place.dir()).unwrap();

    let wrong = Platform::restore(&place.dir(), &backup, &words("correct house"), false).unwrap_err();
    assert!(matches!(wrong, PlatformError::Decrypt(_)), "{wrong}");
    assert!(!place.dir().exists());

    let restored = Platform::restore(&place.dir(), &backup, &passphrase, false).unwrap();
    assert_eq!((restored.info, restored.replaced), (info, None));
    assert_eq!(secrets(&opened(&place.dir())), before);
    assert_eq!(mode(&place.dir()), 0o700);
    assert_eq!(mode(&place.dir().join("roots")), 0o600);
    // from an older backup the same way leads up again
    let svn3 = Platform::update(&place.dir(), Update::SvnUp).unwrap();
    let secret = opened(&place.dir()).fused().svn_secret;
    Platform::restore(&place.dir(), &backup, &passphrase, true).unwrap();
    Platform::update(&place.dir(), Update::SvnUp).unwrap();
    assert_eq!(svn3.svn, 3);
    assert_eq!(opened(&place.dir()).fused().svn_secret, secret);
}

#[test]
fn restore_replaces_only_when_told_and_keeps_the_old_one() {
    let (a, b) = (Place::new(), Place::new());
    let first = secrets(&a.init());
    let second = secrets(&b.init());
    let (backup, passphrase) = (a.at("backup"), words("correct horse"));
    Platform::backup(&a.dir(), &backup, &passphrase).unwrap();
    let e = Platform::restore(&b.dir(), &backup, &passphrase, false).unwrap_err();
    assert!(matches!(e, PlatformError::Exists(_)), "{e}");
    assert_eq!(secrets(&opened(&b.dir())), second);

    let kept: Vec<PathBuf> = (0..3)
        .map(|_| Platform::restore(&b.dir(), &backup, &passphrase, true).unwrap().replaced.unwrap())
        .collect();
    assert_eq!(secrets(&opened(&b.dir())), first);
    assert!(kept.iter().all(|path| mode(path) == 0o600));
    assert_eq!(names(&b.dir()).len(), 5, "two files and three that were replaced");
    // the way back
    fs::rename(&kept[0], b.dir().join("roots")).unwrap();
    assert_eq!(secrets(&opened(&b.dir())), second);
    // also from one that cannot be read
    fs::write(b.dir().join("roots"), b"broken").unwrap();
    Platform::restore(&b.dir(), &backup, &passphrase, true).unwrap();
    assert_eq!(secrets(&opened(&b.dir())), first);
}

#[test]
fn backup_writes_over_nothing_and_restore_takes_nothing_else() {
    let place = Place::new();
    drop(place.init());
    let passphrase = words("correct horse");
    fs::write(place.at("there"), b"precious").unwrap();
    symlink(place.at("nowhere"), place.at("link")).unwrap();
    for name in ["there", "link", "state"] {
        let e = Platform::backup(&place.dir(), &place.at(name), &passphrase).unwrap_err();
        assert!(matches!(e, PlatformError::BackupExists(_)), "{e}");
    }
    assert_eq!(fs::read(place.at("there")).unwrap(), b"precious");
    assert!(matches!(
        Platform::backup(&place.dir(), &place.at("no/such"), &passphrase),
        Err(PlatformError::Io { .. })
    ));
    assert_eq!(names(place.0.path()), ["link", "state", "there"]);

    for from in [place.at("there"), place.at("missing"), place.at("state"), PathBuf::from("/dev/zero")] {
        let e = Platform::restore(&place.at("other"), &from, &passphrase, false).unwrap_err();
        assert!(matches!(e, PlatformError::NotABackup { .. }), "{e}");
        assert!(!e.is_failure());
    }
    assert!(!place.at("other").exists());
}

#[test]
fn what_a_killed_writer_left_is_swept() {
    let place = Place::new();
    drop(place.init());
    let left = place.dir().join(".roots-abc123");
    fs::write(&left, b"half of").unwrap();
    chmod(&left, 0o600);
    Platform::update(&place.dir(), Update::SvnUp).unwrap();
    assert!(!left.exists());
}

#[test]
fn nothing_secret_is_printed() {
    let place = Place::new();
    let platform = place.init();
    let text = format!("{platform:?}");
    assert!(text.contains(&platform.info().id));
    let fused = platform.fused();
    let dec = format!("{:?}", &fused.seal_fuses);
    let hex: String = fused.seal_fuses.iter().map(|b| format!("{b:02x}")).collect();
    assert!(!text.contains(&hex) && !text.contains(&dec));
}
