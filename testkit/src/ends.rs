//! Implements what builders, channels and handles of every kind can do, once for all kinds.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use slipring::inspect::Stat;
use slipring::set::Key;
use slipring::{
    Borrowed, Builder, Channel, Error, Geometry, Pages, Readiness, SetupError, WaitSet, handover,
};

use crate::{Consumer, Handle, Made, Maker, Memory, Producer, TakenConsumer, TakenProducer};

/// Writes methods that call the library's method of the same name.
macro_rules! forward {
    ($(fn $name:ident($of:ident: $self_type:ty $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $name($of: $self_type $(, $argument: $type)*) -> $result {
            Self::$name($of $(, $argument)*)
        })*
    };
}

/// Writes methods that put what the library's method of the same name returns behind a trait.
macro_rules! forward_boxed {
    ($(fn $name:ident(&$of:ident $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $name(&$of $(, $argument: $type)*) -> $result {
            Ok(Box::new(Self::$name($of $(, $argument)*)?))
        })*
    };
}

impl<K> Maker for Builder<K>
where
    K: slipring::Kind + 'static,
    slipring::Producer<K>: Producer,
    slipring::Consumer<K>: Consumer,
{
    forward_boxed! {
        fn create(&self, name: &str) -> Made;
        fn open(&self, name: &str) -> Made;
        fn open_or_create(&self, name: &str) -> Made;
        fn producer(&self, name: &str) -> TakenProducer;
        fn consumer(&self, name: &str) -> TakenConsumer;
        fn heap(&self) -> Made;
        fn memfd(&self) -> Made;
    }

    fn passed(&self, descriptors: Vec<OwnedFd>) -> Made {
        Ok(Box::new(self.from_fds(descriptors)?))
    }

    fn receive(&self, socket: BorrowedFd<'_>) -> Made {
        Ok(Box::new(handover::receive(socket, self)?))
    }

    fn lens(&self) -> [usize; 2] {
        [self.control_len(), self.data_len() as usize]
    }

    unsafe fn format_in(&self, memory: Borrowed) -> Made {
        // SAFETY: the caller's promise.
        Ok(Box::new(unsafe { Builder::format_in(self, memory) }?))
    }

    unsafe fn attach_in(&self, memory: Borrowed) -> Made {
        // SAFETY: the caller's promise.
        Ok(Box::new(unsafe { Builder::attach_in(self, memory) }?))
    }
}

impl<K> Memory for Channel<K>
where
    K: slipring::Kind + 'static,
    slipring::Producer<K>: Producer,
    slipring::Consumer<K>: Consumer,
{
    forward_boxed! {
        fn producer(&self) -> TakenProducer;
        fn consumer(&self) -> TakenConsumer;
    }

    forward! {
        fn stat(self: &Self) -> Result<Stat, SetupError>;
        fn geometry(self: &Self) -> Geometry;
        fn pages(self: &Self) -> &Pages;
        fn descriptors(self: &Self) -> Vec<BorrowedFd<'_>>;
        fn remove(self: &Self) -> Result<(), SetupError>;
    }

    fn metadata(&self) -> &[u8] {
        Channel::metadata(self)
    }

    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), SetupError> {
        handover::send(socket, self)
    }
}

/// Writes the methods of [`Handle`] that have the same name for both roles.
macro_rules! forward_both_roles {
    () => {
        forward! {
            fn position(self: &Self) -> u64;
            fn len(self: &Self) -> Result<usize, Error>;
            fn is_disconnected(self: &mut Self) -> Result<bool, Error>;
            fn heartbeat(self: &Self) -> ();
        }

        fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
            self.as_fd()
        }

        fn abort(self: Box<Self>) {
            Self::abort(*self);
        }
    };
}

impl<K: slipring::Kind> Handle for slipring::Producer<K> {
    forward_both_roles!();

    fn wait_for_peer(&mut self, timeout: Duration) -> Result<(), Error> {
        self.wait_for_consumer(timeout)
    }

    fn arm(&mut self, room: usize) -> Result<Readiness, Error> {
        Self::arm(self, room)
    }

    fn watch(&self, set: &WaitSet, room: usize) -> Result<Key, Error> {
        set.watch_room(self, room)
    }
}

impl<K: slipring::Kind> Handle for slipring::Consumer<K> {
    forward_both_roles!();

    fn wait_for_peer(&mut self, timeout: Duration) -> Result<(), Error> {
        self.wait_for_producer(timeout)
    }

    fn arm(&mut self, _room: usize) -> Result<Readiness, Error> {
        Self::arm(self)
    }

    fn watch(&self, set: &WaitSet, _room: usize) -> Result<Key, Error> {
        set.watch(self)
    }
}
