//! Discovers channels that other processes make and remove.
//!
//! Each test runs in a process of its own, with a directory of its own: this executable starts itself. Channels are made by
//! further processes, which obey line by line (`Maker`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use slipring::inspect::{self, Discovered, Discovery};
use slipring::spec::Kind;
use slipring::{Name, Pattern, SetupError, bytes, topic};

/// A timeout so long that what never comes is a test that fails late.
const LONG: Duration = Duration::from_secs(60);

/// Runs `body` in a process whose directory of channels is its own.
fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os("DISCOVER_ALONE").is_some() {
        return body();
    }
    let dir = PathBuf::from(format!("/dev/shm/slipring-{test}-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let status = itself(test)
        .env("DISCOVER_ALONE", "1")
        .env("SLIPRING_DIR", &dir)
        .status();
    let _ = fs::remove_dir_all(&dir);
    assert!(status.unwrap().success());
}

fn itself(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "-q"]);
    command
}

/// A process that makes and removes channels: its answers, and the number of orders that it has not answered.
struct Maker(Child, BufReader<ChildStdout>, usize);

impl Maker {
    fn start() -> Maker {
        let mut command = itself("a_maker");
        command.env("DISCOVER_MAKER", "1");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Maker(child, answers, 0)
    }

    fn order(&mut self, what: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.2 += 1;
    }

    /// Gives an order, and waits until it and those before it were obeyed.
    fn tell(&mut self, what: &str) {
        self.order(what);
        while self.2 > 0 {
            let mut line = String::new();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "it went");
            // The test harness writes lines between the answers.
            self.2 -= usize::from(line.trim_end().ends_with("done"));
        }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process that `Maker` starts; does nothing by itself.
#[test]
fn a_maker() {
    if std::env::var_os("DISCOVER_MAKER").is_none() {
        return;
    }
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let words: Vec<_> = order.split(' ').collect();
        match words[..] {
            ["topic", name] => make_topic(name),
            ["bytes", name] => drop(bytes::Builder::new(64).create(name).unwrap()),
            ["remove", name] => inspect::remove(name).unwrap(),
            ["many", domain, count] => {
                (0..count.parse::<u32>().unwrap())
                    .for_each(|number| make_topic(&format!("{domain}/{number}")));
            }
            ["forever", name] => loop {
                make_topic(name);
                inspect::remove(name).unwrap();
            },
            _ => panic!("{order}"),
        }
        println!("done");
        std::io::stdout().flush().unwrap();
    }
}

fn make_topic(name: &str) {
    let builder = topic::records::Builder::new(1, 64)
        .producers(1)
        .consumers(1);
    drop(builder.create(name).unwrap());
}

fn appeared(name: &str, kind: Kind) -> Discovered {
    let (name, kind) = (Name::new(name).unwrap(), Some(kind));
    Discovered::Appeared { name, kind }
}

fn gone(name: &str, kind: Kind) -> Discovered {
    let (name, kind) = (Name::new(name).unwrap(), Some(kind));
    Discovered::Gone { name, kind }
}

/// Waits for the next event.
fn next(discovery: &mut Discovery) -> Discovered {
    let found = discovery.next_timeout(LONG).unwrap();
    found.expect("nothing came for a minute")
}

fn rest(discovery: &mut Discovery) -> Vec<Discovered> {
    std::iter::from_fn(|| discovery.try_next().unwrap()).collect()
}

#[test]
fn present_channels_come_first() {
    alone("present_channels_come_first", || {
        let mut maker = Maker::start();
        for order in ["topic cam/b", "bytes cam/a", "topic other/c", "topic plain"] {
            maker.tell(order);
        }
        let mut cam = inspect::discover("cam/*").unwrap();
        let there = [
            appeared("cam/a", Kind::Bytes),
            appeared("cam/b", Kind::Topic),
        ];
        assert_eq!(rest(&mut cam), there);
        let patterns = ["p*n", "o*/c"].map(|pattern| Pattern::new(pattern).unwrap());
        let mut others = Discovery::new(patterns).unwrap();
        let there = [
            appeared("plain", Kind::Topic),
            appeared("other/c", Kind::Topic),
        ];
        assert_eq!(rest(&mut others), there);
        assert_eq!(cam.next_timeout(Duration::ZERO).unwrap(), None);
        // Later ones wake who polls the descriptor.
        maker.order("topic cam/c");
        let mut polled = [PollFd::from_borrowed_fd(cam.as_fd(), PollFlags::IN)];
        assert_eq!(poll(&mut polled, None), Ok(1));
        assert_eq!(next(&mut cam), appeared("cam/c", Kind::Topic));
        maker.tell("remove cam/a");
        assert_eq!(
            cam.next().unwrap().unwrap(),
            gone("cam/a", Kind::Bytes),
            "the iterator waits"
        );
        maker.tell("topic another");
        maker.tell("remove plain");
        assert_eq!(rest(&mut others), [gone("plain", Kind::Topic)]);
        assert_eq!(rest(&mut cam), []);
    });
}

