// Ownership hides in a field that looks small.
use slipring::Payload;

#[derive(Payload, Clone)]
#[repr(C)]
struct Order {
    id: u64,
    note: Box<u64>,
}

fn main() {}
