//! Passes frames through a device's own memory, as a driver would: they are filled there, read there, and never copied.
//!
//! A capture card, say, has memory that the host can map, and fills one buffer of it after another. A queue has two
//! parts, and they may lie anywhere:
//!
//! ```text
//! control   ordinary memory      who has which buffer; all that the queue itself relies on
//! data      the device's memory  the buffers, one after another, and nothing else
//! ```
//!
//! So the queue stays whole whatever is written into the data part, and whenever. A device that goes wrong spoils frames,
//! and breaks nothing else.
//!
//! Here a memfd stands for the device's memory, and a thread for the device:
//!
//! 1. *Map the device's memory* twice: for the device's side to write, and for the host's side only to read. The
//!    processor then holds the host to that.
//! 2. *Make the queue*: the device's side formats it, the host's side attaches to the same control part.
//! 3. *The device* reserves a buffer, fills it in place, and commits it. If it can, it has two transfers under way, and
//!    completes the later one first. The host still gets the frames in the order of reservation.
//! 4. *The host* takes frames out of the queue's hands (`read_owned`) and passes them on to workers, the latest first.
//!    A worker that drops its frame gives the buffer back to the device. The others need not be done.
//! 5. *A worker that cannot use a frame now* gives it back (`keep`). It comes again, and says so (`deliveries`).
//! 6. *The device leaves* by dropping its end. The host is told so once the last frame is out.

use std::cell::UnsafeCell;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags};
use slipring::mpmc::{Builder, Consumer, OwnedMessage, OwnedReservation, Producer};
use slipring::{Borrowed, End, Error, Payload};

const FRAMES: u64 = 2_000;
/// The buffers that may be full at once. A queue has one more in its data part.
const BUFFERS: usize = 8;
/// A worker gives each frame back, the first time, whose number is a multiple of this.
const UNWANTED: u64 = 100;

/// A buffer of the device. Any bytes are a valid one: whatever the device writes, the host reads no nonsense value.
#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Frame {
    number: u64,
    pixels: [u8; 4088],
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let builder = Builder::<Frame>::new(BUFFERS).producers(1).consumers(1);

    // The device's memory, and ordinary memory for the control part. They outlive the queue.
    let data_len = builder.data_len() as usize;
    let memory = memfd_create("device", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, data_len as u64)?;
    let for_device = Mapping::of(&memory, data_len, ProtFlags::READ | ProtFlags::WRITE)?;
    let for_host = Mapping::of(&memory, data_len, ProtFlags::READ)?;
    let control = Control::new(builder.control_len());

    let device_side = Borrowed {
        control: control.bytes(),
        data: for_device.0,
    };
    // SAFETY: both parts are there until `main` returns, and all handles are gone by then.
    let tx = unsafe { builder.format_in(device_side) }?.producer()?;
    let host_side = Borrowed {
        control: control.bytes(),
        data: for_host.0,
    };
    // SAFETY: as above. This side takes a consumer, and a consumer of a queue never writes the data part.
    let rx = unsafe { builder.attach_in(host_side) }?.consumer()?;

    let mut seen = thread::scope(|scope| {
        let device = scope.spawn(|| device(tx));
        let seen = host(rx);
        match device.join() {
            Ok(left) => left.map_err(Failure::from).and(seen),
            Err(_) => Err("the device's thread panicked".into()),
        }
    })?;

    seen.numbers.sort_unstable();
    assert!(seen.numbers.iter().copied().eq(0..FRAMES)); // each frame once
    assert!(seen.overtook > 0);
    assert_eq!(seen.again, FRAMES / UNWANTED);
    println!(
        "{} frames of {} bytes, filled and read in the device's memory; {} passed on before an earlier one, {} given back \
         and read again",
        seen.numbers.len(),
        size_of::<Frame>(),
        seen.overtook,
        seen.again,
    );
    Ok(())
}