/// A domain's directory comes with its first channel, goes with its last one, and may come again.
#[test]
fn domains_appear_later() {
    alone("domains_appear_later", || {
        let mut imu = inspect::discover("*/imu").unwrap();
        assert_eq!(imu.try_next().unwrap(), None);
        let mut maker = Maker::start();
        for turn in 0..3 {
            maker.order("topic r1/cam");
            maker.order("topic r1/imu");
            assert_eq!(next(&mut imu), appeared("r1/imu", Kind::Topic), "{turn}");
            maker.order("bytes r2/imu");
            assert_eq!(next(&mut imu), appeared("r2/imu", Kind::Bytes), "{turn}");
            for name in ["r1/imu", "r1/cam", "r2/imu"] {
                maker.order(&format!("remove {name}"));
            }
            assert_eq!(next(&mut imu), gone("r1/imu", Kind::Topic), "{turn}");
            assert_eq!(next(&mut imu), gone("r2/imu", Kind::Bytes), "{turn}");
        }
        assert_eq!(imu.try_next().unwrap(), None);
    });
}

#[test]
fn three_hundred_topics_are_found() {
    alone("three_hundred_topics_are_found", || {
        let mut early = inspect::discover("many/*").unwrap();
        let mut maker = Maker::start();
        maker.order("many many 300");
        let mut names = BTreeSet::new();
        while names.len() < 300 {
            match next(&mut early) {
                Discovered::Appeared { name, kind } => {
                    assert_eq!(kind, Some(Kind::Topic));
                    assert!(names.insert(name.to_string()), "{name} came twice");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(rest(&mut early), []);
        assert!((0..300).all(|number| names.contains(&format!("many/{number}"))));
        let mut late = inspect::discover("many/*").unwrap();
        assert_eq!(rest(&mut late).len(), 300);
    });
}

/// If it is removed and made anew before anybody looks, both are told.
#[test]
fn successors_are_told_apart() {
    alone("successors_are_told_apart", || {
        let mut maker = Maker::start();
        maker.tell("topic d/x");
        let mut all = inspect::discover("d/*").unwrap();
        assert_eq!(rest(&mut all), [appeared("d/x", Kind::Topic)]);
        maker.tell("remove d/x");
        maker.tell("bytes d/x");
        let both = [gone("d/x", Kind::Topic), appeared("d/x", Kind::Bytes)];
        assert_eq!(rest(&mut all), both);
        // What came and went is no news.
        maker.tell("topic d/y");
        maker.tell("remove d/y");
        assert_eq!(rest(&mut all), []);
    });
}

/// A process that makes and removes a channel all the time is killed anywhere. What is reported then is what is there.
#[test]
fn half_made_channels_stay_hidden() {
    alone("half_made_channels_stay_hidden", || {
        let base = slipring::directory().0;
        let mut maker = Maker::start();
        maker.tell("topic d/stays");
        let mut all = inspect::discover("d/*").unwrap();
        assert_eq!(rest(&mut all), [appeared("d/stays", Kind::Topic)]);
        // Half made by a killed creator; and a stranger's directory.
        fs::create_dir(base.join("@d/.new-0123456789abcdef")).unwrap();
        fs::create_dir(base.join("@d/stranger")).unwrap();
        assert_eq!(rest(&mut all), []);
        let mut there = false;
        for turn in 0..20 {
            let mut maker = Maker::start();
            if there {
                maker.tell("remove d/x");
                assert_eq!(next(&mut all), gone("d/x", Kind::Topic));
                there = false;
            }
            maker.order("forever d/x");
            for _ in 0..turn * 3 + 1 {
                let expected = match there {
                    false => appeared("d/x", Kind::Topic),
                    true => gone("d/x", Kind::Topic),
                };
                assert_eq!(next(&mut all), expected);
                there = !there;
            }
            drop(maker);
            for found in rest(&mut all) {
                there = matches!(found, Discovered::Appeared { .. });
            }
            let listed = inspect::list().unwrap();
            assert_eq!(listed.contains(&Name::new("d/x").unwrap()), there);
        }
        // The directories are listed anew, and the stranger's is still no channel.
        assert_eq!(
            rest(&mut inspect::discover("d/s*").unwrap()),
            [appeared("d/stays", Kind::Topic)]
        );
    });
}

/// More happens than the kernel notes: what came and went among it is reported all the same.
#[test]
fn overflows_lead_to_listings() {
    alone("overflows_lead_to_listings", || {
        let base = slipring::directory().0;
        let mut maker = Maker::start();
        maker.tell("topic d/old");
        maker.tell("topic d/stays");
        let mut all = inspect::discover("*/*").unwrap();
        assert_eq!(rest(&mut all).len(), 2);
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let (one, other) = (base.join("@d/.one"), base.join("@d/.other"));
        fs::create_dir(&one).unwrap();
        for _ in 0..most / 4 + 1 {
            fs::rename(&one, &other).unwrap();
            fs::rename(&other, &one).unwrap();
        }
        for order in ["remove d/old", "topic d/new", "topic e/new"] {
            maker.tell(order);
        }
        let news = [
            appeared("d/new", Kind::Topic),
            gone("d/old", Kind::Topic),
            appeared("e/new", Kind::Topic),
        ];
        assert_eq!(rest(&mut all), news);
        // It goes on, in the new domain as well.
        maker.tell("remove e/new");
        assert_eq!(rest(&mut all), [gone("e/new", Kind::Topic)]);
    });
}

#[test]
fn unreadable_channels_have_no_kind() {
    alone("unreadable_channels_have_no_kind", || {
        let mut maker = Maker::start();
        maker.tell("topic x");
        let control = slipring::directory().0.join("x/control");
        let mut bytes = fs::read(&control).unwrap();
        // The version, behind the first word.
        bytes[8] ^= 0x55;
        fs::write(&control, bytes).unwrap();
        let mut all = inspect::discover("*").unwrap();
        let name = Name::new("x").unwrap();
        let kind = None;
        assert_eq!(rest(&mut all), [Discovered::Appeared { name, kind }]);
    });
}

/// The directory of all channels is removed while one of them is open, and made anew.
#[test]
fn the_directory_may_go() {
    alone("the_directory_may_go", || {
        let base = slipring::directory().0;
        let mut maker = Maker::start();
        maker.tell("topic a");
        maker.tell("topic d/b");
        let patterns = ["*", "*/*"].map(|pattern| Pattern::new(pattern).unwrap());
        let mut all = Discovery::new(patterns).unwrap();
        assert_eq!(rest(&mut all).len(), 2);
        // An open channel keeps the kernel from telling that the directory is gone.
        let open = topic::records::Builder::new(1, 64).open("a").unwrap();
        fs::remove_dir_all(&base).unwrap();
        let mut names = [next(&mut all), next(&mut all)].map(|found| match found {
            Discovered::Gone { name, .. } => name.to_string(),
            other => panic!("{other:?}"),
        });
        names.sort();
        assert_eq!(names, ["a", "d/b"]);
        assert!(matches!(
            all.next_timeout(LONG),
            Err(SetupError::NoDirectory { .. })
        ));
        assert!(matches!(
            all.try_next(),
            Err(SetupError::NoDirectory { .. })
        ));
        assert!(matches!(
            inspect::discover("*"),
            Err(SetupError::NoDirectory { .. })
        ));
        fs::create_dir(&base).unwrap();
        maker.tell("topic d/b");
        assert_eq!(next(&mut all), appeared("d/b", Kind::Topic));
        maker.tell("topic d/c");
        assert_eq!(next(&mut all), appeared("d/c", Kind::Topic));
        drop(open);
    });
}

#[test]
fn bad_patterns_are_refused() {
    for bad in [
        "",
        "a/b/c",
        "/a",
        "a?",
        ".*",
        "[ab]",
        "a b",
        &"*".repeat(65),
    ] {
        let error = inspect::discover(bad).unwrap_err();
        assert!(matches!(error, SetupError::BadPattern { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("`*` stands for any characters"), "{said}");
    }
}

#[test]
fn forked_copies_are_refused() {
    alone("forked_copies_are_refused", || {
        let mut all = inspect::discover("*").unwrap();
        make_topic("x");
        // SAFETY: the child only asks, and leaves at once.
        match unsafe { libc::fork() } {
            0 => {
                let refused = matches!(all.try_next(), Err(SetupError::Forked));
                // SAFETY: it ends the child.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            child => {
                let mut status = 0;
                // SAFETY: a child of ours.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
        assert_eq!(rest(&mut all), [appeared("x", Kind::Topic)]);
    });
}
