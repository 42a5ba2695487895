//! Builds or finds the image in the folder given, or in the default cache, and
//! prints where it is: `cargo run -p image --example build -- [FOLDER]`.

fn main() {
    let options = image::Options { cache_dir: std::env::args_os().nth(1).map(Into::into), quiet: false };
    match image::ensure(&options) {
        Ok(image) => println!("{}\n{}", image.kernel.display(), image.initrd.display()),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1);
        }
    }
}
