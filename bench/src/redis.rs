//! A Redis server of our own on loopback, and a connection to it.
//!
//! The server has a free port and a directory of its own, keeps nothing on disk, and ends with the last handle or with the
//! process that started it.

use std::io::{BufRead, BufReader, Read, Result as IoResult, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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

/// A running server.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts a server and waits until it answers.
    pub fn start() -> Result<Server, String> {
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

    /// Opens a connection.
    pub fn connect(&self) -> Result<Client, String> {
        Client::new(self.port).map_err(|e| format!("redis-server: {e}"))
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

/// One connection, and the buffers for a command and for an answer.
pub struct Client {
    from: BufReader<TcpStream>,
    to: TcpStream,
    line: Vec<u8>,
    value: Vec<u8>,
}

impl Client {
    fn new(port: u16) -> IoResult<Client> {
        let to = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        to.set_nodelay(true)?;
        Ok(Client {
            from: BufReader::new(to.try_clone()?),
            to,
            line: Vec::new(),
            value: Vec::new(),
        })
    }

    /// Sends a command of a head, written as it goes over the wire, and one value behind it.
    pub fn send(&mut self, head: &[u8], value: &[u8]) -> IoResult<()> {
        self.line.clear();
        self.line.extend_from_slice(head);
        // Formatting into a vector cannot fail.
        let _ = write!(self.line, "${}\r\n", value.len());
        self.line.extend_from_slice(value);
        self.line.extend_from_slice(b"\r\n");
        self.to.write_all(&self.line)
    }

    /// Reads one line of an answer, such as a number or the length of an array.
    pub fn read_line(&mut self) -> IoResult<&[u8]> {
        self.line.clear();
        self.from.read_until(b'\n', &mut self.line)?;
        Ok(self.line.trim_ascii_end())
    }

    /// Reads the value of an answer.
    pub fn read_value(&mut self) -> IoResult<&[u8]> {
        let answer = self.read_line()?;
        let len = answer.strip_prefix(b"$").and_then(|digits| {
            let digits = str::from_utf8(digits).ok()?;
            digits.parse::<usize>().ok()
        });
        let Some(len) = len else {
            let answer = answer.escape_ascii();
            return Err(std::io::Error::other(format!(
                "{answer} instead of a value"
            )));
        };
        self.value.resize(len + 2, 0);
        self.from.read_exact(&mut self.value)?;
        Ok(&self.value[..len])
    }

    /// Reads the lines before a value, which are known.
    pub fn expect(&mut self, lines: &[&[u8]]) -> IoResult<()> {
        for expected in lines {
            let answer = self.read_line()?;
            if answer != *expected {
                let answer = answer.escape_ascii();
                return Err(std::io::Error::other(format!("unexpected {answer}")));
            }
        }
        Ok(())
    }
}
