//! Discovers channels: reports those that are there, then those that appear and go.
//!
//! # Guarantees
//! - A channel that is there, or comes, is reported once, and so is its end. If it is removed and made anew before that was
//!   noticed, both are reported.
//! - A half-made channel is never reported: it has a temporary name, which no pattern matches.
//! - Nothing is missed if the kernel's queue overflows: then the directories are listed anew.
//!
//! # How it works
//! The plain idea is to list the directories again and again, and to compare. inotify says which names to look at. An event
//! is no more than that: what is reported depends only on what the name leads to when it is looked at. So events may be
//! repeated, late, or about what has changed again since.
//!
//! Each directory is watched before it is listed. A domain is a directory, too, and is watched as soon as it appears.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use slipring_core::spec::Kind;

use crate::error::Error;
use crate::fork::LimitPage;
use crate::name::{Name, Pattern};
use crate::setup_error::SetupError;
use crate::shm::named::{self, Base};
use crate::wait::set::{AnyConsumer, Feed, Wish, sealed::Watched as Wanted};

/// The news that a [`Discovery`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discovered {
    /// The channel is there.
    Appeared {
        /// Its name.
        name: Name,
        /// Its kind; `None` if its header cannot be read. [`stat`](super::stat) returns the reason.
        kind: Option<Kind>,
    },
    /// The channel, which was reported before, is not there any more. Whoever has it open may still use it.
    Gone {
        /// Its name. By now it may lead to another channel, which is reported next.
        name: Name,
        /// The kind that was reported.
        kind: Option<Kind>,
    },
}

/// Reports the channels whose names match a pattern: first those that are there, then those that appear and go.
///
/// The names follow [`Pattern`]. Returns [`BadPattern`](SetupError::BadPattern) for a pattern that breaks its rule; other errors
/// as for [`list`](super::list). It makes the default directory if that is missing.
///
/// ```no_run
/// use slipring::inspect::{self, Discovered};
/// use slipring::spec::Kind;
///
/// for found in inspect::discover("cam/*")? {          // waits for each
///     match found? {
///         Discovered::Appeared { name, kind: Some(Kind::Topic) } => println!("{name} is there"),
///         Discovered::Gone { name, .. } => println!("{name} is gone"),
///         _ => {}
///     }
/// }
/// # Ok::<(), slipring::SetupError>(())
/// ```
pub fn discover(pattern: &str) -> Result<Discovery, SetupError> {
    Discovery::new([Pattern::new(pattern)?])
}

/// Channels that come and go: see [`discover`].
///
/// It is an iterator that waits and has no end. To wait for channels as well, [watch](crate::WaitSet::watch) it in a
/// [`WaitSet`](crate::WaitSet); or poll its [descriptor](AsFd).
///
/// It holds one descriptor. A copy in a forked child fails with [`Forked`](SetupError::Forked).
pub struct Discovery {
    patterns: Vec<Pattern>,
    /// The news that was found and not yet reported.
    found: VecDeque<Discovered>,
    /// The channels that were reported, or are about to be.
    known: BTreeMap<Name, Channel>,
    /// The descriptor of inotify, and the set that waits for it.
    feed: Arc<Feed>,
    /// The base directory; `None` while there is none.
    base: Option<Watched>,
    /// The device and the inode of the base directory, for the set.
    file: Arc<Mutex<Option<(u64, u64)>>>,
    /// The time at which the base directory's path was last checked.
    checked: Instant,
    /// The domains that are watched.
    domains: BTreeMap<i32, Box<str>>,
    /// `true` if the directories must be listed.
    stale: bool,
    /// Detects a forked child.
    page: LimitPage,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("patterns", &self.patterns)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}

/// The base directory that is watched.
#[derive(PartialEq, Eq)]
struct Watched {
    /// The kernel's number of the watch.
    number: i32,
    /// The device and the inode.
    file: (u64, u64),
}

/// The channel to which a name led.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Channel {
    /// The channel's own number, from its header; 0 if that cannot be read.
    unique: u128,
    kind: Option<Kind>,
}

