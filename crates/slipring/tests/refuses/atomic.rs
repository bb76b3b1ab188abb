use slipring::Payload;
use std::sync::atomic::AtomicU64;

#[derive(Payload)]
#[repr(C)]
struct Counter {
    hits: AtomicU64,
}

fn main() {}
