//! `slipring rm`: removes channels that nobody uses, corrupt ones included. One that is in use is
//! left as it is, and the others are removed all the same.

use crate::exit::{Failure, complain};

/// Remove named channels that are not in use
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channels
    #[arg(required = true)]
    names: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut worst = 0;
    for name in &args.names {
        if let Err(error) = slipring::inspect::remove(name) {
            let failure = Failure::from(error);
            complain(&failure);
            worst = worst.max(failure.code());
        }
    }
    if worst == 0 {
        Ok(())
    } else {
        Err(Failure::Told(worst))
    }
}
