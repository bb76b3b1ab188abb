// A second drop of the `String` would free one process's memory from another.
use slipring::Payload;

#[derive(Payload, Clone)]
#[repr(C)]
struct Name {
    text: String,
}

fn main() {}
