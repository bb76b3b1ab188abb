use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Count {
    many: usize,
}

fn main() {}
