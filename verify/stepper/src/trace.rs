//! Runs a process under ptrace, and stops it after each instruction between two signals that it
//! sends itself.

use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The signal by which the victim says that the operation begins with the next instruction.
const BEGIN: i32 = libc::SIGUSR1;
/// The signal by which the victim says that the operation is over.
const END: i32 = libc::SIGUSR2;

/// Called in the victim: from here on it is stepped.
pub(crate) fn begin() {
    say(BEGIN);
}

/// Called in the victim: here stepping ends.
pub(crate) fn end() {
    say(END);
}

fn say(signal: i32) {
    // SAFETY: a signal to this thread, which the tracer takes away before it is delivered.
    unsafe { libc::raise(signal) };
}

/// A process that is stepped. Killed when dropped.
pub(crate) struct Victim(Child);

/// The result of an injected fault.
pub(crate) enum Inject {
    /// This system call failed, as was asked.
    Done(i64),
    /// The operation makes no such call.
    Over,
}

/// The event at which a released process stopped.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Signal(i32),
    Gone(i32),
}

impl Victim {
    /// Starts this program again with `words`, and with these descriptors; stops it where it
    /// begins.
    pub(crate) fn start(words: &[String], passed: &[BorrowedFd<'_>]) -> Result<Victim, String> {
        Victim::start_in(Path::new("/nonexistent"), words, passed)
    }

    /// Does the same as `start`, with `dir` for named channels.
    pub(crate) fn start_in(
        dir: &Path,
        words: &[String],
        passed: &[BorrowedFd<'_>],
    ) -> Result<Victim, String> {
        let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
        command.arg("victim").args(words).stdin(Stdio::null());
        command.stdout(Stdio::piped());
        command.env("SLIPRING_DIR", dir);
        let passed: Vec<i32> = passed.iter().map(|fd| fd.as_raw_fd()).collect();
        let prepare = move || {
            for fd in &passed {
                // SAFETY: one system call on a descriptor that the parent keeps open meanwhile.
                unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) };
            }
            // SAFETY: asks to be traced by the parent; nothing else of this process is touched.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
        let child = unsafe { command.pre_exec(prepare) }.spawn();
        let mut victim = Victim(child.map_err(|error| format!("start a victim: {error}"))?);
        match victim.wait()? {
            Stop::Signal(libc::SIGTRAP) => {}
            other => return Err(format!("the victim did not stop at its exec: {other:?}")),
        }
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        victim.ask(libc::PTRACE_SETOPTIONS, options as usize)?;
        let mut signal = 0;
        loop {
            victim.ask(libc::PTRACE_CONT, signal as usize)?;
            match victim.wait()? {
                Stop::Signal(BEGIN) => return Ok(victim),
                Stop::Signal(other) => signal = other,
                Stop::Gone(code) => {
                    return Err(format!("the victim ended before it began: {code}"));
                }
            }
        }
    }

    /// Lets the process do one instruction. Returns `false` if that was the last of its operation.
    pub(crate) fn step(&mut self) -> Result<bool, String> {
        let mut signal = 0;
        loop {
            self.ask(libc::PTRACE_SINGLESTEP, signal)?;
            match self.wait()? {
                Stop::Signal(libc::SIGTRAP) => return Ok(true),
                Stop::Signal(END) => return Ok(false),
                Stop::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGABRT) => {
                    return Err("the victim was about to die by a signal".into());
                }
                Stop::Signal(other) => signal = other as usize,
                Stop::Gone(code) => {
                    return Err(format!("the victim ended in its operation: {code}"));
                }
            }
        }
    }

