//! Private memory, for channels between the threads of one process.

use std::sync::Arc;

use super::huge::{self, Pages};
use super::limits::refuse_absurd;
use super::map::Mapping;
use super::pipes;
use super::region::{Plan, Region};
use super::space::Fill;
use crate::pages::HugePages;
use crate::setup_error::SetupError;

impl Region {
    /// Makes a fresh channel in private memory.
    pub(crate) fn heap(plan: &Plan) -> Result<Region, SetupError> {
        let control = private(plan.geometry.control_len(), HugePages::Off, Fill::Whole)?;
        let needed = plan.geometry.data_len() as usize;
        let (data, pages) = huge::with_fallback(plan.huge, |size| {
            private(size.round(needed), size, plan.fill(size))
        })?;
        let mut region = Region::format(control, data, None, pages, plan)?;
        region.private = Some(Arc::new(pipes::Private::new(plan.geometry.seats())));
        Ok(region)
    }
}

fn private(len: usize, huge: HugePages, fill: Fill) -> Result<Mapping, SetupError> {
    let fail = |errno| SetupError::space("memory of this machine", len as u64, errno);
    if let Fill::Sparse(first) = fill {
        let mapping = Mapping::reserved(len, huge).map_err(fail)?;
        refuse_absurd(first).map_err(fail)?;
        mapping.back_range(0..first).map_err(fail)?;
        return Ok(mapping);
    }
    refuse_absurd(len).map_err(fail)?;
    let mapping = Mapping::private(len, huge).map_err(fail)?;
    mapping.wish_huge();
    mapping.populate(true).map_err(fail)?;
    Ok(mapping)
}

impl Pages {
    /// Returns ordinary pages, with nothing else asked for.
    pub(crate) fn base() -> Pages {
        Pages {
            asked: HugePages::Off,
            got: HugePages::Off,
            reason: None,
        }
    }
}
