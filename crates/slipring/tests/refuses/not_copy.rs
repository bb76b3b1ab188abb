use slipring::Payload;

#[derive(Payload)]
#[repr(C)]
struct Tick {
    seq: u64,
}

fn main() {}
