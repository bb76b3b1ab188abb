use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
enum Side {
    Buy,
    Sell,
}

fn main() {}
