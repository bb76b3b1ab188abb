use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    word: u64,
}

fn main() {}
