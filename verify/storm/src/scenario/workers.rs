//! The worker processes of a scenario: starts, strikes, stops and reaps them.

use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use slipring::Role;

use super::Scenario;
use crate::tally::Count;
use crate::watch::Watch;
use crate::words::get;

impl Scenario<'_> {
    pub(super) fn all_live(&mut self) {
        for (index, child) in self.workers.iter_mut().enumerate() {
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                panic!("process {index} ended by itself: {status}: {}", self.plot);
            }
        }
    }

    pub(super) fn strike(&mut self, index: usize) {
        self.tally.add(Count::Kills, 1);
        self.consumers_killed += u64::from(self.role(index) == Role::Consumer);
        if self.words.worker(index).is_seated() {
            self.tally.add(Count::Seated, 1);
        }
        let told = get(&self.words.worker(index).told);
        self.tally.add(Count::Told, told);
        let lost = get(&self.words.worker(index).lost);
        self.tally.add(Count::Lost, lost);
        self.signal(index, Signal::KILL);
    }

    /// Reaps a worker: waits until it is gone. It must have been killed.
    pub(super) fn reap(&mut self, index: usize) {
        let status = self.workers[index].take().unwrap().wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(libc::SIGKILL),
            "process {index} ended by itself: {}",
            self.plot
        );
        self.words.worker(index).clear();
    }

    pub(super) fn freeze(&mut self, index: usize) {
        self.signal(index, Signal::STOP);
        self.stopped(index);
    }

    pub(super) fn stopped(&mut self, index: usize) {
        self.tally.add(Count::Stops, 1);
        let status = waitpid(Some(self.pid(index)), WaitOptions::UNTRACED);
        let (_, status) = status.unwrap().unwrap();
        assert!(
            status.stopped(),
            "process {index}: {status:?}: {}",
            self.plot
        );
    }

    pub(super) fn thaw(&mut self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    pub(super) fn signal(&self, index: usize, signal: Signal) {
        kill_process(self.pid(index), signal).unwrap();
    }

    /// Lets a worker do one instruction after another, at most so many, until the condition is true. It is stopped then.
    pub(super) fn step_until(&self, index: usize, most: usize, is_so: impl Fn(&Watch) -> bool) {
        let pid = self.pid(index).as_raw_nonzero().get();
        let ask = |request: libc::c_uint, signal: usize| {
            // SAFETY: a request about a child of ours, with no memory of ours in it.
            let asked = unsafe { libc::ptrace(request, pid, 0usize, signal) };
            assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
        };
        let wait = || {
            let mut status = 0;
            // SAFETY: waits for our own child, and writes one integer of ours.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
            assert!(
                waited == pid && libc::WIFSTOPPED(status),
                "process {index} ended by itself: {status:x}: {}",
                self.plot
            );
            libc::WSTOPSIG(status)
        };
        ask(libc::PTRACE_ATTACH, 0);
        while wait() != libc::SIGSTOP {
            ask(libc::PTRACE_CONT, 0);
        }
        for _ in 0..most {
            if is_so(&self.watch) {
                return;
            }
            ask(libc::PTRACE_SINGLESTEP, 0);
            wait();
        }
    }

    /// Returns the total time that the worker waited for a processor, in nanoseconds.
    pub(super) fn delay(&self, index: usize) -> u64 {
        let pid = self.pid(index).as_raw_nonzero();
        let figures = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        let delay = figures.split(' ').nth(1).map(str::parse);
        delay.and_then(Result::ok).unwrap_or_default()
    }

    pub(super) fn pid(&self, index: usize) -> Pid {
        let child = self.workers[index].as_ref().unwrap();
        Pid::from_raw(child.id() as i32).unwrap()
    }

    pub(super) fn start(&mut self, index: usize) {
        self.workers[index] = Some(self.spawn(&index.to_string()));
    }

    /// Starts a process that dies with us.
    pub(super) fn spawn(&self, who: &str) -> Child {
        let descriptors = [&self.memory].into_iter().chain(&self.passed);
        let descriptors = descriptors.map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
        let numbers = descriptors.iter().map(ToString::to_string);
        let numbers = numbers.collect::<Vec<_>>().join(",");
        let mut command = Command::new("/proc/self/exe");
        command
            .env("SLIPRING_DIR", self.room.path())
            .args(["--worker", self.plot.kind.name, self.plot.way.name(), who])
            .arg(numbers)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let prepare = move || {
            // SAFETY: one system call.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            for fd in &descriptors {
                // SAFETY: one system call on a descriptor that the parent keeps open meanwhile.
                if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } == -1 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
        unsafe { command.pre_exec(prepare) }.spawn().unwrap()
    }
}

impl Drop for Scenario<'_> {
    fn drop(&mut self) {
        for child in self.workers.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