/// The device: fills buffers of its own memory.
fn device(mut tx: Producer<Frame>) -> Result<(), Error> {
    let mut numbers = 0..FRAMES;
    while let Some(number) = numbers.next() {
        // Waits until a buffer is free.
        let earlier = tx.reserve_owned(1)?;
        // Does not wait for a second one: the host gets nothing that was reserved after `earlier` until that is complete.
        let later = tx.try_reserve_owned(1).ok();
        if let Some((buffer, number)) = later.and_then(|buffer| Some((buffer, numbers.next()?))) {
            transfer(buffer, number);
        }
        transfer(earlier, number);
    }
    Ok(()) // dropping `tx` ends the stream
}

/// One transfer into a buffer. If it failed, dropping `buffer` would give the buffer up, and the host would not see it.
fn transfer(mut buffer: OwnedReservation<Frame>, number: u64) {
    for frame in buffer.as_mut_slices().0 {
        frame.number = number;
        frame.pixels.fill(number as u8);
    }
    buffer.commit(1);
}

/// What the host did with the frames.
#[derive(Default)]
struct Seen {
    numbers: Vec<u64>,
    /// The number of frames that were passed on before an earlier one.
    overtook: usize,
    /// The number of frames that came again.
    again: u64,
}

/// The host: passes the frames on to two workers.
fn host(mut rx: Consumer<Frame>) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    thread::scope(|scope| {
        let workers = [(); 2].map(|()| {
            let (frames, taken) = mpsc::channel();
            (frames, scope.spawn(move || work(taken)))
        });
        let ended = loop {
            // Waits for a frame, and takes what else is there. Each is a buffer that the device cannot use meanwhile.
            let mut frames = match rx.read_owned() {
                Ok(frame) => vec![frame],
                Err(error) => break error,
            };
            while frames.len() < BUFFERS / 2
                && let Ok(frame) = rx.try_read_owned()
            {
                frames.push(frame);
            }
            seen.overtook += frames.len() - 1;
            for (turn, frame) in frames.into_iter().rev().enumerate() {
                let sent = workers[turn % 2].0.send(frame);
                sent.map_err(|_| "a worker panicked")?;
            }
        };
        assert_eq!(ended, Error::Disconnected(End::Finished));
        for (frames, worker) in workers {
            drop(frames); // no more
            let (numbers, again) = worker.join().map_err(|_| "a worker panicked")?;
            seen.numbers.extend(numbers);
            seen.again += again;
        }
        Ok(seen)
    })
}

/// A worker: looks at each frame where it lies. Returns the numbers of those it used, and how many had come again.
fn work(frames: mpsc::Receiver<OwnedMessage<Frame>>) -> (Vec<u64>, u64) {
    let (mut numbers, mut again) = (Vec::new(), 0);
    for frame in frames {
        if frame.number.is_multiple_of(UNWANTED) && frame.deliveries() == 0 {
            frame.keep(); // to be taken again
            continue;
        }
        let pixel = frame.number as u8;
        assert!(frame.pixels.iter().all(|found| *found == pixel));
        numbers.push(frame.number);
        again += u64::from(frame.deliveries());
    } // dropping a frame gives its buffer back to the device
    (numbers, again)
}

/// A mapping of the device's memory. Unmapped when dropped.
struct Mapping(NonNull<[u8]>);

impl Mapping {
    fn of(memory: &OwnedFd, len: usize, protection: ProtFlags) -> Result<Mapping, Failure> {
        let place = std::ptr::null_mut();
        // SAFETY: a fresh mapping, at an address of the kernel's choice.
        let base = unsafe { rustix::mm::mmap(place, len, protection, MapFlags::SHARED, memory, 0) };
        let base = NonNull::new(base?.cast()).ok_or("mapped at address 0")?;
        Ok(Mapping(NonNull::slice_from_raw_parts(base, len)))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of a mapping of ours, which nobody uses any more.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), self.0.len()) };
    }
}

/// Memory for the control part: at a multiple of 128 bytes, and zero.
struct Control(Box<[Line]>);

#[repr(C, align(128))]
struct Line(UnsafeCell<[u8; 128]>);

impl Control {
    fn new(len: usize) -> Control {
        let line = |_| Line(UnsafeCell::new([0; 128]));
        Control((0..len.div_ceil(128)).map(line).collect())
    }

    fn bytes(&self) -> NonNull<[u8]> {
        let len = size_of_val(&*self.0);
        NonNull::slice_from_raw_parts(NonNull::from(&*self.0).cast(), len)
    }
}
