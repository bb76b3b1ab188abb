//! A queue whose data part anybody writes into at any time. The messages are garbage then, and the queue is whole: each
//! message is delivered once, in order, nobody hangs, and the end is reported.
//!
//! The control part is this process's own memory. The data part is a mapping of a memfd. Another process maps the same
//! memfd, and writes random bytes all over it while threads pass messages: as a device would, or a program gone wrong.
//!
//! The payloads cannot tell which message is which. So each slot has a *tag* in this process's own memory: the producer
//! that has reserved the slot stores the message's number there, and the consumer that has taken it finds the number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags};
use slipring::inspect::Stat;
use slipring::mpmc::{Builder, Consumer, Mpmc, Producer, records};
use slipring::{Borrowed, Channel, End, Error, Kind, Role};
use slipring_tests::room::PATIENCE;
use slipring_tests::{Peer, Room};

/// Any bytes are one.
type Packet = [u64; 4];

const CAPACITY: usize = 64;
const PRODUCERS: u64 = 2;
const CONSUMERS: usize = 3;
/// A run goes on until so many messages were committed,
const MESSAGES: u64 = 20_000;
/// and so many of them came out otherwise than they were written.
const GARBLED: u64 = 200;

/// A mapping of shared memory. Unmapped when dropped.
struct Mapping(NonNull<[u8]>);

// SAFETY: an address range; the channel in it is responsible for what happens there.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of(file: &OwnedFd, len: usize) -> Mapping {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let place = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { rustix::mm::mmap(place, len, protection, MapFlags::SHARED, file, 0) };
        let base = NonNull::new(base.unwrap().cast()).unwrap();
        Mapping(NonNull::slice_from_raw_parts(base, len))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of a mapping of ours. The tests drop it after the handles.
        unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), self.0.len()) }.unwrap();
    }
}

fn memfd(len: usize) -> OwnedFd {
    let file = memfd_create("scribbled", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len as u64).unwrap();
    file
}

/// A queue with its data part under a stranger's pen.
struct Scene<K: Kind = Mpmc<Packet>> {
    // Dropped in this order: the channel before its memory.
    channel: Channel<K>,
    data: Mapping,
    _control: Mapping,
    stranger: Peer,
    _room: Room,
    tags: Box<[AtomicU64]>,
    committed: AtomicU64,
    garbled: AtomicU64,
    /// Tells the producers to leave.
    enough: AtomicBool,
}

/// The tag of a slot that holds no message.
const NONE: u64 = u64::MAX;

impl<K: Kind> Scene<K> {
    fn new(builder: &slipring::Builder<K>) -> Scene<K> {
        let room = Room::new(env!("CARGO_BIN_EXE_peer"));
        let (control_file, data_file) = (
            memfd(builder.control_len()),
            memfd(builder.data_len() as usize),
        );
        let control = Mapping::of(&control_file, builder.control_len());
        let data = Mapping::of(&data_file, builder.data_len() as usize);
        let memory = Borrowed {
            control: control.0,
            data: data.0,
        };
        // SAFETY: both parts are mapped until the channel is dropped. Another process writes the data part, which only
        // changes payloads, of which any bits are valid.
        let channel = unsafe { builder.format_in(memory) }.unwrap();
        let mut stranger = room.peer_with(&[data_file.as_fd()]);
        stranger.ok(&format!("scribble {} 7", data_file.as_raw_fd()));
        let tags = (0..channel.geometry().slots()).map(|_| AtomicU64::new(NONE));
        Scene {
            tags: tags.collect(),
            channel,
            data,
            _control: control,
            stranger,
            _room: room,
            committed: AtomicU64::new(0),
            garbled: AtomicU64::new(0),
            enough: AtomicBool::new(false),
        }
    }

