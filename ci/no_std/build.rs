//! No C start-up code, no C library, no loader: what the linker cannot find in `core` and
//! `slipring-core` is an error.
fn main() {
    for argument in [
        "-nostartfiles",
        "-nodefaultlibs",
        "-nostdlib",
        "-static",
        "-no-pie",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