impl Channel {
    /// Looks where the name leads. Returns `None` if there is no channel, and an error if that cannot be told now.
    fn of(name: &Name) -> Result<Option<Channel>, SetupError> {
        let read = named::inspect(name).and_then(|(_, mapping, data)| {
            let control = super::view(&mapping)?;
            Ok(control.read(data.len)?)
        });
        match read {
            Ok(header) => Ok(Some(Channel {
                unique: header.identity.unique,
                kind: Some(header.geometry.kind),
            })),
            Err(
                SetupError::NotFound { .. }
                | SetupError::NotAChannel { .. }
                | SetupError::NoDirectory { .. },
            ) => Ok(None),
            Err(
                error @ (SetupError::TooManyFiles { .. }
                | SetupError::NoSpace { .. }
                | SetupError::Os { .. }),
            ) => Err(error),
            Err(_) => Ok(Some(Channel {
                unique: 0,
                kind: None,
            })),
        }
    }
}

impl Discovery {
    /// Reports the channels whose names match any of several patterns: see [`discover`].
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Result<Discovery, SetupError> {
        let inotify =
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|errno| {
                // The kernel has one error for two limits.
                let advice = match errno {
                    Errno::MFILE => {
                        " (raise `ulimit -n`, or fs.inotify.max_user_instances by sysctl)"
                    }
                    _ => "",
                };
                refused(format!("watch directories by inotify{advice}"), errno)
            })?;
        let file = Arc::new(Mutex::new(None));
        let ours = file.clone();
        let moved = move || *lock(&ours) != named::base_file();
        let mut discovery = Discovery {
            patterns: patterns.into_iter().collect(),
            found: VecDeque::new(),
            known: BTreeMap::new(),
            feed: Arc::new(Feed::new(inotify, moved)),
            base: None,
            file,
            checked: Instant::now(),
            domains: BTreeMap::new(),
            stale: true,
            page: LimitPage::new()?,
        };
        discovery.list()?;
        Ok(discovery)
    }

    /// Returns the next channel that appeared or went, or `None` if there is none now.
    ///
    /// If the directory of all channels goes, each channel is reported as gone, and then the error is that of
    /// [`list`](super::list). A later call looks again. After any error, nothing that happened meanwhile is missed.
    pub fn try_next(&mut self) -> Result<Option<Discovered>, SetupError> {
        if !self.page.alive() {
            return Err(SetupError::Forked);
        }
        let found = self.look();
        // What was found, and an error, stand until the next call.
        let pending = self.stale || !self.found.is_empty();
        self.feed.set_pending(pending);
        found
    }

    fn look(&mut self) -> Result<Option<Discovered>, SetupError> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Ok(Some(found));
            }
            if self.stale {
                self.list()?;
            } else if !self.follow()? && !self.check_base() {
                return Ok(None);
            }
        }
    }

    /// Like [`try_next`](Self::try_next), waiting for at most `timeout`. Returns `None` if that has passed.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Discovered>, SetupError> {
        self.wait(Instant::now().checked_add(timeout))
    }

    /// Waits until this time, or for ever.
    fn wait(&mut self, until: Option<Instant>) -> Result<Option<Discovered>, SetupError> {
        loop {
            if let Some(found) = self.try_next()? {
                return Ok(Some(found));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let at_most = left.unwrap_or(CHECK_EVERY).min(CHECK_EVERY);
            let at_most = Timespec::try_from(at_most).unwrap_or_default();
            let mut polled = [PollFd::new(&*self.feed, PollFlags::IN)];
            match poll(&mut polled, Some(&at_most)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(SetupError::os("wait for channels", errno)),
            }
        }
    }

    /// Lists all directories, and watches them.
    fn list(&mut self) -> Result<(), SetupError> {
        self.stale = true;
        let listed = self.list_all();
        if matches!(listed, Err(SetupError::NoDirectory { .. })) {
            // There is no channel without it.
            self.leave_base();
            for (name, Channel { kind, .. }) in std::mem::take(&mut self.known) {
                self.found.push_back(Discovered::Gone { name, kind });
            }
            if !self.found.is_empty() {
                return Ok(());
            }
        }
        listed?;
        self.stale = false;
        Ok(())
    }

    fn list_all(&mut self) -> Result<(), SetupError> {
        let base = Base::open()?;
        let watched = self.watch_base(&base)?;
        if self.base.as_ref() != Some(&watched) {
            self.leave_base();
            *lock(&self.file) = Some(watched.file);
            self.base = Some(watched);
        }
        let mut names: BTreeSet<Name> = self.known.keys().cloned().collect();
        if self.reaches(None) {
            names.extend(base.names(None));
        }
        for domain in base.domains() {
            names.extend(self.watch_domain(&base, &domain)?);
        }
        names.into_iter().try_for_each(|name| self.look_at(name))
    }

    fn watch_base(&self, base: &Base) -> Result<Watched, SetupError> {
        let mut flags = WATCHED | WatchFlags::CREATE | WatchFlags::MOVE_SELF;
        if base.default {
            flags |= WatchFlags::DONT_FOLLOW;
        }
        let number = inotify::add_watch(self.feed.as_fd(), &base.path, flags);
        // If the path leads elsewhere by now, the check of a later call finds that out.
        let file = base.file();
        number
            .map(|number| Watched { number, file })
            .map_err(|errno| no_watch(base.path.display(), errno))
    }

    /// Returns `true` if the base directory's path was found to lead elsewhere. Looks once a second.
    ///
    /// The kernel reports the end of a removed directory only when nothing in it is open any more, in any process.
    fn check_base(&mut self) -> bool {
        if self.checked.elapsed() < CHECK_EVERY {
            return false;
        }
        self.checked = Instant::now();
        let ours = self.base.as_ref().map(|base| base.file);
        let lost = ours != named::base_file();
        if lost {
            self.leave_base();
        }
        lost
    }

    /// Watches a domain if a pattern reaches it, and returns the names of its channels. A domain that went, or that this user
    /// may not read, has none.
    fn watch_domain(&mut self, base: &Base, domain: &str) -> Result<Vec<Name>, SetupError> {
        if !self.reaches(Some(domain)) {
            return Ok(Vec::new());
        }
        let path = base.path.join(format!("@{domain}"));
        match inotify::add_watch(self.feed.as_fd(), &path, WATCHED | WatchFlags::DONT_FOLLOW) {
            Ok(number) => {
                self.domains.insert(number, domain.into());
                Ok(base.names(Some(domain)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(Vec::new()),
            Err(errno) => Err(no_watch(path.display(), errno)),
        }
    }

    /// Returns `true` if a pattern matches names of this domain, or without one.
    fn reaches(&self, domain: Option<&str>) -> bool {
        self.patterns.iter().any(|pattern| pattern.reaches(domain))
    }

    /// Takes some events, and looks at what they name. Returns `false` if there are none.
    fn follow(&mut self) -> Result<bool, SetupError> {
        let events = match read(self.feed.as_fd()) {
            Ok(events) => events,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Err(errno) => return Err(SetupError::os("read what inotify reports", errno)),
        };
        for event in events {
            if let Err(error) = self.take(&event) {
                // The other events are lost: list anew.
                self.stale = true;
                return Err(error);
            }
        }
        Ok(true)
    }

    fn take(&mut self, event: &Event) -> Result<(), SetupError> {
        let over = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED;
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.stale = true;
        } else if self.base.as_ref().map(|base| base.number) == Some(event.watch) {
            if event.flags.intersects(over | ReadFlags::UNMOUNT) {
                self.leave_base();
            } else if let Some(domain) = event.name.strip_prefix('@') {
                self.look_into(domain)?;
            } else if let Some(name) = Name::within(None, &event.name) {
                self.look_at(name)?;
            }
        } else if event.flags.contains(ReadFlags::IGNORED) {
            // The directory was removed. The base, or its successor's watch, tells of it.
            self.domains.remove(&event.watch);
        } else if let Some(domain) = self.domains.get(&event.watch)
            && let Some(name) = Name::within(Some(domain), &event.name)
        {
            self.look_at(name)?;
        }
        Ok(())
    }

    /// Forgets the base directory, which was removed or has another name now.
    fn leave_base(&mut self) {
        let domains = std::mem::take(&mut self.domains).into_keys();
        let base = self.base.take().map(|base| base.number);
        *lock(&self.file) = None;
        for number in base.into_iter().chain(domains) {
            // It fails for a directory that was removed.
            let _ = inotify::remove_watch(self.feed.as_fd(), number);
        }
        self.stale = true;
    }

    /// Looks at all channels of a domain that appeared or went.
    fn look_into(&mut self, domain: &str) -> Result<(), SetupError> {
        let of_domain = |name: &&Name| name.domain() == Some(domain);
        let mut names: BTreeSet<Name> = self.known.keys().filter(of_domain).cloned().collect();
        match Base::open() {
            Ok(base) => names.extend(self.watch_domain(&base, domain)?),
            Err(SetupError::NoDirectory { .. }) => self.leave_base(),
            Err(error) => return Err(error),
        }
        names.into_iter().try_for_each(|name| self.look_at(name))
    }

    /// Looks where a name leads, and reports what has changed.
    fn look_at(&mut self, name: Name) -> Result<(), SetupError> {
        if !self.patterns.iter().any(|pattern| pattern.matches(&name)) {
            return Ok(());
        }
        let channel = Channel::of(&name)?;
        if self.known.get(&name) == channel.as_ref() {
            return Ok(());
        }
        if let Some(Channel { kind, .. }) = self.known.remove(&name) {
            let name = name.clone();
            self.found.push_back(Discovered::Gone { name, kind });
        }
        if let Some(channel) = channel {
            self.known.insert(name.clone(), channel);
            let kind = channel.kind;
            self.found.push_back(Discovered::Appeared { name, kind });
        }
        Ok(())
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // In a forked child the set is inert, and its lock may be held for ever.
        if self.page.alive() {
            self.feed.leave();
        }
    }
}

impl Wanted for Discovery {
    fn ask(&self, _: usize) -> Result<Wish, Error> {
        match self.page.alive() {
            true => Ok(Wish::Feed(self.feed.clone())),
            false => Err(Error::Forked),
        }
    }
}

impl AnyConsumer for Discovery {}

fn lock(file: &Mutex<Option<(u64, u64)>>) -> MutexGuard<'_, Option<(u64, u64)>> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for each channel that appears or goes.
impl Iterator for Discovery {
    type Item = Result<Discovered, SetupError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.wait(None).transpose()
    }
}

/// The descriptor becomes readable when there may be something. Poll it after [`Discovery::try_next`] has returned `None`, and
/// not for much longer than a second: the end of the whole directory may make no descriptor readable.
impl AsFd for Discovery {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.feed.as_fd()
    }
}

