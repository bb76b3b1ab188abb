//! Implements the ends of every kind whose messages are values of one type, each in a slot.

use std::ops::Range;
use std::time::Duration;

use slipring::broadcast::Seek;
use slipring::{Builder, Error, InPlaceKind, ResizeError, SlotKind};

use crate::message::Numbered;
use crate::{
    Came, Commit, Consumer, Fate, Finish, Held, Maker, MessageType, Producer, Terms, whole,
};

/// A kind that carries numbers in slots, and what only its consumers can do.
pub(crate) trait Slots: SlotKind<Value: Numbered> + 'static {
    /// `true` if nobody else moves a consumer's position: then what came says how far it moved.
    const OWN_POSITION: bool = true;

    /// The calls that read in place: [`InPlace`], or [`CopiesOnly`].
    type Reads: Reads<Self>;

    /// Implements [`Consumer::seek`].
    fn seek(_rx: &mut slipring::Consumer<Self>, _to: Seek) -> Result<u64, Error> {
        unimplemented!("consumers of this kind do not seek")
    }

    /// Implements [`Consumer::stride`].
    fn stride(_rx: &mut slipring::Consumer<Self>, _index: u64, _of: u64) -> Result<(), Error> {
        unimplemented!("consumers of this kind have no stride")
    }

    /// Implements [`Producer::resize`].
    fn resize(_tx: &mut slipring::Producer<Self>, _capacity: usize) -> Result<(), ResizeError> {
        unimplemented!("the capacity of this kind is fixed")
    }

    /// Implements [`Producer::try_reserve_owned`].
    fn try_reserve_owned(
        _tx: &mut slipring::Producer<Self>,
        _numbers: Range<u64>,
    ) -> Result<Commit, Error> {
        unimplemented!("guards of this kind stay with their handle")
    }

    /// Implements [`Consumer::try_read_owned`].
    fn try_read_owned(_rx: &mut slipring::Consumer<Self>) -> Result<(Came, Finish), Error> {
        unimplemented!("guards of this kind stay with their handle")
    }

    /// Implements [`Consumer::try_nth_latest`].
    fn try_nth_latest(
        _rx: &mut slipring::Consumer<Self>,
        _back: usize,
    ) -> Result<(u64, Came), Error> {
        unimplemented!("this kind keeps no messages")
    }

    /// Implements [`Consumer::try_nth_latest_owned`].
    fn try_nth_latest_owned(
        _rx: &mut slipring::Consumer<Self>,
        _back: usize,
    ) -> Result<Box<dyn Held>, Error> {
        unimplemented!("this kind keeps no messages")
    }

    /// Implements [`Consumer::try_read_held`].
    fn try_read_held(_rx: &mut slipring::Consumer<Self>) -> Result<Box<dyn Held>, Error> {
        unimplemented!("this kind keeps no messages")
    }

    /// Implements [`Consumer::try_handle`].
    fn try_handle(_rx: &mut slipring::Consumer<Self>, _fate: Fate) -> Result<Came, Error> {
        unimplemented!("messages of this kind are released")
    }

    /// Implements [`Consumer::try_dead_letter`].
    fn try_dead_letter(_rx: &mut slipring::Consumer<Self>, _fate: Fate) -> Result<Came, Error> {
        unimplemented!("this kind has no dead letters")
    }

    /// Implements [`Consumer::deliveries`].
    fn deliveries(_rx: &slipring::Consumer<Self>) -> u32 {
        unimplemented!("consumers of this kind count no deliveries")
    }

    /// Implements [`Consumer::dead_letters`].
    fn dead_letters(_rx: &slipring::Consumer<Self>) -> usize {
        unimplemented!("this kind has no dead letters")
    }
}

/// The calls by which consumers of a kind read in place.
pub(crate) trait Reads<K: SlotKind> {
    /// Implements [`Consumer::try_read`].
    fn try_read(rx: &mut slipring::Consumer<K>) -> Result<Came, Error>;

