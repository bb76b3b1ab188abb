//! The shape of a channel that can grow: an area of the data part for each *class* of capacity.
//!
//! Class *k* has the least capacity times 2^k. Its area stays in the same place for good, and only the areas in use have
//! memory. So the data part is about twice as long as the largest area, and sparse.

use core::ops::{Range, RangeInclusive};

use super::Geometry;
use crate::error::{Corrupt, FormatError, ResizeError};

/// Areas of this many bytes or more begin at a multiple of it, so that huge pages fit.
const HUGE: u64 = 2 << 20;

/// The smallest and the largest size of pages by which memory comes and goes, in bytes.
const GRAINS: RangeInclusive<u64> = 4096..=1 << 30;

/// The largest size of a channel that can grow, and the pages in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The largest capacity: a power of two, and at least the first capacity. In the unit of that.
    pub max_capacity: u64,
    /// The size of the pages in which memory comes and goes, in bytes: a power of two from 4096 to 1 GiB.
    pub grain: u64,
}

impl Growth {
    /// Fails for figures that no channel of this shape can have, whose capacity is at most `max` in any case.
    pub(super) fn check(&self, geometry: &Geometry, max: u64) -> Result<(), FormatError> {
        let wrong = |word, found, expected| {
            Err(FormatError::Corrupt(Corrupt {
                word,
                found,
                expected,
            }))
        };
        let most = match geometry.kind.spec().may_grow {
            true => max,
            false => 0,
        };
        let sound = self.max_capacity.is_power_of_two() && self.max_capacity >= geometry.capacity;
        if !sound || self.max_capacity > most {
            return wrong("max_capacity", self.max_capacity, most);
        }
        match self.grain.is_power_of_two() && GRAINS.contains(&self.grain) {
            true => Ok(()),
            false => wrong("grain", self.grain, *GRAINS.end()),
        }
    }

    /// Returns the size of the data part, in bytes; `None` if it is beyond all bounds.
    pub(super) fn checked_len(&self, geometry: &Geometry) -> Option<u64> {
        let last = geometry.classes().checked_sub(1)?;
        Some(self.checked_area(geometry, last)?.end)
    }

    /// Returns the area of a class, in bytes of the data part.
    fn checked_area(&self, geometry: &Geometry, class: u64) -> Option<Range<u64>> {
        let mut area = 0..0_u64;
        for class in 0..=class {
            let fixed = Geometry {
                capacity: geometry.checked_capacity(class)?,
                growth: None,
                ..*geometry
            };
            let len = fixed
                .checked_payloads()?
                .checked_next_multiple_of(self.grain)?;
            let start = match len < HUGE {
                true => area.end,
                false => area.end.checked_next_multiple_of(HUGE)?,
            };
            area = start..start.checked_add(len)?;
        }
        Some(area)
    }
}

/// The classes of capacity of a checked shape.
impl Geometry {
    /// Returns the largest capacity that the channel can have.
    pub fn largest_capacity(&self) -> u64 {
        self.growth
            .map_or(self.capacity, |growth| growth.max_capacity)
    }

    /// Returns the most that can be unread at a time, in all rings together.
    pub(crate) fn most_unread(&self) -> u64 {
        match self.growth {
            None => self.capacity,
            // No two live rings are of one class, and each class has twice the capacity of the one before.
            Some(growth) => growth.max_capacity.saturating_mul(2),
        }
    }

    /// Returns the class with this capacity, to which a channel can be resized.
    ///
    /// Fails with `Fixed` or `Capacity`.
    pub fn class_for(&self, capacity: u64) -> Result<u64, ResizeError> {
        let growth = self.growth.ok_or(ResizeError::Fixed)?;
        self.class_of(capacity).ok_or(ResizeError::Capacity {
            asked: capacity,
            min: self.capacity,
            max: growth.max_capacity,
        })
    }

    /// Returns the number of classes: 1 if the capacity is fixed.
    pub fn classes(&self) -> u64 {
        let log = |capacity: u64| u64::from(capacity.checked_ilog2().unwrap_or(0));
        log(self.largest_capacity()).saturating_sub(log(self.capacity)) + 1
    }

    fn checked_capacity(&self, class: u64) -> Option<u64> {
        let factor = 1u64.checked_shl(u32::try_from(class).ok()?)?;
        self.capacity.checked_mul(factor)
    }

    /// Returns the capacity of a class, in the unit of the kind; `None` if there is no such class.
    pub fn capacity_of(&self, class: u64) -> Option<u64> {
        match class < self.classes() {
            true => self.checked_capacity(class),
            false => None,
        }
    }

    /// Returns the class with this capacity; `None` if there is none.
    pub fn class_of(&self, capacity: u64) -> Option<u64> {
        (0..self.classes()).find(|class| self.checked_capacity(*class) == Some(capacity))
    }

    /// Returns the bytes of the data part that belong to a class; `None` if there is no such class.
    pub fn area_of(&self, class: u64) -> Option<Range<u64>> {
        if class >= self.classes() {
            return None;
        }
        match self.growth {
            None => Some(0..self.data_len()),
            Some(growth) => growth.checked_area(self, class),
        }
    }
}
