//! The other process of a test.
fn main() {}
