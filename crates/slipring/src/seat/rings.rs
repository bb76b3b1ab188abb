//! The rings of a channel that can grow, as a seat lends them to its end.

use std::sync::Arc;

use slipring_core::backing::Backing;
use slipring_core::mem::Classes;
use slipring_core::rings::Rings;

use super::on_loan;
use crate::shm::Region;

/// Returns the rings of a channel; `None` if its capacity is fixed.
pub(super) fn of(region: &Arc<Region>) -> Option<Arc<Rings<'static>>> {
    let geometry = region.geometry();
    let words = region.control().rings(geometry)?;
    // SAFETY: the header was checked against the real sizes. While the seat lives, the data part is mapped for all areas,
    // page-aligned or checked.
    let classes = unsafe { Classes::new(region.data(), *geometry) };
    let backing = region
        .is_sparse()
        .then(|| on_loan(region) as &'static dyn Backing);
    Some(Arc::new(Rings::new(words, classes, backing)))
}
