//! A region: the memory of one channel, validated. The other files of this folder make or open
//! regions.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use slipring_core::backing::Backing;
use slipring_core::layout::{Control, Geometry, Header, Identity, METADATA, Role, SeatWords, Side};
use slipring_core::outside::View;
use slipring_core::seat::{Life, State};
use slipring_core::{FormatError, Schema, layout};

use super::fds::is_sealed;
use super::files::Place;
use super::huge::Pages;
use super::limits::{free_in, refuse_absurd};
use super::map::{self, Mapping};
use super::pipes::{self, Private};
use super::space::{Fill, STEP};
use crate::error::{self, Error};
use crate::pages::HugePages;
use crate::setup_error::SetupError;

/// The longest control part without claims, in bytes.
const MAX_CONTROL: usize = 1 << 20;

/// Maps the control part in an existing file: all that the channel needs of it, and no more.
pub(super) fn map_control(
    file: &OwnedFd,
    writable: bool,
    shown: &Path,
) -> Result<Mapping, SetupError> {
    let len = map::file_len(file, shown)?;
    let mapping = map::existing(file, len.min(MAX_CONTROL), writable, shown)?;
    // The claims of a large queue take more, as the header tells. Another fault is found when it is read again.
    let needed = match control_of(&mapping)?.read(u64::MAX) {
        Err(FormatError::Truncated { expected, .. }) => expected as usize,
        _ => return Ok(mapping),
    };
    match needed <= len {
        true => map::existing(file, needed, writable, shown),
        false => Ok(mapping),
    }
}

/// The plan of a region to be made; `Builder::plan` has checked it.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) geometry: Geometry,
    pub(crate) schema: Option<Schema>,
    pub(crate) metadata: [u8; METADATA],
    pub(crate) huge: HugePages,
    pub(crate) mode: u32,
    /// For memfds: `true` if no other process may ever write the data part.
    pub(crate) sealed: bool,
}

impl Plan {
    /// Returns how the data part is made, with pages of this size.
    pub(super) fn fill(&self, size: HugePages) -> Fill {
        fill(&self.geometry, size)
    }
}

/// Returns how the data part of a channel is made: that of a channel that can grow is sparse, and that of a topic, unless its
/// pages come from a pool.
fn fill(geometry: &Geometry, size: HugePages) -> Fill {
    if geometry.growth.is_some() {
        return Fill::Sparse(geometry.area_of(0).map_or(0, |first| first.end) as usize);
    }
    match (geometry.kind.spec().has_pool, size) {
        (true, HugePages::Off) => Fill::Sparse(0),
        _ => Fill::Whole,
    }
}

/// A channel's memory, validated, with a private copy of its header.
pub(crate) struct Region {
    control: Mapping,
    data: Mapping,
    pub(crate) header: Header,
    /// The words of all seats, producers first. They borrow from `control`, which this struct keeps
    /// alive.
    seats: Vec<SeatWords<'static>>,
    pub(crate) files: Option<Files>,
    /// The pipes of private memory.
    pub(crate) private: Option<Arc<Private>>,
    pub(crate) pages: Pages,
    /// `true` if this process may write the data part, `false` if it came sealed.
    pub(crate) writable: bool,
}

/// The files of a region that has some.
pub(crate) struct Files {
    /// The *watch* description: it queries locks and never takes one.
    pub(crate) control: OwnedFd,
    /// The place of a named channel's name; `None` for a passed channel.
    pub(crate) place: Option<Place>,
    /// The descriptors that a passed channel's `Channel` can pass on. Empty for a named channel,
    /// which opens everything by its directory.
    pub(crate) passed: Weak<Passed>,
}

/// The descriptors of a passed channel that only its `Channel` needs. The last clone closes them;
/// each handle keeps the pipe of its own seat.
pub(crate) struct Passed {
    pub(crate) data: OwnedFd,
    /// One for each seat.
    pub(crate) pipes: Vec<Arc<OwnedFd>>,
}

