//! iceoryx2: publish and subscribe through an inter-process service, zero-copy.
//!
//! One publisher, one subscriber, no overwriting: `enable_safe_overflow(false)` and
//! `RetryUntilDelivered` make the publisher wait for a full subscriber. Messages are loaned, filled
//! and checked in place, so *one* is also its *place*. In the broadcast cases, each reader is a
//! subscriber.

use super::{About, Kind, Mode, Task};
use crate::broadcast::{Fan, Flow, Place, Way};
use crate::duel::{Run, Sample, duel};
use crate::message::Job;
use crate::to_all;
use crate::{answer, ask, spin};
use iceoryx2::node::Node;
use iceoryx2::port::{publisher::Publisher, subscriber::Subscriber};
use iceoryx2::prelude::*;
use std::ops::Range;
use std::rc::Rc;

pub const ABOUT: About = About {
    name: "iceoryx2",
    kind: Kind::Peer,
    package: Some("iceoryx2"),
    modes: &[Mode::One],
    round_trip: true,
    records: &[],
    broadcast: |fan| fan.flow == Flow::Wait && fan.way != Way::Batch,
    slip: false,
    aligned: false,
    spins: true,
    how: "`ipc::Service`, publish-subscribe: `loan_uninit` + `send` / `receive`",
};

/// A port, and the node that keeps it alive.
type Tx<J> = (
    Publisher<ipc::Service, <J as Job>::Msg, ()>,
    Node<ipc::Service>,
);
type Service<J> = iceoryx2::service::port_factory::publish_subscribe::PortFactory<
    ipc::Service,
    <J as Job>::Msg,
    (),
>;
type Rx<J> = (
    Subscriber<ipc::Service, <J as Job>::Msg, ()>,
    Node<ipc::Service>,
);

pub fn run<J: Job>(task: Task, run: &Run) -> Sample {
    set_log_level(LogLevel::Fatal);
    // Ports stay on the thread that made them, so each thread makes its own, with its own node.
    match task {
        Task::Stream(_) => duel(
            run,
            || {
                let mut tx = publisher::<J>(run, "there", 1);
                move |range: Range<u64>| range.for_each(|seq| push::<J>(&mut tx, seq))
            },
            || {
                let mut rx = subscriber::<J>(run, "there");
                move |range: Range<u64>| range.fold(0, |bad, seq| bad | pop::<J>(&mut rx, seq))
            },
        ),
        Task::RoundTrip => duel(
            run,
            || {
                let (mut rx, mut tx) = (
                    subscriber::<J>(run, "there"),
                    publisher::<J>(run, "back", 1),
                );
                move |range| answer!(&mut rx, &mut tx, range, push::<J>, pop::<J>)
            },
            || {
                let (mut tx, mut rx) = (
                    publisher::<J>(run, "there", 1),
                    subscriber::<J>(run, "back"),
                );
                move |range| ask!(&mut tx, &mut rx, range, push::<J>, pop::<J>)
            },
        ),
    }
}

/// Returns the service of that name, opened by a node of the calling thread's own. Its files are
/// under the run's directory. Those in `/dev/shm` begin with that directory's name.
fn service<J: Job>(run: &Run, name: &str, readers: usize) -> (Node<ipc::Service>, Service<J>) {
    let prefix = format!(
        "{}-",
        run.dir.file_name().expect("a name").to_string_lossy()
    );
    let mut config = Config::default();
    let root = Path::new(run.dir.as_os_str().as_encoded_bytes()).expect("a short path");
    config.global.set_root_path(&root);
    config.global.prefix = FileName::new(prefix.as_bytes()).expect("a file name");
    let node = NodeBuilder::new()
        .config(&config)
        .create::<ipc::Service>()
        .expect("a node");
    let service = node
        .service_builder(&name.try_into().expect("a service name"))
        .publish_subscribe::<J::Msg>()
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size(run.capacity)
        .max_publishers(1)
        .max_subscribers(readers)
        .open_or_create()
        .expect("a service");
    (node, service)
}

fn publisher<J: Job>(run: &Run, name: &str, readers: usize) -> Tx<J> {
    let (node, service) = service::<J>(run, name, readers);
    let publisher = service
        .publisher_builder()
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()
        .expect("a publisher");
    (publisher, node)
}

fn subscriber<J: Job>(run: &Run, name: &str) -> Rx<J> {
    let (node, service) = service::<J>(run, name, 1);
    let subscriber = service
        .subscriber_builder()
        .buffer_size(run.capacity)
        .create();
    (subscriber.expect("a subscriber"), node)
}

#[inline(always)]
fn push<J: Job>((tx, _): &mut Tx<J>, seq: u64) {
    let mut sample = tx.loan_uninit().expect("a loan");
    J::fill(sample.payload_mut(), seq);
    // SAFETY: the payload was just filled.
    let sample = unsafe { sample.assume_init() };
    sample.send().expect("delivered");
}

#[inline(always)]
fn pop<J: Job>((rx, _): &mut Rx<J>, seq: u64) -> u64 {
    J::check(spin!(rx.receive().expect("a connection")).payload(), seq)
}

pub fn broadcast<J: Job>(fan: Fan, run: &Run) -> Sample {
    set_log_level(LogLevel::Fatal);
    let tx = || publisher::<J>(run, "all", fan.readers);
    let subscribers = || {
        let (node, service) = service::<J>(run, "all", fan.readers);
        let node = Rc::new(node);
        let subscriber = |_| {
            let builder = service.subscriber_builder().buffer_size(run.capacity);
            (builder.create().expect("a subscriber"), Rc::clone(&node))
        };
        (0..fan.readers).map(subscriber).collect::<Vec<_>>()
    };
    let each = |tx: &mut Tx<J>, range: Range<u64>| range.for_each(|seq| push::<J>(tx, seq));
    to_all!(
        fan,
        run,
        (tx, subscribers),
        (push::<J>, take::<J>),
        (each, take::<J>)
    )
}

/// A subscriber, and the node of all of them.
type Reader<J> = (
    Subscriber<ipc::Service, <J as Job>::Msg, ()>,
    Rc<Node<ipc::Service>>,
);

#[inline(always)]
fn take<J: Job>((rx, _): &mut Reader<J>, place: &mut Place) -> bool {
    let Some(sample) = rx.receive().expect("a connection") else {
        return false;
    };
    place.took(J::check(sample.payload(), place.next));
    true
}
