//! Feeds a tokio task from a plain thread, as from a market feed with a core of its own. The thread
//! knows nothing of tokio, and makes a system call only when the task sleeps.

use slipring::{End, Error, spsc};

const MESSAGES: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut tx, rx) = spsc::channel::<u64>(1024)?;
    let feed = std::thread::spawn(move || (1..=MESSAGES).try_for_each(|number| tx.push(number)));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let sum = runtime.block_on(async { tokio::spawn(sum(rx)).await })??;

    feed.join().map_err(|_| "the feed panicked")??;
    assert_eq!(sum, MESSAGES * (MESSAGES + 1) / 2);
    println!("{MESSAGES} messages, their sum {sum}");
    Ok(())
}

async fn sum(mut rx: spsc::Consumer<u64>) -> Result<u64, Error> {
    rx.on_tokio()?; // else a helper thread of slipring's wakes this task
    let mut sum = 0;
    loop {
        // This takes all available messages, in place.
        match rx.read_batch_async(256).await {
            Ok(messages) => sum += messages.iter().sum::<u64>(),
            Err(Error::Disconnected(End::Finished)) => return Ok(sum),
            Err(error) => return Err(error),
        }
    }
}
