//! Builds the real image, from the real packages:
//! `cargo test -p image -- --ignored` (needs apt and the network; 30 MiB).

use std::fs;
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kluis-image-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn options(&self) -> image::Options {
        image::Options { cache_dir: Some(self.0.clone()), quiet: true }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
#[ignore = "needs apt and the network"]
fn image_is_built_reused_and_remade_when_damaged() {
    let folder = Folder::new("whole");
    let options = folder.options();
    let built = image::build(&options).unwrap();
    let initrd = fs::read(&built.initrd).unwrap();
    assert_eq!(&initrd[..6], b"070701");
    // the setup header's magic (Linux Documentation/arch/x86/boot.rst)
    assert_eq!(&fs::read(&built.kernel).unwrap()[0x202..0x206], b"HdrS");
    let at = |module: &str| built.manifest.modules.iter().position(|m| m.ends_with(module));
    assert!(at("virtio_console.ko").is_none_or(|c| at("virtio.ko").is_none_or(|v| v < c)));

    // found as it is
    let time = fs::metadata(&built.initrd).unwrap().modified().unwrap();
    let found = image::ensure(&options).unwrap();
    assert_eq!(found.manifest, built.manifest);
    assert_eq!(fs::metadata(&found.initrd).unwrap().modified().unwrap(), time);

    // one bit wrong: remade from the cached packages, with the same bytes
    let mut damaged = initrd.clone();
    damaged[1_000_000] ^= 1;
    fs::write(&built.initrd, damaged).unwrap();
    let again = image::ensure(&options).unwrap();
    assert!(fs::read(&again.initrd).unwrap() == initrd);

    // a damaged package is fetched again
    for entry in fs::read_dir(folder.0.join("debs")).unwrap() {
        fs::write(entry.unwrap().path(), b"!<arch>\n").unwrap();
    }
    fs::remove_dir_all(folder.0.join("images")).unwrap();
    let again = image::ensure(&options).unwrap();
    assert_eq!(again.manifest, built.manifest);
}

#[test]
fn unusable_cache_folder_is_an_error_with_its_path() {
    let folder = Folder::new("file");
    fs::write(&folder.0, b"in the way").unwrap();
    let error = image::ensure(&folder.options()).unwrap_err().to_string();
    assert!(error.contains(folder.0.to_str().unwrap()), "{error}");
    fs::remove_file(&folder.0).unwrap();
}