    /// Returns the tag of the slot at this address.
    fn tag<T>(&self, slot: *const T) -> &AtomicU64 {
        let offset = slot.addr() - self.data.0.cast::<u8>().as_ptr().addr();
        let slot_size = self.channel.geometry().slot_size as usize;
        assert!(offset.is_multiple_of(slot_size));
        &self.tags[offset / slot_size]
    }

    /// Counts a message if it is not the one that was written.
    fn compare(&self, found: Packet, number: u64) {
        let garbled = found != packet(number);
        // Relaxed, here and below: figures.
        self.garbled
            .fetch_add(u64::from(garbled), Ordering::Relaxed);
    }

    /// Runs producers and consumers until enough has happened. Returns the numbers that the producers committed, and those
    /// that the consumers took.
    fn run(
        &mut self,
        produce: impl Fn(&Scene<K>, slipring::Producer<K>, u64) -> Vec<u64> + Sync,
        consume: impl Fn(&Scene<K>, slipring::Consumer<K>) -> Vec<u64> + Sync,
    ) -> (Vec<u64>, Vec<u64>) {
        let (scene, produce, consume) = (&*self, &produce, &consume);
        // All seats are taken before anybody starts: a consumer that came late would find the end.
        let txs: Vec<_> = (0..PRODUCERS)
            .map(|_| scene.channel.producer().unwrap())
            .collect();
        let rxs: Vec<_> = (0..CONSUMERS)
            .map(|_| scene.channel.consumer().unwrap())
            .collect();
        let (sent, got) = thread::scope(|scope| {
            let enough = Enough(&scene.enough);
            let txs: Vec<_> = (0..)
                .zip(txs)
                .map(|(index, tx)| scope.spawn(move || produce(scene, tx, index)))
                .collect();
            let rxs: Vec<_> = rxs
                .into_iter()
                .map(|rx| scope.spawn(move || consume(scene, rx)))
                .collect();
            let mut last = sums(&scene.channel.stat().unwrap());
            let any_ended = || {
                let ended = |handle: &thread::ScopedJoinHandle<'_, _>| handle.is_finished();
                txs.iter().any(ended) || rxs.iter().any(ended)
            };
            while scene.committed.load(Ordering::Relaxed) < MESSAGES
                || scene.garbled.load(Ordering::Relaxed) < GARBLED
            {
                assert!(!any_ended(), "a thread ended before its time");
                last = looked(&scene.channel, last);
            }
            drop(enough);
            let join = |handles: Vec<thread::ScopedJoinHandle<'_, Vec<u64>>>| {
                let results = handles.into_iter().map(|handle| handle.join().unwrap());
                results.flatten().collect::<Vec<_>>()
            };
            (join(txs), join(rxs))
        });
        let written = self.stranger.number("stop");
        assert!(written > 0);
        println!(
            "{} messages, {} garbled, {written} bytes scribbled",
            sent.len(),
            self.garbled.load(Ordering::Relaxed),
        );
        // The control part knows: nothing is left, and each message was committed once and released once.
        let stat = self.channel.stat().unwrap();
        assert_eq!(stat.len, 0);
        assert_eq!(sums(&stat), [sent.len() as u64; 2]);
        (sent, got)
    }
}

impl Scene {
    /// Checks that intact messages pass now that the stranger has gone.
    fn passes_intact(&self) {
        let mut tx = self.channel.producer().unwrap();
        let mut rx = self.channel.consumer().unwrap();
        for number in 0..1000 {
            tx.push(packet(number)).unwrap();
            assert_eq!(rx.pop(), Ok(packet(number)));
        }
        drop(tx);
        assert_eq!(rx.pop(), Err(Error::Disconnected(End::Finished)));
    }
}

/// Tells the producers to leave when it is dropped, also by a failing assertion.
struct Enough<'s>(&'s AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        // Relaxed: nothing is read that this orders.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the message of this number, as a producer writes it.
fn packet(number: u64) -> Packet {
    std::array::from_fn(|word| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word as u64)
}

