use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Tick {
    #[payload(name = "sequence")]
    seq: u64,
}

fn main() {}
