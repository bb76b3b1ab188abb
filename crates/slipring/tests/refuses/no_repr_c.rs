use slipring::Payload;

#[derive(Payload, Clone, Copy)]
struct Tick {
    seq: u64,
}

fn main() {}
