use super::*;

fn record(name: &str, sha256: &str) -> PackageRecord {
    PackageRecord { name: name.into(), version: "1".into(), sha256: sha256.repeat(64), size: 1 }
}

/// An image as `write` leaves it, with this on its disk.
fn put(cache: &Path, id: &str, content: &[u8]) -> DebianManifest {
    let folder = cache.join("debian").join(id);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("raw"), content).unwrap();
    let (identity, disk_time) = store_disk(&folder.join("raw"), &folder.join(DISK_FILE)).unwrap();
    fs::write(folder.join(KERNEL_FILE), b"kernel").unwrap();
    let file = |name: &str, sha256: String, size| FileRecord { name: name.into(), sha256, size };
    let manifest = DebianManifest {
        layout: DISK_LAYOUT,
        kernel_release: "6.1".into(),
        kernel_package: record("linux", "a"),
        packages: vec![record("apt", "b")],
        kernel: file(KERNEL_FILE, hash::of_bytes(b"kernel"), 6),
        disk: file(DISK_FILE, hash::hex(&identity), content.len() as u64),
        disk_time,
    };
    fs::write(folder.join(MANIFEST_FILE), cache::to_json(&manifest).unwrap()).unwrap();
    // made already, since there is no kernel package to make it of
    let options = Options { cache_dir: Some(cache.to_owned()), quiet: true };
    let shop = Shop::open(&options).unwrap();
    let key = hash::of_bytes(format!("layout {LAYOUT}\ninit {}\n", shop.cache.init_sha256).as_bytes());
    fs::write(folder.join(format!("initrd-{}.cpio", &key[..16])), b"initrd").unwrap();
    manifest
}

#[test]
fn images_are_found_by_what_is_on_their_disks() {
    let tmp = tempfile::tempdir().unwrap();
    let options = Options { cache_dir: Some(tmp.path().to_owned()), quiet: true };
    assert!(newest(&options).unwrap().is_none());
    let one = put(tmp.path(), "0123456789abcdef", &[1; 4096]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let two = put(tmp.path(), "0000000000000002", &[2; 4096]);
    let found = newest(&options).unwrap().unwrap();
    assert_eq!(found.manifest, two);
    assert!(fs::metadata(&found.disk).unwrap().permissions().readonly());
    let identity = hash::from_hex(&one.disk.sha256).unwrap();
    assert_eq!(with_identity(&options, &identity).unwrap().unwrap().manifest, one);
    assert!(with_identity(&options, &[7; 32]).unwrap().is_none());
    assert_eq!(list(tmp.path()).len(), 2);
}

#[test]
fn touched_disk_is_taken_if_it_is_the_same_and_not_if_it_changed() {
    let tmp = tempfile::tempdir().unwrap();
    let options = Options { cache_dir: Some(tmp.path().to_owned()), quiet: true };
    put(tmp.path(), "0123456789abcdef", &[1; 4096]);
    let disk = tmp.path().join("debian/0123456789abcdef").join(DISK_FILE);
    fs::remove_file(&disk).unwrap();
    fs::write(&disk, [1; 4096]).unwrap();
    assert!(newest(&options).unwrap().is_some());
    fs::write(&disk, [3; 4096]).unwrap();
    assert!(newest(&options).unwrap().is_none());
    fs::write(&disk, [1; 4095]).unwrap();
    assert!(newest(&options).unwrap().is_none());
}

#[test]
fn what_makes_another_disk_makes_another_name() {
    let [a, b, c] = ["a", "b", "c"].map(|s| record("x", s));
    let all = id(&a, &[b.clone(), c.clone()]);
    assert_eq!(id(&a, &[c.clone(), b.clone()]), all);
    assert_ne!(id(&b, &[a.clone(), c]), all);
    assert_ne!(id(&a, &[b]), all);
}
