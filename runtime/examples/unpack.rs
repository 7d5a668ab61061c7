//! Loads an archive into a new store and unpacks its images, for `tests/bench/image-unpack`.

use std::{env, error::Error, fs::File, path::Path, time::Instant};

use shoal_runtime::image::ImageStore;

#[expect(clippy::print_stdout, reason = "the example's output")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [archive, store] = &arguments[..] else { return Err("usage: unpack ARCHIVE NEW_STORE".into()) };
    let store = ImageStore::open(Path::new(store))?;
    let begin = Instant::now();
    let images = store.load(File::open(archive)?)?;
    let loaded = begin.elapsed();
    for image in &images {
        store.unpack(&image.digest)?;
    }
    println!("load {:.2} s, unpack {:.2} s", loaded.as_secs_f64(), (begin.elapsed() - loaded).as_secs_f64());
    Ok(())
}
