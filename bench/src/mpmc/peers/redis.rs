//! A Redis list on loopback: producers `LPUSH`, workers sleep in `BRPOP`.
//!
//! The server is started for each run. Each thread has a connection. As is usual, a producer waits for the answer to each
//! push.

use super::About;
use crate::message::Line;
use crate::mpmc::blocking::{Blocking, Ends};
use crate::mpmc::crew::Run;
use crate::redis::{Client, Server};
use std::io::Result as IoResult;
use std::sync::Arc;

pub const ABOUT: About = About {
    name: "Redis",
    package: None,
    streams: false,
    batches: false,
    aligned: true,
    how: "a list on loopback: `LPUSH` / `BRPOP`",
};

/// The start of `LPUSH jobs VALUE`.
const LPUSH: &[u8] = b"*3\r\n$5\r\nLPUSH\r\n$4\r\njobs\r\n";
/// The start of `BRPOP jobs SECONDS`; zero seconds mean no timeout.
const BRPOP: &[u8] = b"*3\r\n$5\r\nBRPOP\r\n$4\r\njobs\r\n";
/// The lines of the answer before the value.
const POPPED: [&[u8]; 3] = [b"*2", b"$4", b"jobs"];

fn push(client: &mut Client, item: Line) -> IoResult<()> {
    let mut value = [0; 64];
    for (bytes, word) in value.as_chunks_mut::<8>().0.iter_mut().zip(item.0) {
        *bytes = word.to_le_bytes();
    }
    client.send(LPUSH, &value)?;
    let answer = client.read_line()?;
    assert!(answer.starts_with(b":"), "{}", answer.escape_ascii());
    Ok(())
}

fn pop(client: &mut Client) -> IoResult<Line> {
    client.send(BRPOP, b"0")?;
    client.expect(&POPPED)?;
    let (words, _) = client.read_value()?.as_chunks::<8>();
    Ok(Line(std::array::from_fn(|i| u64::from_le_bytes(words[i]))))
}

/// A list on a server.
pub struct List;

/// A connection; the server outlives it.
pub struct Handle {
    client: Client,
    _server: Arc<Server>,
}

impl Blocking for List {
    type Tx = Handle;
    type Rx = Handle;

    fn ends(run: &Run) -> Result<Ends<Self>, String> {
        let server = Arc::new(Server::start()?);
        let handle = || {
            let client = server.connect()?;
            let _server = Arc::clone(&server);
            Ok(Handle { client, _server })
        };
        let handles = |count| (0..count).map(|_| handle()).collect::<Result<_, String>>();
        Ok((handles(run.crew.producers)?, handles(run.crew.consumers)?))
    }

    fn push(tx: &mut Handle, item: Line) {
        push(&mut tx.client, item).expect("a server that answers");
    }

    fn pop(rx: &mut Handle) -> Line {
        pop(&mut rx.client).expect("a server that answers")
    }
}