/// Returns the numbers of messages that the two sides have finished with.
fn sums(stat: &Stat) -> [u64; 2] {
    [Role::Producer, Role::Consumer].map(|role| {
        let seats = stat.seats.iter().filter(|seat| seat.role == role);
        seats.map(|seat| seat.position).sum()
    })
}

/// Looks at the channel from outside: that never fails, and what it tells is possible.
fn looked<K: Kind>(channel: &Channel<K>, last: [u64; 2]) -> [u64; 2] {
    let stat = channel.stat().expect("a look from outside");
    let now = sums(&stat);
    assert!(stat.len <= stat.geometry.capacity);
    assert!(now[0] >= last[0] && now[1] >= last[1], "{last:?}, {now:?}");
    now
}

/// Reserves runs of slots, and writes the messages in place.
fn produce_in_place(scene: &Scene, mut tx: Producer<Packet>, index: u64) -> Vec<u64> {
    let mut sent = Vec::new();
    let mut numbers = index << 32..;
    while !scene.enough.load(Ordering::Relaxed) {
        let amount = 1 + sent.len() % 3;
        let mut run = tx.reserve_timeout(amount, PATIENCE).unwrap();
        // Only the addresses of the slots: a reference to their bytes would promise that nobody changes them.
        let (front, back) = run.as_mut_slices();
        let (front, back) = (front.as_mut_ptr_range(), back.as_mut_ptr_range());
        let slots =
            [front, back].map(|part| (part.start, (part.end.addr() - part.start.addr()) / 32));
        let mut at = 0;
        for (first, count) in slots {
            for step in 0..count {
                let number = numbers.next().unwrap();
                run.write(at, packet(number));
                // Relaxed: the queue orders it, by the commit.
                let before = scene
                    .tag(first.wrapping_add(step))
                    .swap(number, Ordering::Relaxed);
                assert_eq!(before, NONE, "a slot that still holds a message");
                sent.push(number);
                at += 1;
            }
        }
        assert_eq!(at, amount);
        run.commit(amount);
        scene.committed.fetch_add(amount as u64, Ordering::Relaxed);
    }
    sent
}

