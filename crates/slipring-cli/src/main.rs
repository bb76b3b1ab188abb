//! The `slipring` command: channels from the shell.
//!
//! Standard output has the answer and nothing else, so that another program may use it. Errors are
//! printed once, on standard error; the exit codes are in [`exit`] and in `--help`. No verb holds a
//! role longer than it runs: however it ends, the next process can take its place.
#![deny(unsafe_code)]

mod bench;
mod claims;
mod command;
mod create;
mod cut;
mod demo;
mod exit;
mod feed;
mod hugepages;
mod inherited;
mod letters;
mod ls;
mod mode;
mod output;
mod progress;
mod publish;
mod queue;
mod recv;
mod resize;
mod rm;
mod role;
mod send;
mod shape;
mod signals;
mod stat;
mod subscribe;
mod tail;
mod text;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shared-memory messaging between processes of this host.
#[derive(Parser)]
#[command(
    name = "slipring",
    version,
    about = "Shared-memory messaging between processes of this host",
    after_help = exit::TABLE,
    max_term_width = 80
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Demo(demo::Args),
    Send(send::Args),
    Recv(recv::Args),
    Work(work::Args),
    Letters(letters::Args),
    Pub(publish::Args),
    Sub(subscribe::Args),
    Create(create::Args),
    Resize(resize::Args),
    Ls(ls::Args),
    Stat(stat::Args),
    Tail(tail::Args),
    Rm(rm::Args),
    Hugepages(hugepages::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    DemoEnd(demo::EndArgs),
}

impl Verb {
    /// Returns the standard descriptors that the verb uses. Every verb reports its errors on 2.
    fn descriptors(&self) -> &'static [usize] {
        match self {
            Verb::Send(_) => &[0, 2],
            Verb::Pub(args) if args.reads_input() => &[0, 2],
            Verb::Pub(_) => &[2],
            _ => &[1, 2],
        }
    }
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    if let Err(failure) = signals::outlive_file_limits() {
        return failure.report();
    }
    if let Err(failure) = inherited::check_descriptors(verb.descriptors()) {
        return failure.report();
    }
    let done = match verb {
        Verb::Demo(args) => demo::run(&args),
        Verb::Send(args) => send::run(&args).map_err(|failure| failure.about(&args.name)),
        Verb::Recv(args) => recv::run(&args).map_err(|failure| failure.about(&args.name)),
        Verb::Work(args) => work::run(&args).map_err(|failure| failure.about(&args.name)),
        Verb::Letters(args) => letters::run(&args).map_err(|failure| failure.about(&args.name)),
        Verb::Pub(args) => publish::run(&args).map_err(|failure| failure.about(&args.name)),
        Verb::Sub(args) => subscribe::run(&args),
        Verb::Create(args) => create::run(&args),
        Verb::Resize(args) => resize::run(&args),
        Verb::Ls(args) => ls::run(&args),
        Verb::Stat(args) => stat::run(&args),
        Verb::Tail(args) => tail::run(&args).map_err(|failure| failure.about(&args.name)),
        Verb::Rm(args) => rm::run(&args),
        Verb::Hugepages(args) => hugepages::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::DemoEnd(args) => demo::run_end(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
