//! Changes arbitrary words at any time while two publishers and two subscribers of a topic are in use, of values or of
//! records: the head, entries, pins, the gating set, seats, and the headers of slots change under live handles.
#![no_main]

#[path = "../../../crates/slipring/tests/memory/mod.rs"]
mod memory;

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slipring::topic::{self, OwnedSample, Seek};
use slipring::{Builder, Channel, Consumer, Producer, TopicKind};
use slipring_core::layout::{HEAD, RolePage};

use memory::Memory;
use memory::calls::{is_typed, sum, use_topic, use_topic_records};

#[derive(Arbitrary, Debug)]
enum Place {
    Head,
    GatingSet,
    Entry(u8),
    Pin(bool, u8),
    Position(u8),
    Seat(u8, u8),
    /// A word of the header of this slot.
    Slot(u8, u8),
}

#[derive(Arbitrary, Debug)]
enum Change {
    Set(u64),
    Add(i8),
    Flip(u8),
}

impl Change {
    fn of(&self, before: u64) -> u64 {
        match *self {
            Change::Set(value) => value,
            Change::Add(more) => before.wrapping_add_signed(more.into()),
            Change::Flip(bit) => before ^ 1 << (bit % 64),
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Word(Place, Change),
    Push(bool, u8),
    Reserve(bool, u8, u8),
    Read(bool, bool),
    Pop(bool),
    Latest(bool, u8),
    /// Keeps a message for later steps.
    Hold(bool),
    LetGo(u8),
    Seek(bool, u64),
    Trim(bool, u8),
    Everything,
    Rejoin,
}

/// The verbs that topics of values and of records have by the same names, and other arguments.
trait Verbs: TopicKind + Sized {
    fn push(tx: &mut Producer<Self>, len: u8);
    fn reserve(tx: &mut Producer<Self>, len: u8, commit: u8);
    fn read(rx: &mut Consumer<Self>, keep: bool);
    fn pop(rx: &mut Consumer<Self>);
    fn look(content: &Self::Content) -> u64;
    fn everything(txs: &mut [Producer<Self>], rxs: &mut [Consumer<Self>]);
}

impl Verbs for topic::Topic<u64> {
    fn push(tx: &mut Producer<Self>, len: u8) {
        is_typed(tx.try_push_slice(&[7; 8][..usize::from(len % 8)]), "push");
    }

    fn reserve(tx: &mut Producer<Self>, len: u8, commit: u8) {
        let commit = usize::from(commit.min(len));
        is_typed(
            tx.try_reserve(len.into()).map(|slots| slots.commit(commit)),
            "reserve",
        );
    }

    fn read(rx: &mut Consumer<Self>, keep: bool) {
        let read = rx.try_read().map(|message| {
            let value = (*message, message.origin());
            if keep {
                message.keep();
            }
            value
        });
        is_typed(read, "read");
    }

    fn pop(rx: &mut Consumer<Self>) {
        is_typed(rx.try_pop_slice(&mut [0; 3]), "pop");
    }

    fn look(content: &u64) -> u64 {
        *content
    }

    fn everything(txs: &mut [Producer<Self>], rxs: &mut [Consumer<Self>]) {
        use_topic(txs, rxs, "everything");
    }
}

impl Verbs for topic::records::Records {
    fn push(tx: &mut Producer<Self>, len: u8) {
        is_typed(tx.try_push(&[7; 256][..usize::from(len)]), "push");
    }

    fn reserve(tx: &mut Producer<Self>, len: u8, commit: u8) {
        let reserved = tx.try_reserve(len.into()).map(|mut record| {
            record.fill(9);
            record.commit(usize::from(commit.min(len)));
        });
        is_typed(reserved, "reserve");
    }

    fn read(rx: &mut Consumer<Self>, keep: bool) {
        let read = rx.try_read().map(|record| {
            assert!(record.len() <= 64);
            let sum = sum(&record);
            if keep {
                record.keep();
            }
            sum
        });
        is_typed(read, "read");
    }

    fn pop(rx: &mut Consumer<Self>) {
        is_typed(rx.try_pop(&mut [0; 64]), "pop");
    }

    fn look(content: &[u8]) -> u64 {
        assert!(content.len() <= 64);
        sum(content)
    }

    fn everything(txs: &mut [Producer<Self>], rxs: &mut [Consumer<Self>]) {
        use_topic_records(txs, rxs, "everything");
    }
}

fuzz_target!(|input: (bool, bool, Vec<Step>)| {
    let (records, alone, steps) = input;
    // One publisher alone stores where several compare and exchange.
    let publishers = if alone { 1 } else { 2 };
    match records {
        true => run(
            topic::records::Builder::new(4, 64).pool(11),
            publishers,
            &steps,
        ),
        false => run(topic::Builder::<u64>::new(4).pool(11), publishers, &steps),
    }
});

fn ends<K: Verbs>(
    channel: &Channel<K>,
    publishers: usize,
) -> Option<(Vec<Producer<K>>, Vec<Consumer<K>>)> {
    let txs = (0..publishers)
        .map(|_| channel.producer().ok())
        .collect::<Option<_>>();
    let rxs = (0..2)
        .map(|_| channel.consumer().ok())
        .collect::<Option<_>>();
    txs.zip(rxs)
}

fn run<K: Verbs>(builder: Builder<K>, publishers: usize, steps: &[Step]) {
    let builder = builder
        .producers(publishers)
        .consumers(2)
        .held(2)
        .join(Seek::Oldest);
    let memory = Memory::of(&builder);
    let channel = memory.format(&builder).expect("zeroed memory");
    let geometry = channel.geometry();
    let (mut txs, mut rxs) = ends(&channel, publishers).expect("a fresh channel");
    let mut held: Vec<OwnedSample<K>> = Vec::new();
    for step in steps.iter().take(64) {
        let tx = |which: bool| usize::from(which) % publishers;
        let rx = usize::from;
        match *step {
            Step::Word(ref place, ref change) => {
                let page = |seat: usize| geometry.role_offset(publishers + seat);
                let seats = geometry.seats();
                let word = match *place {
                    Place::Head => memory.control(HEAD),
                    Place::GatingSet => memory.control(768),
                    Place::Entry(entry) => {
                        memory.control(geometry.claims_offset() + usize::from(entry % 4) * 8)
                    }
                    Place::Pin(which, word) => memory.control(
                        page(rx(which)) + offset_of!(RolePage, pins) + usize::from(word % 4) * 8,
                    ),
                    Place::Position(seat) => memory.position(&geometry, usize::from(seat) % seats),
                    Place::Seat(seat, word) => {
                        memory.seat(usize::from(seat) % seats, usize::from(word) % 16 * 8)
                    }
                    Place::Slot(slot, word) => {
                        let slot = u64::from(slot) % geometry.slots() * geometry.stride();
                        memory.change_data(slot as usize + usize::from(word % 4) * 8, |before| {
                            change.of(before)
                        });
                        continue;
                    }
                };
                word.store(change.of(word.load(Ordering::Relaxed)), Ordering::Relaxed);
            }
            Step::Push(which, len) => K::push(&mut txs[tx(which)], len),
            Step::Reserve(which, len, commit) => K::reserve(&mut txs[tx(which)], len, commit),
            Step::Read(which, keep) => K::read(&mut rxs[rx(which)], keep),
            Step::Pop(which) => K::pop(&mut rxs[rx(which)]),
            Step::Latest(which, back) => {
                let sample = rxs[rx(which)].nth_latest(usize::from(back) % 6);
                is_typed(
                    sample.map(|sample| (K::look(&sample), sample.origin())),
                    "latest",
                );
            }
            Step::Hold(which) => match rxs[rx(which)].try_read_owned() {
                Ok(sample) => held.push(sample),
                failed => is_typed(failed.map(drop), "hold"),
            },
            Step::LetGo(which) if !held.is_empty() => {
                let sample = held.swap_remove(usize::from(which) % held.len());
                K::look(&sample);
            }
            Step::LetGo(_) => {}
            Step::Seek(which, to) => {
                is_typed(rxs[rx(which)].seek(Seek::To(to)), "seek");
            }
            Step::Trim(which, keep) => txs[tx(which)].trim(keep.into()),
            Step::Everything => K::everything(&mut txs, &mut rxs),
            Step::Rejoin => {
                drop((txs, rxs));
                held.clear();
                for seat in 0..geometry.seats() {
                    memory.seat(seat, 8).store(0, Ordering::Relaxed);
                }
                let Some(both) = ends(&channel, publishers) else {
                    memory.assert_fences_stand();
                    return;
                };
                (txs, rxs) = both;
            }
        }
    }
    drop((held, txs, rxs));
    memory.assert_fences_stand();
}