impl Region {
    /// Attaches the channel in two existing files.
    ///
    /// Validates the header against the files' real sizes before it maps the data part. Maps no
    /// more of that than the channel needs. A region that is not `writable` can only be watched: no
    /// role of it can be taken.
    pub(super) fn attach(
        files: Files,
        data_file: &OwnedFd,
        shown: &Path,
        writable: bool,
    ) -> Result<Region, SetupError> {
        let pages = Pages::of(data_file.as_fd());
        map::refuse_one_file(&files.control, data_file, shown)?;
        let control = map_control(&files.control, writable, &shown.join("control"))?;
        let data_len = map::file_len(data_file, shown)?;
        let header = control_of(&control)?.read(data_len as u64)?;
        let needed = pages
            .got
            .round(header.geometry.data_len() as usize)
            .min(data_len);
        let writable = writable && !is_sealed(data_file);
        let map = match fill(&header.geometry, pages.got) {
            Fill::Whole => map::existing,
            Fill::Sparse(_) => map::existing_sparse,
        };
        let data = map(data_file, needed, writable, &shown.join("data"))?;
        Ok(Region {
            control,
            data,
            header,
            files: Some(files),
            private: None,
            pages,
            writable,
            seats: Vec::new(),
        }
        .seated())
    }

    /// Formats two fresh mappings, and makes a region of them.
    pub(super) fn format(
        control: Mapping,
        data: Mapping,
        files: Option<Files>,
        pages: Pages,
        plan: &Plan,
    ) -> Result<Region, SetupError> {
        let view = control_of(&control)?;
        let header = view.format(
            &plan.geometry,
            plan.schema.as_ref(),
            identity(),
            &plan.metadata,
            data.len() as u64,
        )?;
        Ok(Region {
            control,
            data,
            header,
            files,
            private: None,
            pages,
            writable: true,
            seats: Vec::new(),
        }
        .seated())
    }

    /// Formats the caller's memory.
    ///
    /// # Safety
    /// See `Builder::format_in`.
    pub(crate) unsafe fn format_in(memory: Borrowed, plan: &Plan) -> Result<Region, SetupError> {
        // SAFETY: the caller's promise.
        let (control, data) = unsafe { memory.mappings(plan.geometry.slot_align) }?;
        Region::format(control, data, None, Pages::base(), plan)
    }

    /// Attaches the channel in the caller's memory.
    ///
    /// # Safety
    /// See `Builder::attach_in`.
    pub(crate) unsafe fn attach_in(memory: Borrowed) -> Result<Region, SetupError> {
        // SAFETY: the caller's promise.
        let (control, data) = unsafe { memory.mappings(1) }?;
        let header = control_of(&control)?.read(data.len() as u64)?;
        let align = header.geometry.slot_align;
        if !(data.base().as_ptr().addr() as u64).is_multiple_of(align) {
            let part = "data";
            return Err(SetupError::Misaligned {
                part,
                expected: align,
            });
        }
        Ok(Region {
            control,
            data,
            header,
            files: None,
            private: None,
            pages: Pages::base(),
            writable: true,
            seats: Vec::new(),
        }
        .seated())
    }

