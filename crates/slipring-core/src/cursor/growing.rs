//! The cursor of a channel that can grow: when the writer opens another ring, and when the reader gives old ones back.
//!
//! `rings.rs` says which words that takes, and why it is right. Nothing here is on the way of a message.

use super::{Reader, Writer};
use crate::error::{Error, ResizeError};
use crate::mem::RingMemory;
use crate::rings::{Crosser, GivesBack, Opener, Sizer, Sizing};

impl<'m> Writer<'m> {
    /// Returns `true` if this producer makes the ring larger by itself.
    #[inline]
    pub(crate) fn grows(&self) -> bool {
        self.sizer.sizing.grows
    }

    /// Makes the ring larger if this producer is to, and if that makes room for `wanted`. Returns `true` if it did.
    ///
    /// Fails with `NoSpace` if no wait will ever make that room.
    pub(super) fn grow(
        &mut self,
        wanted: u64,
        memory: &mut impl RingMemory<'m>,
    ) -> Result<bool, Error> {
        let (Some(opener), true) = (&mut self.opener, self.sizer.sizing.grows) else {
            return Ok(false);
        };
        let now = self.notifier.os().coarse_now();
        let most = opener.max_capacity();
        let own = self.words.capacity;
        if let Some(refused) = self.sizer.refused(now) {
            return match wanted > own {
                true => Err(refused),
                false => Ok(false),
            };
        }
        let Some(next) = opener.larger()? else {
            return Ok(false);
        };
        let needed = self.len()?.saturating_add(wanted);
        let next = next.max(needed.checked_next_power_of_two().unwrap_or(u64::MAX));
        // A larger one if an area is in use, and smaller ones from the first for which there is no memory.
        let (mut capacity, mut too_large) = (next, None);
        while capacity > own && capacity >= needed && capacity <= most {
            match self.resize(capacity, memory) {
                Ok(()) => return Ok(self.seen_free >= wanted),
                Err(ResizeError::Failed(error)) => return Err(error),
                Err(ResizeError::NoSpace { needed }) => {
                    too_large = Some(needed);
                    capacity /= 2;
                }
                Err(_) if too_large.is_some() => capacity /= 2,
                Err(_) => capacity = capacity.saturating_mul(2),
            }
        }
        match too_large {
            Some(bytes) => {
                let refused = self.sizer.refuse(now, bytes);
                if wanted > own {
                    Err(refused)
                } else {
                    Ok(false)
                }
            }
            None => Ok(false),
        }
    }

    /// Makes the ring smaller if it has been too large for as long as this producer is to wait, but not too small for `wanted`.
    pub(super) fn shrink(
        &mut self,
        wanted: u64,
        memory: &mut impl RingMemory<'m>,
    ) -> Result<(), Error> {
        let (Some(opener), Some(_)) = (&self.opener, self.sizer.sizing.shrinks_after) else {
            return Ok(());
        };
        let (capacity, now) = (self.words.capacity, self.notifier.os().coarse_now());
        let used = capacity.saturating_sub(self.seen_free);
        let needed = used.saturating_add(wanted).checked_next_power_of_two();
        let least = opener.min_capacity().max(needed.unwrap_or(u64::MAX));
        let Some(smaller) = self.sizer.smaller(used, capacity, least, now) else {
            return Ok(());
        };
        match self.resize(smaller, memory) {
            Err(ResizeError::Failed(error)) => Err(error),
            // Busy, or no memory: the next window tries again.
            _ => Ok(()),
        }
    }

    /// Shrinks the ring if this producer is to and it is time.
    pub(crate) fn settle(&mut self, memory: &mut impl RingMemory<'m>) {
        if self.sizer.sizing.shrinks_after.is_some() && self.limit.alive() && self.free().is_ok() {
            // Whatever is wrong, the next call reports it.
            let _ = self.shrink(0, memory);
        }
    }

    /// Goes on in a ring of `capacity`, and gives `memory` that ring.
    ///
    /// The caller has written nothing that is not committed.
    pub(crate) fn resize(
        &mut self,
        capacity: u64,
        memory: &mut impl RingMemory<'m>,
    ) -> Result<(), ResizeError> {
        if !self.limit.alive() {
            return Err(Error::Forked.into());
        }
        // Before anything changes. The reader may release more meanwhile.
        let used = self.len()?;
        let Some(opener) = &mut self.opener else {
            return Err(ResizeError::Fixed);
        };
        if !opener.open(capacity, self.at)? {
            return Ok(());
        }
        opener.enter(memory);
        self.words.enter(capacity, used);
        // What is known to be free belongs to the old ring.
        self.limit.set(self.at);
        // An idle reader gives the memory of the old ring back.
        self.notifier.ring();
        self.free()?;
        Ok(())
    }

    /// Sets the rules by which this producer resizes the ring.
    pub(crate) fn set_sizing(&mut self, sizing: Sizing) {
        // A channel of fixed capacity would only look more often.
        if self.opener.is_some() {
            self.sizer = Sizer::new(sizing);
            self.change_limit();
        }
    }

    /// Returns the largest capacity that the channel can have.
    pub(crate) fn max_capacity(&self) -> u64 {
        let capacity = self.words.capacity;
        self.opener.as_ref().map_or(capacity, Opener::max_capacity)
    }
}

impl<'m> Reader<'m> {
    /// Gives back the memory of the rings that are read to their end, in `steps` at most, as long as no message comes. Returns
    /// `true` if some is left. Call it before a sleep, and before the reader leaves.
    pub(crate) fn settle(&mut self, steps: u32, memory: &mut impl RingMemory<'m>) -> bool {
        let newest = self.crosser.as_ref().map_or(0, Crosser::newest);
        for _ in 0..steps {
            // Not those that come meanwhile: a stranger may open rings without end.
            let passed = |crosser: &Crosser<'_>| crosser.has_passed(newest);
            let done = self.crosser.as_ref().is_none_or(passed);
            if done || !self.limit.alive() || self.filled(memory) != Ok(0) || !self.give_back() {
                return false;
            }
        }
        !self.is_settled()
    }

    /// Gives back some memory of the rings that are read to their end; returns `false` if there is none.
    pub(super) fn give_back(&mut self) -> bool {
        let Some(crosser) = &mut self.crosser else {
            return false;
        };
        let gives = crosser.give_back();
        if gives == GivesBack::Ring {
            // A writer may wait for that ring's area.
            self.notifier.ring();
        }
        gives != GivesBack::Nothing
    }
}
