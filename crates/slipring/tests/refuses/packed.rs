use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C, packed)]
struct Tick {
    side: u8,
    price: f64,
}

fn main() {}
