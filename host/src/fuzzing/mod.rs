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
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(format!("{name}.hex"));
            let corpus = std::fs::read_to_string(&file).unwrap();
            assert!(corpus.lines().count() > 10, "{} is a corpus", file.display());
            for (line, input) in (1..).zip(corpus.lines()) {
                let bytes = hex::decode(input).unwrap_or_else(|error| panic!("{name}.hex, line {line}: {error}"));
                let kept = std::panic::catch_unwind(|| target(&bytes)).is_ok();
                assert!(kept, "{name}.hex, line {line}, breaks what the panic before this one says");
            }
        }
    }
}
