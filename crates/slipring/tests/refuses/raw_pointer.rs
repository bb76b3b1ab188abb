use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Node {
    next: *const Node,
}

fn main() {}
