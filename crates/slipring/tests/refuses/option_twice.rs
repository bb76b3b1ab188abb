use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
#[payload(version = 1)]
#[payload(version = 2)]
struct Tick {
    seq: u64,
}

fn main() {}
