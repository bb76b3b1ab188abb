// `Copy` and without padding, but 254 of its bit patterns are not values.
use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Flag {
    up: bool,
}

fn main() {}
