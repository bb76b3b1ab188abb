//! Passes camera frames of varying size, written and read in place: the only copy is the one that
//! fills the frame.

use slipring::{Error, SetupError, bytes};

const FRAMES: u64 = 300;
const LARGEST: usize = 1920 * 1080 * 3;

fn main() -> Result<(), SetupError> {
    let builder = bytes::Builder::new(32 << 20).max_record(LARGEST);
    let (mut tx, mut rx) = builder.channel_pair()?;

    let camera = std::thread::spawn(move || -> Result<(), Error> {
        for number in 0..FRAMES {
            let mut frame = tx.reserve(LARGEST)?; // at its largest size
            let size = LARGEST / 2 + (number as usize * 7919) % (LARGEST / 2);
            frame[..size].fill(number as u8);
            frame[..8].copy_from_slice(&number.to_le_bytes());
            frame.commit(size); // at its real one
        }
        Ok(()) // dropping `tx` ends the stream
    });

    let mut bytes = 0;
    let mut expected = 0;
    let end = loop {
        match rx.read() {
            Ok(frame) => {
                assert_eq!(frame[..8], u64::to_le_bytes(expected));
                assert_eq!(frame.last(), Some(&(expected as u8)));
                bytes += frame.len();
                expected += 1;
            } // dropping `frame` releases it
            Err(Error::Disconnected(end)) => break end,
            Err(error) => return Err(error.into()),
        }
    };
    println!("{expected} frames, {} MiB; the camera {end}", bytes >> 20);
    assert_eq!(expected, FRAMES);
    assert!(matches!(camera.join(), Ok(Ok(()))));
    Ok(())
}
