//! A Redis list on loopback: producers `LPUSH`, workers sleep in `BRPOP`.
//!
//! The server is started for each run, on a free port, in a directory of its own, and keeps nothing
//! on disk. Each thread has a connection. As is usual, a producer waits for the answer to each push.

use super::About;
use crate::message::Line;
use crate::mpmc::blocking::{Blocking, Ends};
use crate::mpmc::crew::Run;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const ABOUT: About = About {
    name: "Redis",
    package: None,
    streams: false,
    batches: false,
    aligned: true,
    how: "a list on loopback: `LPUSH` / `BRPOP`",
};

/// Returns an error that says how to install the server, if it is not installed.
pub fn installed() -> Result<(), String> {
    let answer = Command::new("redis-server").arg("--version").output();
    match answer {
        Ok(_) => Ok(()),
        Err(e) => Err(format!(
            "redis-server cannot be started ({e}): `apt-get install redis-server`"
        )),
    }
}

/// Returns the directory of the server that the process `pid` starts.
pub fn directory(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("slipring-bench-redis-{pid}"))
}

/// A running server; it ends with the last handle.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Server, String> {
        installed()?;
        let told = |e: std::io::Error| format!("cannot start redis-server: {e}");
        let dir = directory(std::process::id());
        std::fs::create_dir_all(&dir).map_err(told)?;
        // The port is free again when the listener is dropped.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(told)?;
        let port = listener.local_addr().map_err(told)?.port();
        drop(listener);
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--daemonize", "no", "--port", &port.to_string(), "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let die_with_parent = || {
            // SAFETY: takes a signal's number; changes nothing but the child's own setting.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: the closure makes one system call, and allocates nothing.
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.spawn().map_err(told)?;
        let server = Server { child, port };
        let patience = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if patience.elapsed() > Duration::from_secs(5) {
                return Err("redis-server does not answer within 5 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop, and nothing to wait for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(directory(std::process::id()));
    }
}

/// One connection, and the buffer for a command.
pub struct Client {
    from: BufReader<TcpStream>,
    to: TcpStream,
    line: Vec<u8>,
    _server: Arc<Server>,
}

/// The start of `LPUSH jobs VALUE` with a value of 64 bytes.
const LPUSH: &[u8] = b"*3\r\n$5\r\nLPUSH\r\n$4\r\njobs\r\n$64\r\n";
/// `BRPOP jobs 0`: without a timeout.
const BRPOP: &[u8] = b"*3\r\n$5\r\nBRPOP\r\n$4\r\njobs\r\n$1\r\n0\r\n";
/// The lines of the answer before the value.
const POPPED: [&[u8]; 4] = [b"*2\r\n", b"$4\r\n", b"jobs\r\n", b"$64\r\n"];

impl Client {
    fn new(server: &Arc<Server>) -> std::io::Result<Client> {
        let to = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port))?;
        to.set_nodelay(true)?;
        Ok(Client {
            from: BufReader::new(to.try_clone()?),
            to,
            line: Vec::new(),
            _server: Arc::clone(server),
        })
    }

    fn push(&mut self, item: Line) -> std::io::Result<()> {
        self.line.clear();
        self.line.extend_from_slice(LPUSH);
        for word in item.0 {
            self.line.extend_from_slice(&word.to_le_bytes());
        }
        self.line.extend_from_slice(b"\r\n");
        self.to.write_all(&self.line)?;
        let answer = self.read_line()?;
        assert!(answer.starts_with(b":"), "{}", answer.escape_ascii());
        Ok(())
    }

    fn pop(&mut self) -> std::io::Result<Line> {
        self.to.write_all(BRPOP)?;
        for expected in POPPED {
            let answer = self.read_line()?;
            assert!(answer == expected, "{}", answer.escape_ascii());
        }
        let mut value = [0; 66];
        self.from.read_exact(&mut value)?;
        let (words, _) = value.as_chunks::<8>();
        Ok(Line(std::array::from_fn(|i| u64::from_le_bytes(words[i]))))
    }

    fn read_line(&mut self) -> std::io::Result<&[u8]> {
        self.line.clear();
        self.from.read_until(b'\n', &mut self.line)?;
        Ok(&self.line)
    }
}

/// A list on a server.
pub struct List;

impl Blocking for List {
    type Tx = Client;
    type Rx = Client;

    fn ends(run: &Run) -> Result<Ends<Self>, String> {
        let server = Arc::new(Server::start()?);
        let clients = |count| {
            let client = |_| Client::new(&server).map_err(|e| format!("redis-server: {e}"));
            (0..count).map(client).collect::<Result<Vec<_>, _>>()
        };
        Ok((clients(run.crew.producers)?, clients(run.crew.consumers)?))
    }

    fn push(tx: &mut Client, item: Line) {
        tx.push(item).expect("a server that answers");
    }

    fn pop(rx: &mut Client) -> Line {
        rx.pop().expect("a server that answers")
    }
}
