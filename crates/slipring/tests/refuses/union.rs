use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
union Either {
    small: u8,
    large: u64,
}

fn main() {}
