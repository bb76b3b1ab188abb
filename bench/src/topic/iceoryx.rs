//! iceoryx2's round trip: publish-subscribe with the same history, overwriting.

use super::{HISTORY, Row, duelled, pair};
use crate::duel::{Run, duel};
use crate::{answer, ask, spin};
use iceoryx2::node::Node;
use iceoryx2::port::{publisher::Publisher, subscriber::Subscriber};
use iceoryx2::prelude::*;

type Message = [u64; 8];
type Tx = (Publisher<ipc::Service, Message, ()>, Node<ipc::Service>);
type Rx = (Subscriber<ipc::Service, Message, ()>, Node<ipc::Service>);

pub const ROWS: &[Row] = &[pair("trip/iceoryx2", trip)];

fn trip(seconds: f64) -> Result<f64, String> {
    set_log_level(LogLevel::Fatal);
    duelled(seconds, false, |run| {
        duel(
            run,
            || {
                let (mut rx, mut tx) = (subscriber(run, "there"), publisher(run, "back"));
                move |range| answer!(&mut rx, &mut tx, range, push, pop)
            },
            || {
                let (mut tx, mut rx) = (publisher(run, "there"), subscriber(run, "back"));
                move |range| ask!(&mut tx, &mut rx, range, push, pop)
            },
        )
    })
}

type Service =
    iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, Message, ()>;

fn service(run: &Run, name: &str) -> (Node<ipc::Service>, Service) {
    let prefix = format!("topic-bench-{}-", std::process::id());
    let mut config = Config::default();
    let root = Path::new(run.dir.as_os_str().as_encoded_bytes()).expect("a short path");
    config.global.set_root_path(&root);
    config.global.prefix = FileName::new(prefix.as_bytes()).expect("a file name");
    let node = NodeBuilder::new().config(&config);
    let node = node.create::<ipc::Service>().expect("a node");
    let service = node
        .service_builder(&name.try_into().expect("a service name"))
        .publish_subscribe::<Message>()
        .enable_safe_overflow(true)
        .history_size(HISTORY)
        .subscriber_max_buffer_size(HISTORY)
        .max_publishers(1)
        .max_subscribers(1)
        .open_or_create()
        .expect("a service");
    (node, service)
}

fn publisher(run: &Run, name: &str) -> Tx {
    let (node, service) = service(run, name);
    let publisher = service.publisher_builder().create();
    (publisher.expect("a publisher"), node)
}

fn subscriber(run: &Run, name: &str) -> Rx {
    let (node, service) = service(run, name);
    let subscriber = service.subscriber_builder().create();
    (subscriber.expect("a subscriber"), node)
}

#[inline(always)]
fn push((tx, _): &mut Tx, seq: u64) {
    let sample = tx.loan_uninit().expect("a loan");
    let sample = sample.write_payload([seq; 8]);
    sample.send().expect("delivered");
}

#[inline(always)]
fn pop((rx, _): &mut Rx, seq: u64) -> u64 {
    let sample = spin!(rx.receive().expect("a connection"));
    sample
        .payload()
        .iter()
        .fold(0, |bad, word| bad | (word ^ seq))
}
