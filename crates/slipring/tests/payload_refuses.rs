//! A payload that owns anything must not compile. Nor may one that has padding, a pointer, an
//! invalid bit pattern or a layout of the compiler's choice.
//!
//! Each file in `refuses/` is one mistake that someone will make. The `.stderr` beside it is the
//! text that this person reads. The words are those of one compiler. Another compiler must refuse
//! the same files all the same, in its own words.
//!
//! To record the words again: `TRYBUILD=overwrite cargo test -p slipring --test
//! payload_refuses`, then read the difference as a newcomer would.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const RECORDED_WITH: &str = "rustc 1.95.";
const CASES: &str = "tests/refuses";
/// Set when this test runs itself: the compiler must refuse these cases, in any words.
const CASES_IN_ANY_WORDS: &str = "SLIPRING_TEST_REFUSES";

/// A payload type that is not only bits does not compile.
#[test]
fn non_payload_types_do_not_compile() -> Result<(), Box<dyn Error>> {
    if let Some(cases) = env::var_os(CASES_IN_ANY_WORDS) {
        refuse_all_in(Path::new(&cases));
    } else if compiler()?.starts_with(RECORDED_WITH) {
        refuse_all_in(Path::new(CASES));
    } else {
        let again = Command::new(env::current_exe()?)
            .env(CASES_IN_ANY_WORDS, copy_of_cases()?)
            .env("TRYBUILD", "overwrite")
            .status()?;
        assert!(again.success(), "a case compiled that must not");
    }
    Ok(())
}

fn refuse_all_in(cases: &Path) {
    trybuild::TestCases::new().compile_fail(cases.join("*.rs"));
}

fn compiler() -> Result<String, Box<dyn Error>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output()?.stdout;
    Ok(String::from_utf8(version)?)
}

/// Returns the cases without the recorded words, where overwriting hurts nothing.
fn copy_of_cases() -> Result<PathBuf, Box<dyn Error>> {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refuses");
    if copy.exists() {
        fs::remove_dir_all(&copy)?; // a case that was renamed since
    }
    fs::create_dir_all(&copy)?;
    for entry in fs::read_dir(CASES)? {
        let case = entry?.path();
        if let (Some("rs"), Some(name)) =
            (case.extension().and_then(OsStr::to_str), case.file_name())
        {
            fs::copy(&case, copy.join(name))?;
        }
    }
    Ok(copy)
}
