use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
#[payload(name = "")]
struct Tick {
    seq: u64,
}

fn main() {}
