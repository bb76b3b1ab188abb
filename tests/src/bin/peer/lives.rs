//! Puts a handle into various places, and ends its thread or its process in various ways.
//!
//! | verb | does |
//! |---|---|
//! | `life-born` ROLE NAME | takes the role in a thread, which ends; the handle goes on |
//! | `life-local` ROLE | a thread's thread-local has the handle, and the thread ends |
//! | `life-main-local` ROLE | the main thread's thread-local has it |
//! | `life-static` ROLE | a static has it |
//! | `life-at-exit` ROLE | a static has it, and an `atexit` function drops it |
//! | `life-forgotten` ROLE | the handle is forgotten, and not dropped |
//! | `life-elsewhere` ROLE | a thread has it that never ends |
//! | `life-panic` ROLE | a thread has it, and panics |
//! | `life-exit`, `life-abort` | ends the process without an answer |
//! | `life-exec` | runs this program anew, in this process |
//! | `life-namespace` | goes on in a pid namespace of its own; says its pid outside, or `refused` |

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;

use slipring::SetupError;
use slipring_testkit::Handle;

use crate::forks::split;
use crate::say;
use crate::worker::{Line, Said, Worker, maker, name};

static STATIC: Mutex<Option<Box<dyn Handle>>> = Mutex::new(None);

thread_local! {
    static LOCAL: RefCell<Option<Box<dyn Handle>>> = const { RefCell::new(None) };
}

pub(crate) fn obey(worker: &mut Worker, line: &Line<'_>) -> Said {
    match line.word(0) {
        "life-born" => born(worker, line)?,
        "life-local" => {
            let handle = worker.take(line.word(1));
            let thread = std::thread::spawn(move || LOCAL.set(Some(handle)));
            thread.join().unwrap();
        }
        "life-main-local" => LOCAL.set(Some(worker.take(line.word(1)))),
        "life-static" => *STATIC.lock().unwrap() = Some(worker.take(line.word(1))),
        "life-at-exit" => {
            *STATIC.lock().unwrap() = Some(worker.take(line.word(1)));
            // SAFETY: a function of this program, which does not unwind.
            assert_eq!(unsafe { libc::atexit(drop_static) }, 0);
        }
        "life-forgotten" => std::mem::forget(worker.take(line.word(1))),
        "life-elsewhere" => {
            let handle = worker.take(line.word(1));
            std::thread::spawn(move || {
                let _handle = handle;
                loop {
                    std::thread::park();
                }
            });
        }
        "life-panic" => {
            let handle = worker.take(line.word(1));
            std::panic::set_hook(Box::new(|_| {}));
            let thread = std::thread::spawn(move || {
                let _handle = handle;
                panic!("on purpose");
            });
            assert!(thread.join().is_err());
            drop(std::panic::take_hook());
        }
        "life-exit" => std::process::exit(0),
        "life-abort" => std::process::abort(),
        "life-exec" => {
            // The next line is for the new program.
            say("ok");
            let error = Command::new(std::env::current_exe().unwrap()).exec();
            panic!("exec: {error}");
        }
        "life-namespace" => return namespace(),
        verb => panic!("no verb {verb}"),
    }
    Ok(vec![])
}

extern "C" fn drop_static() {
    *STATIC.lock().unwrap() = None;
}

fn born(worker: &mut Worker, line: &Line<'_>) -> Result<(), SetupError> {
    let (role, named) = (line.word(1), name(line.word(2)));
    std::thread::scope(|scope| {
        if role == "producer" {
            let thread = scope.spawn(|| maker(line).producer(&named));
            worker.producer = Some(thread.join().unwrap()?);
        } else {
            let thread = scope.spawn(|| maker(line).consumer(&named));
            worker.consumer = Some(thread.join().unwrap()?);
        }
        Ok(())
    })
}

/// Enters the namespace. The calling process stays, does nothing, and takes its child with it when
/// it dies.
fn namespace() -> Said {
    // SAFETY: for the children of this process, which has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        return Ok(vec!["refused".to_owned()]);
    }
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    match split() {
        0 => {
            // SAFETY: a flag of this process.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            drop(writer);
            assert_eq!(std::process::id(), 1);
            let mut outside = String::new();
            reader.read_to_string(&mut outside).unwrap();
            Ok(vec![outside])
        }
        pid => {
            drop(reader);
            writer.write_all(pid.to_string().as_bytes()).unwrap();
            drop(writer);
            let pid = rustix::process::Pid::from_raw(pid);
            let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
            // SAFETY: ends the process, nothing more.
            unsafe { libc::_exit(0) }
        }
    }
}