    /// Makes the operation's system call number `at`, of those that are not `spared`, fail with `errno`.
    pub(crate) fn inject(&mut self, at: u64, errno: i32, spared: &[i64]) -> Result<Inject, String> {
        const SYSCALL: i32 = libc::SIGTRAP | 0x80;
        let (mut count, mut entering, mut signal) = (0, true, 0);
        loop {
            self.ask(libc::PTRACE_SYSCALL, signal)?;
            signal = 0;
            match self.wait()? {
                Stop::Signal(SYSCALL) if entering => {
                    entering = false;
                    let mut registers = self.registers()?;
                    let call = registers.orig_rax as i64;
                    if spared.contains(&call) {
                        continue;
                    }
                    if count < at {
                        count += 1;
                        continue;
                    }
                    // No call has this number; the return value is changed on the way out.
                    registers.orig_rax = u64::MAX;
                    self.set_registers(&registers)?;
                    self.ask(libc::PTRACE_SYSCALL, 0)?;
                    self.wait()?;
                    let mut registers = self.registers()?;
                    registers.rax = -i64::from(errno) as u64;
                    self.set_registers(&registers)?;
                    return Ok(Inject::Done(call));
                }
                Stop::Signal(SYSCALL) => entering = true,
                Stop::Signal(END) => return Ok(Inject::Over),
                Stop::Signal(other) => signal = other as usize,
                Stop::Gone(code) => {
                    return Err(format!("the victim ended in its operation: {code}"));
                }
            }
        }
    }

    fn registers(&self) -> Result<libc::user_regs_struct, String> {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let into: *mut libc::user_regs_struct = &raw mut registers;
        // SAFETY: asks for the registers of a process that we trace, into a struct of that kind.
        let done = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.pid(), 0usize, into) };
        if done == -1 {
            return Err(format!("ptrace: {}", std::io::Error::last_os_error()));
        }
        Ok(registers)
    }

    fn set_registers(&self, registers: &libc::user_regs_struct) -> Result<(), String> {
        let from: *const libc::user_regs_struct = registers;
        // SAFETY: sets the registers of a process that we trace and have stopped.
        let done = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.pid(), 0usize, from) };
        if done == -1 {
            return Err(format!("ptrace: {}", std::io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Lets the process run on to its end, and returns its message.
    pub(crate) fn said(mut self) -> Result<String, String> {
        let mut signal = 0;
        let code = loop {
            self.ask(libc::PTRACE_CONT, signal as usize)?;
            match self.wait()? {
                // The victim's own signals, which the tracer no longer waits for.
                Stop::Signal(BEGIN | END) => signal = 0,
                Stop::Signal(other) => signal = other,
                Stop::Gone(code) => break code,
            }
        };
        let mut said = String::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            stdout
                .read_to_string(&mut said)
                .map_err(|error| error.to_string())?;
        }
        match code {
            0 => Ok(said.trim().to_string()),
            code => Err(format!("the victim ended with {code}: {said}")),
        }
    }

    /// Lets the process run on to its end, and fails unless it found all well.
    pub(crate) fn finish(self) -> Result<(), String> {
        match self.said()? {
            said if said == "ok" => Ok(()),
            said => Err(said),
        }
    }

    fn pid(&self) -> libc::pid_t {
        self.0.id() as libc::pid_t
    }

    fn ask(&self, request: libc::c_uint, data: usize) -> Result<(), String> {
        // SAFETY: a request about a process that we trace, with no memory of ours in it.
        let done = unsafe { libc::ptrace(request, self.pid(), 0usize, data) };
        if done == -1 {
            return Err(format!("ptrace: {}", std::io::Error::last_os_error()));
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<Stop, String> {
        let mut status = 0;
        loop {
            // SAFETY: waits for our own child, and writes one integer of ours.
            let pid = unsafe { libc::waitpid(self.pid(), &raw mut status, libc::__WALL) };
            if pid != -1 {
                break;
            }
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(format!("wait for the victim: {error}"));
            }
        }
        if libc::WIFSTOPPED(status) {
            Ok(Stop::Signal(libc::WSTOPSIG(status)))
        } else if libc::WIFEXITED(status) {
            Ok(Stop::Gone(libc::WEXITSTATUS(status)))
        } else {
            Ok(Stop::Gone(-libc::WTERMSIG(status)))
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both calls fail for a process that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
