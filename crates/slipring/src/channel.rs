//! A channel as memory, from which roles are taken.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use slipring_core::end::Endpoint;
use slipring_core::layout::{Geometry, METADATA, Role};

use crate::consumer::Consumer;
use crate::difference::Difference;
use crate::inspect;
use crate::kind::{CrowdKind, Kind, SeatToken};
use crate::producer::Producer;
use crate::seat::Seat;
use crate::setup_error::SetupError;
use crate::shm::{Pages, Passed, Region};
use crate::terms::Terms;
use crate::wait::Attached;

/// A channel's memory, from which the roles can be taken. A `Channel` holds no seat itself.
pub struct Channel<K> {
    pub(crate) region: Arc<Region>,
    /// The descriptors to pass; only a channel in memfds has them.
    pub(crate) passed: Option<Arc<Passed>>,
    pub(crate) terms: Terms,
    pub(crate) kind: PhantomData<fn() -> K>,
}

impl<K> fmt::Debug for Channel<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("geometry", &self.region.geometry())
            .field("ephemeral", &self.terms.ephemeral)
            .field("patience", &self.terms.patience)
            .field("seek", &self.terms.seek)
            .finish_non_exhaustive()
    }
}

impl<K> Clone for Channel<K> {
    fn clone(&self) -> Self {
        let (region, passed) = (self.region.clone(), self.passed.clone());
        Channel {
            region,
            passed,
            ..*self
        }
    }
}

impl<K: Kind> Channel<K> {
    /// Returns the channel of a handle.
    fn of(seat: &Seat, terms: Terms) -> Channel<K> {
        let region = seat.region.clone();
        let passed = region
            .files
            .as_ref()
            .and_then(|files| files.passed.upgrade());
        Channel {
            region,
            passed,
            terms,
            kind: PhantomData,
        }
    }

    /// Takes the writing role.
    ///
    /// Returns [`RoleTaken`](SetupError::RoleTaken) while another handle, in any process, holds it.
    /// Returns [`Sealed`](SetupError::Sealed) if only the channel's maker may write, and
    /// [`NotFound`](SetupError::NotFound) if the channel was removed meanwhile. Other errors: as
    /// [`Builder`](crate::Builder#errors) lists for roles.
    pub fn producer(&self) -> Result<Producer<K>, SetupError> {
        self.take_producer()?.ok_or_else(|| self.removed())
    }

    /// Takes the reading role.
    ///
    /// Returns [`RoleTaken`](SetupError::RoleTaken) while another handle, in any process, holds it,
    /// and [`NotFound`](SetupError::NotFound) if the channel was removed meanwhile. Other errors:
    /// as [`Builder`](crate::Builder#errors) lists for roles.
    pub fn consumer(&self) -> Result<Consumer<K>, SetupError> {
        self.take_consumer()?.ok_or_else(|| self.removed())
    }

    /// Takes the writing role; returns `None` if the name now leads to another channel.
    pub(crate) fn take_producer(&self) -> Result<Option<Producer<K>>, SetupError> {
        let end = self.attach(Role::Producer, K::producer)?;
        let terms = self.terms;
        Ok(end.map(|end| Producer { end, terms }))
    }

    /// Takes the reading role; returns `None` if the name now leads to another channel.
    pub(crate) fn take_consumer(&self) -> Result<Option<Consumer<K>>, SetupError> {
        let end = self.attach(Role::Consumer, K::consumer)?;
        let terms = self.terms;
        Ok(end.map(|end| Consumer { end, terms }))
    }

