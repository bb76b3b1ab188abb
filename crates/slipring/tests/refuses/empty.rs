use slipring::Payload;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Nothing {}

fn main() {}
