//! Entry points of the fuzz targets in `host/fuzz`: each function takes arbitrary bytes and panics if an invariant is
//! violated.
//!
//! Not part of the host: compiled only for `cargo fuzz` and for the test that runs the committed corpus, so that past
//! findings stay fixed on machines without a fuzzer.

mod claims;
mod jose;
mod signed;
mod upload;

pub use claims::{set, verdict};
pub use jose::jose;
pub use upload::{look, upload};

/// A body of any form, and the same bytes as the claims of a signed SET.
pub fn ingest(bytes: &[u8]) {
    claims::ingest(bytes);
    if let Some((choice, payload)) = bytes.split_first() {
        signed::signed(*choice, payload);
    }
}

/// Maximum bytes of any error message.
const WORDS_BYTES_MAX: usize = 4 << 10;

fn short(words: &str) {
    assert!(words.len() < WORDS_BYTES_MAX, "{} bytes about a fault", words.len());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Target = fn(&[u8]);

    #[test]
    fn the_corpus_breaks_no_promise() {
        let targets: [(&str, Target); 5] = [
            ("upload", super::upload),
            ("set", super::set),
            ("ingest", super::ingest),
            ("verdict", super::verdict),
            ("jose", super::jose),
        ];
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
