//! What the fuzz targets in `host/fuzz` call: one function each, which takes any bytes and panics where a promise is
//! broken.
//!
//! Not part of the host: built for `cargo fuzz` alone, and for the test that runs the committed corpus through it, so that
//! what was found once stays mended where there is no fuzzer.

mod claims;
mod upload;

pub use claims::{ingest, set, verdict};
pub use upload::{look, upload};

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Target = fn(&[u8]);

    #[test]
    fn the_corpus_breaks_no_promise() {
        let targets: [(&str, Target); 4] =
            [("upload", super::upload), ("set", super::set), ("ingest", super::ingest), ("verdict", super::verdict)];
        for (name, target) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            assert!(files.len() > 10, "{} is a corpus", folder.display());
            for file in files {
                let bytes = std::fs::read(&file).unwrap();
                let kept = std::panic::catch_unwind(|| target(&bytes)).is_ok();
                assert!(kept, "{} breaks what the panic before this one says", file.display());
            }
        }
    }
}