    /// Implements [`Consumer::try_read_batch`].
    fn try_read_batch(
        rx: &mut slipring::Consumer<K>,
        max: usize,
        release: bool,
        seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error>;

    /// Implements [`Consumer::read`].
    fn read(
        rx: &mut slipring::Consumer<K>,
        max: usize,
        seen: &mut dyn FnMut(&[u64]),
    ) -> Result<(), Error>;
}

/// The calls of kinds that are read in place.
pub(crate) struct InPlace;

impl<K: InPlaceKind<Value: Numbered>> Reads<K> for InPlace {
    fn try_read(rx: &mut slipring::Consumer<K>) -> Result<Came, Error> {
        Ok(rx.try_read()?.check())
    }

    fn try_read_batch(
        rx: &mut slipring::Consumer<K>,
        max: usize,
        release: bool,
        seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error> {
        let messages = rx.try_read_batch(max)?;
        messages.iter().for_each(|message| seen(message.check()));
        if !release {
            messages.release(0);
        }
        Ok(())
    }

    fn read(
        rx: &mut slipring::Consumer<K>,
        max: usize,
        seen: &mut dyn FnMut(&[u64]),
    ) -> Result<(), Error> {
        let messages = rx.read_batch(max)?;
        seen(&numbers(messages.iter()));
        Ok(())
    }
}

/// The calls of kinds that overwrite messages: they have none of these.
pub(crate) struct CopiesOnly;

impl<K: SlotKind> Reads<K> for CopiesOnly {
    fn try_read(_rx: &mut slipring::Consumer<K>) -> Result<Came, Error> {
        unimplemented!("overwritable messages are copied")
    }

    fn try_read_batch(
        _rx: &mut slipring::Consumer<K>,
        _max: usize,
        _release: bool,
        _seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error> {
        unimplemented!("overwritable messages are copied")
    }

    fn read(
        _rx: &mut slipring::Consumer<K>,
        _max: usize,
        _seen: &mut dyn FnMut(&[u64]),
    ) -> Result<(), Error> {
        unimplemented!("overwritable messages are copied")
    }
}

/// The kinds that differ only in the type of their messages.
pub(crate) trait Family {
    /// The kind with these messages.
    type Of<T: Numbered>: Slots<Value = T>;

    /// Returns the builder that [`Terms::apply`] then tells what concerns every kind.
    fn builder<T: Numbered>(slots: usize, terms: &Terms) -> Builder<Self::Of<T>>;
}

/// Returns the builder for these terms and messages.
pub(crate) fn of<F: Family, T: Numbered>(terms: &Terms) -> Box<dyn Maker> {
    let slots = terms.capacity.unwrap_or(64);
    Box::new(terms.apply(F::builder::<T>(slots, terms)))
}

/// Refuses a type of messages that no program asks for with this kind. (Each type that a kind carries takes long to
/// compile.)
pub(crate) fn carries_no(message: MessageType) -> ! {
    unimplemented!("no program sends {message:?} through this kind")
}

impl<K: Slots> Producer for slipring::Producer<K> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn room_for(&self, _number: u64) -> usize {
        1
    }

    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(Self::push(self, K::Value::numbered(number))?)
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        Ok(Self::push_timeout(
            self,
            K::Value::numbered(number),
            timeout,
        )?)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        Self::try_push(self, K::Value::numbered(number)).map_err(|failed| {
            let error = failed.error();
            let back = whole(failed.into_value().check());
            assert_eq!(back, number, "the value comes back");
            error
        })
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut slots = self.reserve(1)?;
        slots.write(0, K::Value::numbered(number));
        slots.commit(1);
        Ok(())
    }

    fn batch(&mut self, numbers: Range<u64>) -> Result<(), Error> {
        let values = numbers.map(K::Value::numbered).collect::<Vec<_>>();
        Ok(self.push_slice(&values)?)
    }

    fn try_batch(&mut self, numbers: Range<u64>) -> Result<usize, Error> {
        let values = numbers.map(K::Value::numbered).collect::<Vec<_>>();
        self.try_push_slice(&values)
    }

    fn iterate(&mut self, numbers: Range<u64>, between: &mut dyn FnMut()) -> Result<usize, Error> {
        self.try_push_iter(numbers.map(|number| {
            between();
            K::Value::numbered(number)
        }))
    }

