//! The names that slipring gives to files and directories. It never touches files with other names.

/// The control part, in a channel's directory.
pub(super) const CONTROL: &str = "control";
/// The data part, or a symbolic link to it.
pub(super) const DATA: &str = "data";
/// The prefix of the temporary name of a directory that is being made.
pub(super) const BUILDING: &str = ".new-";
/// The prefix of the temporary name of a directory that is being removed.
pub(super) const REMOVING: &str = ".old-";
/// The prefix of the name of a huge page file.
pub(super) const HUGE: &str = "slipring-";

pub(super) fn temporary(prefix: &str) -> String {
    let mut random = [0; 8];
    if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) != Ok(8) {
        random = crate::clock::since_boot().to_le_bytes();
    }
    format!("{prefix}{:016x}", u64::from_le_bytes(random))
}

/// Returns `true` for a name that `temporary` made, or could have made.
pub(super) fn is_temporary(name: &str, prefix: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.strip_prefix(prefix)
        .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(digit))
}
