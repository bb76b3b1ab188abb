use slipring::Payload;
use std::cell::Cell;

#[derive(Payload, Clone)]
#[repr(C)]
struct Counter {
    hits: Cell<u64>,
}

fn main() {}
