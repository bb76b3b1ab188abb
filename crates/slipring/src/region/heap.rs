//! Private memory, for channels between the threads of one process.

use std::sync::Arc;

use super::map::Mapping;
use super::space::refuse_absurd;
use super::{Pages, Plan, Region, huge, pipes};
use crate::error::Error;

impl Region {
    /// A fresh channel in private memory.
    pub(crate) fn heap(plan: &Plan) -> Result<Region, Error> {
        let control = private(plan.geometry.control_len(), huge::HugePages::Off)?;
        let needed = plan.geometry.data_len() as usize;
        let (data, pages) =
            huge::with_fallback(plan.huge, |size| private(size.round(needed), size))?;
        let mut region = Region::format(control, data, None, pages, plan)?;
        region.private = Some(Arc::new(pipes::Private::new(plan.geometry.seats())));
        Ok(region)
    }
}

fn private(len: usize, huge: huge::HugePages) -> Result<Mapping, Error> {
    let fail = |errno| Error::space("memory of this machine", len as u64, errno);
    refuse_absurd(len).map_err(fail)?;
    let mapping = Mapping::private(len, huge).map_err(fail)?;
    mapping.wish_huge();
    mapping.populate(true).map_err(fail)?;
    Ok(mapping)
}

impl Pages {
    /// Ordinary pages, nothing else asked for.
    pub(crate) fn base() -> Pages {
        Pages {
            asked: huge::HugePages::Off,
            got: huge::HugePages::Off,
            reason: None,
        }
    }
}
