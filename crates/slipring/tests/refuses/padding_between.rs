use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Level {
    side: u8,
    price: f64,
}

fn main() {}
