use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Pair<T> {
    both: [T; 2],
}

fn main() {}
