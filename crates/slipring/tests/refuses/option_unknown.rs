use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
#[payload(versoin = 2)]
struct Tick {
    seq: u64,
}

fn main() {}