    /// Returns the control part. Its lifetime is extended: handles keep the region alive beside it.
    pub(crate) fn control(&self) -> Control<'static> {
        // SAFETY: mapped for as long as the region lives; every handle holds an `Arc` of that.
        let control = unsafe { Control::new(self.control.base(), self.control.len()) };
        match control {
            Ok(control) => control,
            Err(_) => unreachable!("the same memory passed the same checks in attach"),
        }
    }

    fn seated(mut self) -> Region {
        let (control, geometry) = (self.control(), self.header.geometry);
        let words = |seat| control.seat_words(&geometry, seat);
        self.seats = (0..geometry.seats()).map(words).collect();
        self
    }

    /// Returns the seats of one side. Their lifetime is extended, as that of the control part.
    pub(crate) fn side(&self, role: Role) -> Side<'static> {
        let seats = &self.seats[self.header.geometry.seats_of(role)];
        // SAFETY: no code changes the list, and the region lives for as long as any handle of it.
        Side::Many(unsafe { std::slice::from_raw_parts(seats.as_ptr(), seats.len()) })
    }

    /// Returns the words of the channel, for a caller without a handle.
    pub(crate) fn view(&self) -> View<'_> {
        let (control, geometry) = (self.control(), self.geometry());
        View {
            geometry,
            seats: &self.seats,
            gating_set: control.gating_set(),
            write_limit: &control.role(geometry, 0).write_limit.0,
            claims: control.claims(geometry),
            entries: control.entries(geometry),
            rings: control.rings(geometry),
        }
    }

    /// Returns `true` if the pages of the data part come one by one.
    pub(crate) fn is_sparse(&self) -> bool {
        let ours = self.files.is_some() || self.private.is_some();
        ours && fill(self.geometry(), self.pages.got) != Fill::Whole
    }

    /// Returns the start of the data part.
    pub(crate) fn data(&self) -> std::ptr::NonNull<u8> {
        self.data.base()
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.header.geometry
    }

    /// Returns `Some(true)` if the kernel reports that this seat is held; `None` where there is no
    /// file.
    pub(crate) fn held(&self, seat: usize) -> Result<Option<bool>, Error> {
        let Some(files) = self.files.as_ref() else {
            return Ok(None);
        };
        let byte = layout::SEATS + seat * layout::LINE;
        crate::lock::is_held(files.control.as_fd(), byte).map(Some)
    }

    /// Returns `true` if the holder that this seat had with this `life` is dead.
    ///
    /// The caller has read the word; this looks at the lock, and at the word again: see `seat.rs` of the core. A holder that
    /// the kernel cannot be asked about counts as alive.
    pub(crate) fn died(&self, seat: usize, life: Life) -> Result<bool, Error> {
        let suspect = life.state == State::Held && self.held(seat)? == Some(false);
        Ok(suspect && self.control().seat(seat).life()? == life)
    }

    /// Returns `true` if the channel has a name, which may later lead elsewhere.
    pub(crate) fn named(&self) -> bool {
        self.files
            .as_ref()
            .is_some_and(|files| files.place.is_some())
    }

    /// Checks that the channel's name still leads to it; returns `Removed` or `Replaced` if not. A
    /// channel without a name always passes.
    pub(crate) fn check_name(&self) -> Result<(), Error> {
        match &self.files {
            Some(Files {
                control,
                place: Some(place),
                ..
            }) => place.check(control),
            _ => Ok(()),
        }
    }

    pub(crate) fn descriptors<'r>(&'r self, passed: &'r Passed) -> Vec<BorrowedFd<'r>> {
        let control = self.files.iter().map(|files| files.control.as_fd());
        let pipes = passed.pipes.iter().map(|pipe| pipe.as_fd());
        control.chain([passed.data.as_fd()]).chain(pipes).collect()
    }
}

impl Region {
    /// Returns `true` if a holder of role `holder` opens the pipes opposite only when it first
    /// writes them.
    ///
    /// Only a handle of a named channel does, and only if its kind may have many seats opposite, and so 63 pipes. A
    /// passed channel's handles must hold their pipes in any case: no name leads to them.
    pub(crate) fn opens_late(&self, holder: Role) -> bool {
        let named = self
            .files
            .as_ref()
            .is_some_and(|files| files.place.is_some());
        named && self.geometry().kind.spec().most(holder.other()) > 1
    }

    /// Returns the passed pipe of `seat`, for the handle in that seat, which may outlive the
    /// `Channel`.
    pub(crate) fn passed_pipe(&self, seat: usize) -> Option<Arc<OwnedFd>> {
        let passed = self.files.as_ref()?.passed.upgrade()?;
        passed.pipes.get(seat).cloned()
    }

    /// Opens a description of our own of the pipe of `seat`.
    pub(crate) fn pipe(&self, seat: usize, access: rustix::fs::OFlags) -> Result<OwnedFd, Error> {
        let fail = |errno| error::os("open the channel's pipe", errno);
        let Some(files) = &self.files else {
            let private = self.private.as_deref().ok_or(Error::NoPipes)?;
            return private.reader(seat).map_err(fail);
        };
        if let Some(place) = &files.place {
            let pipe = pipes::named(place.dir.as_fd(), seat, access);
            // The pipe may be missing because the channel is gone: then report that.
            return pipe.or_else(|error| self.check_name().and(Err(error)));
        }
        let passed = files.passed.upgrade().ok_or(Error::NoPipes)?;
        let pipe = passed.pipes.get(seat).ok_or(Error::NoPipes)?;
        pipes::reopened(pipe.as_fd(), access)
    }
}

/// The memory of a sparse data part.
impl Region {
    /// Backs `len` bytes of a topic's slot from `at` on, some of which may have memory.
    pub(crate) fn back_slot(&self, at: u64, len: u64) -> Result<(), Error> {
        let page = rustix::param::page_size();
        let part = at as usize / page * page..(at + len) as usize;
        let populated = self.data.populate_range(part, true);
        populated.map_err(|errno| match errno {
            Errno::FAULT | Errno::NOSPC | Errno::NOMEM => Error::NoSpace { needed: len },
            errno => error::os("back a message with memory", errno),
        })
    }