/// Reads messages in place. Gives some back, and has several others in hand at once.
fn consume_in_place(scene: &Scene, mut rx: Consumer<Packet>) -> Vec<u64> {
    let mut got = Vec::new();
    let mut latest = [None; PRODUCERS as usize];
    loop {
        let ended = match got.len() % 5 {
            4 => take_several(scene, &mut rx, &mut got, &mut latest),
            _ => take_one(scene, &mut rx, &mut got, &mut latest),
        };
        match ended {
            Ok(()) => {}
            Err(Error::Disconnected(End::Finished)) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads a message, and gives it back if it is the first delivery of one of every seven.
fn take_one(
    scene: &Scene,
    rx: &mut Consumer<Packet>,
    got: &mut Vec<u64>,
    latest: &mut [Option<u64>],
) -> Result<(), Error> {
    let message = rx.read_timeout(PATIENCE)?;
    let tag = scene.tag(&raw const *message);
    // Relaxed: the queue orders it, by the commit.
    let number = tag.load(Ordering::Relaxed);
    if number % 7 == 3 && message.deliveries() == 0 {
        message.keep();
        return Ok(());
    }
    // SAFETY: a held message, read as memory that others change.
    scene.compare(unsafe { (&raw const *message).read_volatile() }, number);
    assert_eq!(tag.swap(NONE, Ordering::Relaxed), number);
    took(got, latest, number, message.deliveries());
    message.release();
    Ok(())
}

/// Takes up to three messages out of the consumer's hands, and releases them in the opposite order.
fn take_several(
    scene: &Scene,
    rx: &mut Consumer<Packet>,
    got: &mut Vec<u64>,
    latest: &mut [Option<u64>],
) -> Result<(), Error> {
    // Only the first is waited for: a producer may wait until the held ones are out of its way.
    let mut held = vec![rx.read_owned_timeout(PATIENCE)?];
    held.extend(rx.try_read_owned());
    held.extend(rx.try_read_owned());
    for message in &held {
        let number = scene
            .tag(&raw const **message)
            .swap(NONE, Ordering::Relaxed);
        // SAFETY: as in `take_one`.
        scene.compare(unsafe { (&raw const **message).read_volatile() }, number);
        took(got, latest, number, message.deliveries());
    }
    held.into_iter().rev().for_each(drop);
    Ok(())
}

/// Notes that a consumer took this message, which had been delivered `deliveries` times before.
fn took(got: &mut Vec<u64>, latest: &mut [Option<u64>], number: u64, deliveries: u32) {
    assert_ne!(number, NONE, "a message that nobody committed");
    // `take_several` gives none back.
    assert!(deliveries <= 1 && (deliveries == 0 || number % 7 == 3));
    if deliveries == 0 {
        let latest = &mut latest[(number >> 32) as usize];
        assert!(*latest < Some(number), "{latest:?} before {number}");
        *latest = Some(number);
    }
    got.push(number);
}

/// Each message is delivered to one consumer, in the order of its producer, though a stranger writes into it.
#[test]
fn scribbled_messages_come_once() {
    let mut scene = Scene::new(&Builder::new(CAPACITY));
    let (mut sent, mut got) = scene.run(produce_in_place, consume_in_place);
    sent.sort_unstable();
    got.sort_unstable();
    assert!(sent == got, "{} sent, {} taken", sent.len(), got.len());
    scene.passes_intact();
}

/// As many messages are copied out as were copied in, by each of the verbs.
#[test]
fn scribbled_copies_are_counted() {
    let produce = |scene: &Scene, mut tx: Producer<Packet>, _: u64| {
        let mut sent = 0;
        while !scene.enough.load(Ordering::Relaxed) {
            let count = if sent % 3 == 0 { 5 } else { 1 };
            match count {
                1 => tx.push_timeout(packet(0), PATIENCE).unwrap(),
                _ => tx.push_slice_timeout(&[packet(0); 5], PATIENCE).unwrap(),
            }
            sent += count;
            scene.committed.fetch_add(count, Ordering::Relaxed);
        }
        vec![0; sent as usize]
    };
    let consume = |scene: &Scene, mut rx: Consumer<Packet>| {
        let (mut got, mut out) = (0, [packet(0); 4]);
        loop {
            let count = match got % 3 {
                0 => rx.pop_slice_timeout(&mut out, PATIENCE),
                _ => rx.pop_timeout(PATIENCE).map(|message| {
                    out[0] = message;
                    1
                }),
            };
            match count {
                Ok(count) => {
                    assert_eq!(rx.deliveries(), 0);
                    out[..count]
                        .iter()
                        .for_each(|message| scene.compare(*message, 0));
                    got += count;
                }
                Err(Error::Disconnected(End::Finished)) => return vec![0; got],
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut scene = Scene::new(&Builder::new(CAPACITY));
    let (sent, got) = scene.run(produce, consume);
    assert_eq!(sent.len(), got.len());
    scene.passes_intact();
}

/// Returns the length of the record of this number: from 0 to that of a packet.
fn length(number: u64) -> usize {
    (number % 33) as usize
}

/// Reserves records, one at a time or two, and writes them in place.
fn produce_records(
    scene: &Scene<records::Records>,
    mut tx: records::Producer,
    index: u64,
) -> Vec<u64> {
    let mut sent = Vec::new();
    let mut numbers = index << 32..;
    while !scene.enough.load(Ordering::Relaxed) {
        // Only the first is waited for: as in `take_several`.
        let mut spaces = vec![tx.reserve_owned_timeout(32, PATIENCE).unwrap()];
        spaces.extend(tx.try_reserve_owned(32));
        for mut space in spaces {
            let number = numbers.next().unwrap();
            let slot = space.as_mut_ptr();
            for (at, byte) in packet_bytes(number).take(length(number)).enumerate() {
                // SAFETY: reserved, and 32 bytes long; written as memory that others change.
                let place = unsafe { slot.add(at) };
                // SAFETY: as above.
                unsafe { place.write_volatile(byte) };
            }
            // Relaxed: the queue orders it, by the commit.
            let before = scene.tag(slot).swap(number, Ordering::Relaxed);
            assert_eq!(before, NONE, "a slot that still holds a record");
            space.commit(length(number));
            sent.push(number);
            scene.committed.fetch_add(1, Ordering::Relaxed);
        }
    }
    sent
}

fn packet_bytes(number: u64) -> impl Iterator<Item = u8> {
    packet(number).into_iter().flat_map(u64::to_ne_bytes)
}

/// Reads records in place: one, which may be given back, or several at once. Their lengths are right, whatever lies in
/// them.
fn consume_records(scene: &Scene<records::Records>, mut rx: records::Consumer) -> Vec<u64> {
    let mut got = Vec::new();
    loop {
        let taken = match got.len() % 2 {
            0 => rx.read_timeout(PATIENCE).map(|record| {
                let number = number_of(scene, &record, record.deliveries());
                if number % 7 == 3 && record.deliveries() == 0 {
                    record.keep();
                } else {
                    finish_with(scene, &record, number);
                    got.push(number);
                    record.release();
                }
            }),
            _ => rx.read_owned_timeout(PATIENCE).map(|record| {
                let mut held = vec![record];
                held.extend(rx.try_read_owned());
                for record in held.into_iter().rev() {
                    let number = number_of(scene, &record, record.deliveries());
                    finish_with(scene, &record, number);
                    got.push(number);
                }
            }),
        };
        match taken {
            Ok(()) => {}
            Err(Error::Disconnected(End::Finished)) => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns the number of a record in hand, whose length is the one that was committed.
fn number_of(scene: &Scene<records::Records>, record: &[u8], deliveries: u32) -> u64 {
    // Relaxed: the queue orders it, by the commit.
    let number = scene.tag(record.as_ptr()).load(Ordering::Relaxed);
    assert_ne!(number, NONE, "a record that nobody committed");
    assert_eq!(record.len(), length(number));
    assert!(deliveries <= 1 && (deliveries == 0 || number % 7 == 3));
    number
}

/// Takes the tag off a record that is about to be released, and counts it if it is not the one that was written.
fn finish_with(scene: &Scene<records::Records>, record: &[u8], number: u64) {
    let garbled = packet_bytes(number).zip(0..record.len()).any(|(byte, at)| {
        // SAFETY: a held record, read as memory that others change.
        let place = unsafe { record.as_ptr().add(at) };
        // SAFETY: as above.
        byte != unsafe { place.read_volatile() }
    });
    scene
        .garbled
        .fetch_add(u64::from(garbled), Ordering::Relaxed);
    let before = scene.tag(record.as_ptr()).swap(NONE, Ordering::Relaxed);
    assert_eq!(before, number);
}

/// Each record is delivered to one consumer, at its length, though a stranger writes into it: lengths lie in control.
#[test]
fn scribbled_records_come_once() {
    let mut scene = Scene::new(&records::Builder::new(CAPACITY, size_of::<Packet>()));
    let (mut sent, mut got) = scene.run(produce_records, consume_records);
    sent.sort_unstable();
    got.sort_unstable();
    assert!(sent == got, "{} sent, {} taken", sent.len(), got.len());
    let (mut tx, mut rx) = (
        scene.channel.producer().unwrap(),
        scene.channel.consumer().unwrap(),
    );
    for number in 0..1000 {
        let record: Vec<u8> = packet_bytes(number).take(length(number)).collect();
        tx.push(&record).unwrap();
        assert_eq!(rx.read().unwrap()[..], record);
    }
}