/// The interval at which the base directory's path is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The events of a directory of channels. A channel comes by a rename; so a directory that a stranger makes there is left alone.
const WATCHED: WatchFlags = WatchFlags::MOVE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR);

/// An event, as the kernel reports it.
struct Event {
    watch: i32,
    flags: ReadFlags,
    /// The name in the directory; empty if the event is about the directory.
    name: String,
}

/// Reads some events. Fails with `AGAIN` if there are none.
fn read(inotify: BorrowedFd<'_>) -> Result<Vec<Event>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let mut events = Vec::new();
    loop {
        let event = reader.next()?;
        let name = event.file_name().and_then(|name| name.to_str().ok());
        events.push(Event {
            watch: event.wd(),
            flags: event.events(),
            name: name.unwrap_or_default().to_owned(),
        });
        if reader.is_buffer_empty() {
            return Ok(events);
        }
    }
}

fn no_watch(path: impl fmt::Display, errno: Errno) -> SetupError {
    let advice = match errno {
        Errno::NOSPC => " (raise fs.inotify.max_user_watches by sysctl)",
        _ => "",
    };
    refused(format!("watch {path} by inotify{advice}"), errno)
}

/// Returns the error of inotify. Its limits are not those that `SetupError::os` explains.
fn refused(what: String, errno: Errno) -> SetupError {
    match errno {
        Errno::MFILE | Errno::NOSPC => SetupError::Os {
            what: what.into(),
            source: errno.into(),
        },
        errno => SetupError::os(what, errno),
    }
}