    /// Gives back the whole pages among `len` bytes from `at` on.
    pub(crate) fn give_back(&self, at: u64, len: u64) {
        let part = at as usize..(at + len) as usize;
        self.data.give_back(part, self.files.is_some());
    }

    /// Backs `len` bytes from `at` on, which have no memory yet. Asks first, and again before each step: see `space.rs`. If there
    /// is not enough, gives all of it back.
    fn back_fresh(&self, at: u64, len: u64) -> Result<(), Errno> {
        let (start, end) = (at as usize, (at + len) as usize);
        refuse_absurd(len as usize)?;
        if self.pages.got == HugePages::Off {
            self.data.wish_huge_within(start..end);
        }
        for step in (start..end).step_by(STEP) {
            // Huge pages come from a pool of their own.
            let free = match (&self.files, self.pages.got) {
                (Some(files), HugePages::Off) => free_in(files.control.as_fd()),
                _ => None,
            };
            let populated = match free {
                Some(free) if free < (end - step) as u64 => Err(Errno::NOSPC),
                _ => self.data.back_range(step..end.min(step + STEP)),
            };
            if let Err(errno) = populated {
                self.give_back(at, len);
                return Err(errno);
            }
        }
        Ok(())
    }
}

/// The areas of a channel that can grow.
impl Backing for Region {
    fn back(&self, at: u64, len: u64) -> Result<(), Error> {
        self.back_fresh(at, len).map_err(|errno| match errno {
            Errno::FAULT | Errno::NOSPC | Errno::NOMEM => Error::NoSpace { needed: len },
            errno => error::os("back a ring with memory", errno),
        })
    }

    fn give_back(&self, at: u64, len: u64) {
        Region::give_back(self, at, len);
    }

    fn touch(&self, at: u64, len: u64) {
        let part = at as usize..(at + len) as usize;
        // Whoever comes to a page that is not there yet finds it a little later.
        let _ = self.data.populate_range(part, true);
    }
}

pub(super) fn control_of(control: &Mapping) -> Result<Control<'_>, SetupError> {
    // SAFETY: mapped for `len` bytes while borrowed; accessed through its atomics only.
    Ok(unsafe { Control::new(control.base(), control.len()) }?)
}

/// Returns the payload's name in a header, made printable: another program may have written it.
pub(crate) fn schema_name(header: &Header) -> String {
    let end = header
        .schema_name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(header.schema_name.len());
    String::from_utf8_lossy(&header.schema_name[..end])
        .escape_debug()
        .to_string()
}

/// The caller's memory for the two parts of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Borrowed {
    /// The control part: `Builder::control_len` bytes, at a multiple of 128.
    pub control: std::ptr::NonNull<[u8]>,
    /// The data part: `Builder::data_len` bytes, at a multiple of 64 and of the payload's alignment.
    pub data: std::ptr::NonNull<[u8]>,
}

impl Borrowed {
    /// Returns the mappings of both parts.
    ///
    /// # Safety
    /// Both parts must stay valid for as long as any handle lives.
    unsafe fn mappings(self, slot_align: u64) -> Result<(Mapping, Mapping), SetupError> {
        let align = slot_align.max(64) as usize;
        if !self.data.cast::<u8>().as_ptr().addr().is_multiple_of(align) {
            return Err(SetupError::Misaligned {
                part: "data",
                expected: align as u64,
            });
        }
        Ok((
            Mapping::borrowed(self.control),
            Mapping::borrowed(self.data),
        ))
    }
}

/// Returns a new channel's identity: this boot, and a number that no other creation has.
fn identity() -> Identity {
    let mut unique = [0; 16];
    // Without random numbers (early in the boot), pid and time must distinguish two creations.
    if rustix::rand::getrandom(&mut unique, rustix::rand::GetRandomFlags::empty()) != Ok(16) {
        let now = crate::clock::since_boot();
        unique[..8].copy_from_slice(&now.to_le_bytes());
        unique[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    Identity {
        boot: crate::clock::boot_id(),
        unique: u128::from_le_bytes(unique),
        created: crate::clock::now(),
    }
}
