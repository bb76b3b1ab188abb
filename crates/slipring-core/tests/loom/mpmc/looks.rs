//! Models looks that find little.

use super::*;

/// There is a message for each of two consumers: neither finds the queue empty.
#[test]
fn two_consumers_find_two_of_three() {
    model_within(2, || {
        let shop = Shop::new(8, [1, 2]);
        shop.push_all(0, &[1, 2, 3]);
        let other = shop.clone();
        let other = thread::spawn(move || other.pop_some(1, 1).len());
        assert_eq!(shop.pop_some(0, 1).len(), 1);
        assert_eq!(other.join().unwrap(), 1);
    });
}

/// There is room for each of two producers: neither finds the queue full.
#[test]
fn two_producers_find_two_of_three() {
    model_within(2, || {
        let shop = Shop::new(8, [2, 1]);
        for value in 0..5 {
            shop.push_all(0, &[value]);
            assert_eq!(shop.pop_some(0, 1), [value]);
        }
        shop.push_all(0, &[1, 2, 3, 4, 5]);
        let other = shop.clone();
        let other = thread::spawn(move || other.push_some(1, &[6]).len());
        assert_eq!(shop.push_some(0, &[7]).len(), 1);
        assert_eq!(other.join().unwrap(), 1);
    });
}
