//! A region: the control and data memory of one channel, however it was made.
//!
//! | made by | control, data | seats held through | survives its makers |
//! |---|---|---|---|
//! | `heap` | private mappings | a word in the seat line | no |
//! | `memfd` | two sealed memfds | kernel locks | while a process holds a descriptor |
//! | `named` | two files in a directory | kernel locks | until it is removed |
//! | `borrowed` | the caller's memory | a word in the seat line | as the caller decides |

mod fds;
mod files;
mod heap;
mod huge;
mod limits;
mod map;
mod memfd;
pub(crate) mod named;
mod names;
mod parts;
pub(crate) mod pipes;
mod region;
mod space;

pub use crate::pages::HugePages;
pub(crate) use fds::fresh_description;
pub(crate) use files::Place;
pub use huge::{Pages, PoolState, pools, reserve};
pub(crate) use map::Mapping;
pub use region::Borrowed;
pub(crate) use region::{Files, Passed, Plan, Region, schema_name};
