// `Copy`, `Send` and `'static`, and still an address.
use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Label {
    text: &'static str,
}

fn main() {}
