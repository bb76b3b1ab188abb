//! Tests copies of large payloads that are inlined into code with values in wide registers.
#![cfg(all(target_arch = "x86_64", not(loom)))]
#![allow(clippy::unwrap_used)]

use std::arch::x86_64::{__m256i, _mm256_add_epi64};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU64;

use slipring_core::mem::Racing;

type Large = [u64; 37];

/// Sums in whole registers, with copies in between.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn sums(
    slots: &Racing<'_, Large>,
    values: &[Large],
    copies: &mut [MaybeUninit<Large>],
) -> [[i64; 4]; 4] {
    let addends = black_box([1, 2, 3, 4].map(|n| [n; 4]));
    // SAFETY: both types have the same number of bytes.
    let addends = unsafe { std::mem::transmute::<[[i64; 4]; 4], [__m256i; 4]>(addends) };
    let mut sums = addends;
    let mut add = || {
        for (sum, addend) in sums.iter_mut().zip(addends) {
            *sum = _mm256_add_epi64(*sum, addend);
        }
    };
    for (position, value) in (0..).zip(values) {
        slots.store(position, value);
        add();
    }
    for (position, copy) in (0..).zip(copies) {
        slots.load(position, copy);
        add();
    }
    // SAFETY: both types have the same number of bytes, and any bytes are numbers.
    unsafe { std::mem::transmute::<[__m256i; 4], [[i64; 4]; 4]>(sums) }
}

#[test]
fn copies_leave_the_callers_registers_alone() {
    if !is_x86_feature_detected!("avx2") {
        return;
    }
    let words: Vec<AtomicU64> = (0..37 * 8).map(|_| AtomicU64::new(0)).collect();
    // SAFETY: numbers have no padding.
    let new = |capacity| unsafe { Racing::<Large>::new(&words, capacity) };
    for impossible in [0, 3, 16, u64::MAX] {
        assert!(new(impossible).is_none(), "{impossible}");
    }
    let slots = new(8).unwrap();
    let values: Vec<Large> = (0..5)
        .map(|n| std::array::from_fn(|i| n << 32 | i as u64))
        .collect();
    let mut copies = vec![MaybeUninit::new([0; 37]); 5];
    // SAFETY: the processor has AVX2.
    let sums = unsafe { sums(&slots, black_box(&values), &mut copies) };
    assert_eq!(sums, [1, 2, 3, 4].map(|n| [11 * n; 4]));
    for (copy, value) in copies.iter().zip(values) {
        // SAFETY: the values were arrays before, too.
        assert_eq!(unsafe { copy.assume_init() }, value);
    }
}
