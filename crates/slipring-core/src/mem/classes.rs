//! The areas of a channel that can grow: one for each class of capacity.

use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;

#[cfg(loom)]
use super::Shadow;
use super::{ByteRing, Slots};
use crate::geometry::Geometry;

/// The areas of a data part, from which the memory of each ring is made.
#[derive(Clone, Copy)]
pub struct Classes<'m> {
    data: NonNull<u8>,
    geometry: Geometry,
    #[cfg(loom)]
    shadows: &'m [Shadow<'m>],
    memory: PhantomData<&'m mut [u8]>,
}

// SAFETY: `Classes` is an address; the protocol proves which role may touch which area.
unsafe impl Send for Classes<'_> {}
// SAFETY: as above.
unsafe impl Sync for Classes<'_> {}

impl<'m> Classes<'m> {
    /// Makes the areas of the data part at `data`. In a model, `shadows` has the shadow of each class.
    ///
    /// # Safety
    /// `geometry` is checked. `data` is aligned for its payloads and valid for its data part during `'m`, all of it
    /// initialised.
    pub unsafe fn new(
        data: NonNull<u8>,
        geometry: Geometry,
        #[cfg(loom)] shadows: &'m [Shadow<'m>],
    ) -> Self {
        Classes {
            data,
            geometry,
            #[cfg(loom)]
            shadows,
            memory: PhantomData,
        }
    }

    /// Returns the shape of the channel.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Returns the bytes of the data part that belong to `class`, or to none if there is no such class.
    pub(crate) fn area(&self, class: u64) -> Range<u64> {
        self.geometry.area_of(class).unwrap_or(0..0)
    }

    /// Returns the capacity of `class`; the first one's if there is no such class.
    pub(crate) fn capacity(&self, class: u64) -> u64 {
        let first = self.geometry.capacity;
        self.geometry.capacity_of(class).unwrap_or(first)
    }

    /// Returns the start of the area of `class`; that of the first class if there is no such one.
    fn start(&self, class: u64) -> NonNull<u8> {
        // SAFETY: an area of a checked geometry lies inside its data part, which the caller of `new` promised.
        unsafe { self.data.add(self.area(class).start as usize) }
    }

    #[cfg(loom)]
    fn shadow(&self, class: u64) -> Shadow<'m> {
        self.shadows[class as usize]
    }

    /// Returns the slots of a ring of `class`.
    ///
    /// # Safety
    /// The payloads are of type `T`.
    pub(crate) unsafe fn slots<T>(&self, class: u64) -> Slots<'m, T> {
        let capacity = self.capacity(class);
        // SAFETY: the area has room for that many payloads, at a multiple of their alignment: it begins at a multiple of a
        // page, and `new` was promised the rest.
        unsafe {
            Slots::new(
                self.start(class).cast(),
                capacity,
                #[cfg(loom)]
                self.shadow(class),
            )
        }
    }

    /// Returns the bytes of a ring of `class`.
    ///
    /// # Safety
    /// The payloads are records.
    pub(crate) unsafe fn records(&self, class: u64) -> ByteRing<'m> {
        let (capacity, largest) = (self.capacity(class), self.geometry.slot_size);
        // SAFETY: the area has room for the ring and its slack, and begins at a multiple of a page.
        unsafe {
            ByteRing::new(
                self.start(class),
                capacity,
                largest,
                #[cfg(loom)]
                self.shadow(class),
            )
        }
    }
}

/// The memory of one ring, which an end exchanges for that of the next.
pub(crate) trait RingMemory<'m> {
    /// Takes the memory of a ring of `class`.
    fn move_to(&mut self, classes: &Classes<'m>, class: u64);
}

impl<'m, T> RingMemory<'m> for Slots<'m, T> {
    fn move_to(&mut self, classes: &Classes<'m>, class: u64) {
        // SAFETY: an end's slots and its classes are of one channel: the promise of whoever made that end.
        *self = unsafe { classes.slots(class) };
    }
}

impl<'m> RingMemory<'m> for ByteRing<'m> {
    fn move_to(&mut self, classes: &Classes<'m>, class: u64) {
        // SAFETY: as for slots.
        *self = unsafe { classes.records(class) };
    }
}

/// The memory of an end whose channel cannot grow.
pub(crate) struct Fixed;

impl<'m> RingMemory<'m> for Fixed {
    fn move_to(&mut self, _: &Classes<'m>, _: u64) {}
}