    fn hold(
        &mut self,
        numbers: Range<u64>,
        decide: &mut dyn FnMut(Range<u64>) -> Option<usize>,
    ) -> Result<(), Error> {
        let mut slots = self.try_reserve((numbers.end - numbers.start) as usize)?;
        for (slot, number) in numbers.clone().enumerate() {
            slots.write(slot, K::Value::numbered(number));
        }
        match decide(numbers) {
            Some(count) => slots.commit(count),
            None => slots.discard(),
        }
        Ok(())
    }

    fn try_room(&mut self, room: usize) -> Result<usize, Error> {
        Ok(self.try_reserve(room)?.len())
    }

    fn wait_for_room(&mut self, room: usize, timeout: Duration) -> Result<(), Error> {
        self.reserve_timeout(room, timeout).map(drop)
    }

    fn resize(&mut self, capacity: usize) -> Result<(), ResizeError> {
        K::resize(self, capacity)
    }

    fn try_reserve_owned(&mut self, numbers: Range<u64>) -> Result<Commit, Error> {
        K::try_reserve_owned(self, numbers)
    }
}

impl<K: Slots> Consumer for slipring::Consumer<K> {
    fn next(&self) -> u64 {
        self.position()
    }

    fn try_pop_any(&mut self) -> Result<Came, Error> {
        Ok(Self::try_pop(self)?.check())
    }

    /// Checks besides that the position moved past what came, or was lost, and no further.
    fn pop_any(&mut self, timeout: Duration) -> Result<Came, Error> {
        let at = self.position();
        let popped = Self::pop_timeout(self, timeout);
        let moved = self.position().wrapping_sub(at);
        let gone = match &popped {
            Ok(_) => 1,
            Err(Error::Lagged(lost)) => *lost,
            Err(_) => 0,
        };
        if K::OWN_POSITION && moved != gone {
            let what = popped.map(|message| message.check());
            return Ok(Err(format!("{what:?} at {at} led on by {moved}")));
        }
        Ok(popped?.check())
    }

    fn try_read(&mut self) -> Result<Came, Error> {
        K::Reads::try_read(self)
    }

    fn try_read_batch(
        &mut self,
        max: usize,
        release: bool,
        seen: &mut dyn FnMut(Came),
    ) -> Result<(), Error> {
        K::Reads::try_read_batch(self, max, release, seen)
    }

    fn try_copy(&mut self, max: usize, seen: &mut dyn FnMut(Came)) -> Result<(), Error> {
        let mut copies = vec![K::Value::numbered(0); max];
        let count = self.try_pop_slice(&mut copies)?;
        copies[..count].iter().for_each(|copy| seen(copy.check()));
        Ok(())
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        K::Reads::read(self, max, seen)
    }

    fn copy(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let mut copies = vec![K::Value::numbered(0); max];
        let count = self.pop_slice(&mut copies)?;
        seen(&numbers(copies[..count].iter()));
        Ok(())
    }

    fn seek(&mut self, to: Seek) -> Result<u64, Error> {
        K::seek(self, to)
    }

    fn stride(&mut self, index: u64, of: u64) -> Result<(), Error> {
        K::stride(self, index, of)
    }

    fn try_read_owned(&mut self) -> Result<(Came, Finish), Error> {
        K::try_read_owned(self)
    }

    fn try_nth_latest(&mut self, back: usize) -> Result<(u64, Came), Error> {
        K::try_nth_latest(self, back)
    }

    fn try_nth_latest_owned(&mut self, back: usize) -> Result<Box<dyn Held>, Error> {
        K::try_nth_latest_owned(self, back)
    }

    fn try_read_held(&mut self) -> Result<Box<dyn Held>, Error> {
        K::try_read_held(self)
    }

    fn try_handle(&mut self, fate: Fate) -> Result<Came, Error> {
        K::try_handle(self, fate)
    }

    fn try_dead_letter(&mut self, fate: Fate) -> Result<Came, Error> {
        K::try_dead_letter(self, fate)
    }

    fn deliveries(&self) -> u32 {
        K::deliveries(self)
    }

    fn dead_letters(&self) -> usize {
        K::dead_letters(self)
    }
}

fn numbers<'m, T: Numbered>(messages: impl Iterator<Item = &'m T>) -> Vec<u64> {
    messages.map(|message| whole(message.check())).collect()
}
