use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Level {
    price: f64,
    size: u32,
}

fn main() {}
