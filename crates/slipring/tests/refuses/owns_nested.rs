// A field's own struct must be a payload too.
use slipring::Payload;

#[derive(Clone)]
#[repr(C)]
struct Trader {
    name: Vec<u8>,
}

#[derive(Payload, Clone)]
#[repr(C)]
struct Order {
    traders: [Trader; 2],
}

fn main() {}