    fn attach<C: Endpoint>(
        &self,
        role: Role,
        make: impl Fn(&SeatToken<'_>) -> Result<C, SetupError>,
    ) -> Result<Option<Attached<C>>, SetupError> {
        let Some(mut seat) = Seat::take(&self.region, role, self.terms.patience)? else {
            return Ok(None);
        };
        seat.ephemeral = self.terms.ephemeral;
        let Terms {
            seek,
            handling,
            stamps,
            sizing,
            ..
        } = self.terms;
        let core = make(&SeatToken {
            seat: &seat,
            seek,
            handling,
            stamps,
            sizing,
        })?;
        Ok(Some(Attached::new(core, seat, self.terms.waiting)))
    }

    fn removed(&self) -> SetupError {
        let place = self
            .region
            .files
            .as_ref()
            .and_then(|files| files.place.as_ref());
        match place {
            Some(place) => place.name.not_found(),
            None => SetupError::NeedsProc,
        }
    }

    /// Returns the 256 bytes that the channel's creator stored for its users.
    pub fn metadata(&self) -> &[u8; METADATA] {
        &self.region.header.metadata
    }

    /// Returns the channel's geometry: its kind and sizes.
    pub fn geometry(&self) -> Geometry {
        self.region.header.geometry
    }

    /// Returns the sizes in which the channel differs from what its builder asked for. An existing
    /// channel keeps its sizes.
    ///
    /// ```no_run
    /// let builder = slipring::bytes::Builder::new(1 << 20);
    /// for difference in builder.open_or_create("backup")?.differences() {
    ///     eprintln!("the channel exists: {difference}");      // capacity 65536 instead of 1048576
    /// }
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn differences(&self) -> Vec<Difference> {
        Difference::between(self.region.geometry(), &self.terms.asked)
    }

    /// Returns the page size of the data part, and why it differs from the requested one if it
    /// does.
    pub fn pages(&self) -> &Pages {
        &self.region.pages
    }

    /// Returns the descriptors of a channel in memfds, to pass to a child process or over a Unix
    /// socket.
    ///
    /// They are the control part's, the data part's, and a pipe for each seat, the producer's
    /// first. They are close-on-exec. Returns none for a named channel, or for one in this
    /// process's own memory.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.passed {
            Some(passed) => self.region.descriptors(passed),
            None => Vec::new(),
        }
    }

    /// Returns what any observer may know of the channel: see [`crate::inspect`].
    pub fn stat(&self) -> Result<inspect::Stat, SetupError> {
        inspect::of_region(&self.region)
    }

    /// Removes a named channel. Does nothing for a channel without a name.
    ///
    /// Returns [`InUse`](SetupError::InUse) while one of its seats is held, and
    /// [`NotRemoved`](SetupError::NotRemoved) while its directory holds anything else. Returns
    /// [`NotFound`](SetupError::NotFound) if the name now leads elsewhere. Processes that have
    /// mapped the memory keep it until they unmap it.
    pub fn remove(&self) -> Result<(), SetupError> {
        self.region.remove()
    }
}

impl<K: Kind> Producer<K> {
    /// Returns the channel that this handle belongs to, from which other roles can be taken.
    ///
    /// ```
    /// let (tx, rx) = slipring::spsc::channel::<u64>(8)?;
    /// drop(rx);
    /// let rx = tx.channel().consumer()?; // the successor
    /// # drop(rx);
    /// # Ok::<(), slipring::SetupError>(())
    /// ```
    pub fn channel(&self) -> Channel<K> {
        Channel::of(&self.end.seat, self.terms)
    }
}

/// Verbs of channels with several producers: see [`CrowdKind`].
impl<K: CrowdKind> Producer<K> {
    /// Takes another writing role of the same channel.
    ///
    /// Returns `RoleTaken` if no seat is free. Other errors: as [`Builder`](crate::Builder#errors) lists for roles.
    pub fn another(&self) -> Result<Self, SetupError> {
        self.channel().producer()
    }
}

/// Verbs of channels with several producers: see [`CrowdKind`].
impl<K: CrowdKind> Consumer<K> {
    /// Takes another reading role of the same channel, on the same terms.
    ///
    /// Returns `RoleTaken` if no seat is free. Other errors: as [`Builder`](crate::Builder#errors) lists for roles.
    pub fn another(&self) -> Result<Self, SetupError> {
        self.channel().consumer()
    }
}

impl<K: Kind> Consumer<K> {
    /// Returns the channel that this handle belongs to, from which other roles can be taken.
    pub fn channel(&self) -> Channel<K> {
        Channel::of(&self.end.seat, self.terms)
    }
}
