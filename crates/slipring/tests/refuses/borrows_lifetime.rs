use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Label<'a> {
    text: &'a [u8],
}

fn main() {}
