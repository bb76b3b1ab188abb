//! A region: the memory of one channel, control and data, however it was come by.
//!
//! | made by | control, data | seats held through | survives its makers |
//! |---|---|---|---|
//! | `heap` | private mappings | a word in the seat line | no |
//! | `memfd` | two sealed memfds | kernel locks | while somebody holds a descriptor |
//! | `named` | two files in a directory | kernel locks | until it is removed |
//! | `borrowed` | the caller's memory | a word in the seat line | as the caller decides |

mod files;
mod heap;
mod huge;
mod map;
mod memfd;
pub(crate) mod named;
mod parts;
pub(crate) mod pipes;
mod space;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use slipring_core::layout::{Control, Geometry, Header, Identity, METADATA, SeatWords, Side};
use slipring_core::{Schema, layout};

pub use huge::{HugePages, Pages, PoolState, pools, reserve};
pub(crate) use map::Mapping;
pub(crate) use memfd::fresh_description;

use crate::error::Error;
use crate::seat::Role;
pub(crate) use files::Place;

/// No control part of any kind is longer, in bytes.
const MAX_CONTROL: usize = 1 << 20;

/// What a region is to be made with: `Builder::plan` has checked it.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) geometry: Geometry,
    pub(crate) schema: Option<Schema>,
    pub(crate) metadata: [u8; METADATA],
    pub(crate) huge: HugePages,
    pub(crate) mode: u32,
    /// Of memfds: nobody else shall ever write the data part.
    pub(crate) sealed: bool,
}

/// A channel's memory, validated, with a private copy of its header.
pub(crate) struct Region {
    control: Mapping,
    data: Mapping,
    pub(crate) header: Header,
    /// The words of all seats, producers first. They borrow from `control`, on loan.
    seats: Vec<SeatWords<'static>>,
    pub(crate) files: Option<Files>,
    /// The pipes of private memory.
    pub(crate) private: Option<Arc<pipes::Private>>,
    pub(crate) pages: Pages,
    /// Whether this process may write the data part: not if it came sealed.
    pub(crate) writable: bool,
}

/// The files behind a region that has some.
pub(crate) struct Files {
    /// The *watch* description: it asks about locks and never takes one.
    pub(crate) control: OwnedFd,
    /// Where a named channel has its name; nothing for a passed one.
    pub(crate) place: Option<Place>,
    /// What a passed channel's `Channel` can pass on; nothing for a named one, which opens all by its directory.
    pub(crate) passed: Weak<Passed>,
}

/// The descriptors of a passed channel that only its `Channel` needs. They are closed with its last clone; each
/// handle keeps the pipe of its own seat.
pub(crate) struct Passed {
    pub(crate) data: OwnedFd,
    /// One a seat.
    pub(crate) pipes: Vec<Arc<OwnedFd>>,
}

impl Region {
    /// The channel in two files that somebody made. Its header is validated against what the files
    /// really have before the data part is mapped: no more of that than the channel needs. Not `writable`,
    /// it can only be looked at: no role of it can be taken.
    fn attach(
        files: Files,
        data_file: &OwnedFd,
        shown: &Path,
        writable: bool,
    ) -> Result<Region, Error> {
        let pages = Pages::of(data_file.as_fd());
        map::refuse_one_file(&files.control, data_file, shown)?;
        let control_len = map::file_len(&files.control, shown)?.min(MAX_CONTROL);
        let control = map::existing(
            &files.control,
            control_len,
            writable,
            &shown.join("control"),
        )?;
        let data_len = map::file_len(data_file, shown)?;
        let header = view(&control)?.read(data_len as u64)?;
        let needed = pages
            .got
            .round(header.geometry.data_len() as usize)
            .min(data_len);
        let writable = writable && !memfd::is_sealed(data_file);
        let data = map::existing(data_file, needed, writable, &shown.join("data"))?;
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
    fn format(
        control: Mapping,
        data: Mapping,
        files: Option<Files>,
        pages: Pages,
        plan: &Plan,
    ) -> Result<Region, Error> {
        let view = view(&control)?;
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

    /// Formats memory of the caller's.
    ///
    /// # Safety
    /// See `Builder::format_in`.
    pub(crate) unsafe fn format_in(memory: Borrowed, plan: &Plan) -> Result<Region, Error> {
        // SAFETY: the caller's promise.
        let (control, data) = unsafe { memory.mappings(plan.geometry.slot_align) }?;
        Region::format(control, data, None, Pages::base(), plan)
    }

    /// The channel in memory of the caller's.
    ///
    /// # Safety
    /// See `Builder::attach_in`.
    pub(crate) unsafe fn attach_in(memory: Borrowed) -> Result<Region, Error> {
        // SAFETY: the caller's promise.
        let (control, data) = unsafe { memory.mappings(1) }?;
        let header = view(&control)?.read(data.len() as u64)?;
        let align = header.geometry.slot_align;
        if !(data.base().as_ptr().addr() as u64).is_multiple_of(align) {
            let part = "data";
            return Err(Error::Misaligned {
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

    /// The control part. The lifetime is a loan: handles keep the region alive beside it.
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

    /// The seats of one side. The lifetime is a loan, as that of the control part.
    pub(crate) fn side(&self, role: Role) -> Side<'static> {
        let seats = &self.seats[role.seats(&self.header.geometry)];
        // SAFETY: nobody changes the list, and the region lives for as long as any handle of it.
        Side::Many(unsafe { std::slice::from_raw_parts(seats.as_ptr(), seats.len()) })
    }

    /// The start of the data part.
    pub(crate) fn data(&self) -> std::ptr::NonNull<u8> {
        self.data.base()
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.header.geometry
    }

    /// Whether the kernel says that this seat is held; nothing where no file is.
    pub(crate) fn held(&self, seat: usize) -> Result<Option<bool>, Error> {
        let Some(files) = self.files.as_ref() else {
            return Ok(None);
        };
        let byte = layout::SEATS + seat * layout::LINE;
        crate::lock::is_held(files.control.as_fd(), byte).map(Some)
    }

    /// Returns whether the channel has a name, which may come to lead elsewhere.
    pub(crate) fn named(&self) -> bool {
        self.files
            .as_ref()
            .is_some_and(|files| files.place.is_some())
    }

    /// Asks whether the channel's name still leads to it: `NotFound`, `Replaced`. Without a name all is well.
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

fn view(control: &Mapping) -> Result<Control<'_>, Error> {
    // SAFETY: mapped for `len` bytes while borrowed; accessed through its atomics only.
    Ok(unsafe { Control::new(control.base(), control.len()) }?)
}

/// Memory of the caller's for the two parts of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Borrowed {
    /// The control part: `Builder::control_len` bytes, at a multiple of 128.
    pub control: std::ptr::NonNull<[u8]>,
    /// The data part: `Builder::data_len` bytes, at a multiple of 64 and of the payload's alignment.
    pub data: std::ptr::NonNull<[u8]>,
}

impl Borrowed {
    /// # Safety
    /// Both parts stay valid for as long as any handle lives.
    unsafe fn mappings(self, slot_align: u64) -> Result<(Mapping, Mapping), Error> {
        let align = slot_align.max(64) as usize;
        if !self.data.cast::<u8>().as_ptr().addr().is_multiple_of(align) {
            return Err(Error::Misaligned {
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

/// A new channel's identity: this boot, and a number that no other creation has.
fn identity() -> Identity {
    let mut unique = [0; 16];
    // Without random numbers (an early boot) pid and time must do: it tells two creations apart.
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
