//! The shared part of every kind whose messages are values of one type, each in a slot.

use std::time::Duration;

use slipring::set::Key;
use slipring::{Error, Payload, Readiness, SlotKind, WaitSet};

use super::{Consumer, Given, Producer, no_operation, words};

/// The number of slots in every such channel.
pub(super) const CAPACITY: u64 = 4;

/// A message that holds its number, and shows if it is torn.
pub(super) trait Numbered: Payload {
    /// Returns the message with this number and position.
    fn new(number: u64, position: u64) -> Self;

    /// Returns its number, if it is whole and in its right position.
    fn number_at(&self, position: u64) -> Result<u64, String>;
}

/// A kind of such messages, and the operations that only its consumers have.
pub(super) trait Slotted: SlotKind<Value: Numbered> {
    /// Goes on at this message, where a consumer chooses.
    fn begin_at(_rx: &mut slipring::Consumer<Self>, _number: u64) -> Result<(), String> {
        Ok(())
    }

    /// Does the operation of this name.
    fn act(_rx: &mut slipring::Consumer<Self>, name: &str) -> Result<(), String> {
        Err(no_operation(name))
    }
}

impl<K: Slotted> Producer for slipring::Producer<K> {
    fn push(&mut self, number: u64, timeout: Duration) -> Result<(), String> {
        let message = Numbered::new(number, self.position());
        self.push_timeout(message, timeout).map_err(words)
    }

    fn room(&mut self) -> Result<u64, String> {
        Ok(self.try_reserve(CAPACITY as usize).map_err(words)?.len() as u64)
    }

    fn arm(&mut self) -> Result<(), String> {
        match Self::arm(self, 1).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is room".into()),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, String> {
        match self.reserve_timeout(1, timeout) {
            Ok(_) => Ok(true),
            Err(Error::TimedOut) => Ok(false),
            Err(error) => Err(words(error)),
        }
    }

    fn watch(&self, set: &WaitSet) -> Result<Key, Error> {
        set.watch_room(self, 1)
    }

    fn act(&mut self, name: &str, next: u64) -> Result<(), String> {
        let at = self.position();
        let values = [0, 1, 2].map(|n| Numbered::new(next + n, at + n));
        match name {
            "push" => self.try_push(values[0]).map_err(words),
            "push-slice" => self.try_push_slice(&values).map(drop).map_err(words),
            "push-iter" => self.try_push_iter(values).map(drop).map_err(words),
            "reserve-commit" | "reserve-discard" => {
                let mut slots = self.try_reserve(3).map_err(words)?;
                for (slot, value) in values.into_iter().enumerate() {
                    slots.write(slot, value);
                }
                if name == "reserve-commit" {
                    slots.commit(2);
                }
                Ok(())
            }
            "reserve-full" => match self.try_reserve(1).err() {
                Some(Error::Full) => Ok(()),
                other => Err(format!("expected Full, found {other:?}")),
            },
            name => Err(no_operation(name)),
        }
    }

    fn abort(self: Box<Self>) {
        Self::abort(*self);
    }
}

impl<K: Slotted> Consumer for slipring::Consumer<K> {
    fn begin_at(&mut self, number: u64) -> Result<(), String> {
        K::begin_at(self, number)
    }

    fn pop(&mut self, timeout: Duration) -> Result<Given, String> {
        let at = self.position();
        let popped = self.pop_timeout(timeout);
        let gone = self.position().wrapping_sub(at);
        let (given, steps) = match popped {
            Ok(message) => (Given::Message(message.number_at(at)?), 1),
            Err(Error::Lagged(lost)) => (Given::Lost(lost), lost),
            Err(Error::TimedOut) => (Given::Nothing, 0),
            Err(Error::Disconnected(end)) => (Given::Ended(end), 0),
            Err(error) => return Err(words(error)),
        };
        match gone == steps {
            true => Ok(given),
            false => Err(format!("{given:?} at {at} led on by {gone}")),
        }
    }

    fn arm(&mut self) -> Result<(), String> {
        match Self::arm(self).map_err(words)? {
            Readiness::Armed => Ok(()),
            Readiness::Ready => Err("there is a message".into()),
        }
    }

    fn watch(&self, set: &WaitSet) -> Result<Key, Error> {
        set.watch(self)
    }

    fn act(&mut self, name: &str) -> Result<(), String> {
        let at = self.position();
        match name {
            "pop" => {
                let message = self.try_pop().map_err(words)?;
                message.number_at(at).map(drop)
            }
            "pop-slice" => {
                let mut out = [0, 0, 0].map(|number| Numbered::new(number, 0));
                let count = self.try_pop_slice(&mut out).map_err(words)?;
                all_at(at, &out[..count])
            }
            "read-one" => {
                let message = self.try_read().map_err(words)?;
                message.number_at(at).map(drop)
            }
            "read-release" => {
                let messages = self.try_read_batch(2).map_err(words)?;
                all_at(at, messages.iter())
            }
            "read-keep" => {
                self.try_read_batch(2).map_err(words)?.release(0);
                Ok(())
            }
            name => K::act(self, name),
        }
    }

    fn abort(self: Box<Self>) {
        Self::abort(*self);
    }
}

/// Checks that these messages are whole and follow one another from `at` on.
fn all_at<'m, M: Numbered>(
    at: u64,
    messages: impl IntoIterator<Item = &'m M>,
) -> Result<(), String> {
    let mut found = messages.into_iter().zip(at..);
    found.try_for_each(|(message, at)| message.number_at(at).map(drop))
}
