//! Runs the corpus of the fuzz target `header` through the function that the target runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;

use std::fs;
use std::path::Path;

use memory::header::attach;
use slipring::SetupError;

/// Every file attaches or is refused, as its name says. Each file is named after the kind that it
/// asks for, and the change in it.
#[test]
fn each_corpus_file_behaves_as_named() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../verify/fuzz/corpus/header");
    let mut seen = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let attached = attach(&fs::read(&path).unwrap());
        let (kind, change) = match path.file_name().unwrap().to_str().unwrap().split_once('.') {
            Some(named) => named,
            // The fuzzer found this file: surviving it is enough.
            None => continue,
        };
        let expected = match (change, &attached) {
            ("valid", Ok(())) => true,
            ("flipped", Err(SetupError::Corrupt(found))) => found.word == "checksum",
            ("truncated", Err(SetupError::Truncated { .. })) => true,
            // The header has more slots, and a checksum that is right.
            ("more_slots", Err(SetupError::Corrupt(found))) => found.word != "checksum",
            _ => false,
        };
        assert!(expected, "{kind}.{change}: {attached:?}");
        seen += 1;
    }
    assert_eq!(seen, 8 * 4);
}
