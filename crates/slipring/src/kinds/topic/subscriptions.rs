//! Subscribes to all topics whose names match a pattern, also to those that come later.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use slipring_core::end::Seek;
use slipring_core::layout;

use crate::builder::Builder;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::inspect::{Discovered, Discovery};
use crate::kind::TopicKind;
use crate::name::{Name, Pattern};
use crate::setup_error::SetupError;
use crate::wait::set::{Key, WaitSet};

/// Subscribers to all topics whose names match any of some patterns.
///
/// Topics that are there at the start are read from where [`join`](Builder::join) says, by default behind their newest message.
/// A topic that appears later is read from its oldest message on, so that nothing is missed between its making and its
/// discovery. One that is removed and made anew is followed.
///
/// ```no_run
/// use slipring::topic::{News, Subscriptions, records};
/// use slipring::{Error, Pattern};
///
/// let cameras = records::Builder::new(4, 1 << 20);
/// let mut all = Subscriptions::new(cameras, [Pattern::new("cam/*")?])?;
/// loop {
///     for news in all.wait()? {
///         match news {
///             News::Ready(name) => {
///                 while let Some(rx) = all.get_mut(&name) {
///                     match rx.try_read() {
///                         Ok(frame) => println!("{name}: {} bytes", frame.len()),
///                         Err(Error::Lagged(count)) => println!("{name}: {count} lost"),
///                         Err(_) => break,                         // read all; or its publishers have left
///                     }
///                 }
///             }
///             News::Joined(name) => println!("{name} is there"),
///             News::Left(name, _) => println!("{name} is gone"),
///             News::Refused(name, why) => println!("{name}: {why}"),
///             _ => {}
///         }
///     }
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), slipring::SetupError>(())
/// ```
///
/// It is a [`WaitSet`] of the subscribers and a [`Discovery`]. A program that waits for other things as well, or gives the
/// topics different types, puts these together by itself.
pub struct Subscriptions<K: TopicKind> {
    builder: Builder<K>,
    set: WaitSet,
    discovery: Discovery,
    /// The discovery's key in the set.
    appeared: Key,
    patterns: Vec<Pattern>,
    topics: BTreeMap<Name, (Key, Consumer<K>)>,
    names: BTreeMap<Key, Name>,
    /// The topics that the last call reported as ready.
    reported: Vec<Name>,
    /// Where topics are read from that appear now.
    seek: Seek,
}

/// The news that [`Subscriptions`] report.
#[derive(Debug)]
#[non_exhaustive]
pub enum News<K: TopicKind> {
    /// The topic is there, and is subscribed to.
    Joined(Name),
    /// The next call of the topic's subscriber returns a message or an error. Reported until that is no longer so.
    ///
    /// The end of the last publisher is reported until a read has returned it ([`Disconnected`](Error::Disconnected)). Then
    /// the next publisher is waited for.
    Ready(Name),
    /// The topic's name is gone, or leads to another topic, which is reported next. Its subscriber can still read what is left.
    Left(Name, Box<Consumer<K>>),
    /// The topic is there and cannot be subscribed to: [`join`](Subscriptions::join) tries once more. Channels of another kind
    /// are refused only if a pattern is their very name.
    Refused(Name, SetupError),
}

impl<K: TopicKind> fmt::Debug for Subscriptions<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriptions")
            .field("topics", &self.topics.keys())
            .finish_non_exhaustive()
    }
}

impl<K: TopicKind> Subscriptions<K> {
    /// Begins to look for topics. `builder` says what they carry; it opens topics and makes none, and they keep their sizes.
    ///
    /// Errors: as for [`discover`](crate::inspect::discover).
    pub fn new(
        builder: Builder<K>,
        patterns: impl IntoIterator<Item = Pattern>,
    ) -> Result<Self, SetupError> {
        let patterns: Vec<Pattern> = patterns.into_iter().collect();
        let discovery = Discovery::new(patterns.iter().cloned())?;
        let set = WaitSet::new()?;
        Ok(Subscriptions {
            appeared: set.watch(&discovery)?,
            seek: builder.seek,
            builder,
            set,
            discovery,
            patterns,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            reported: Vec::new(),
        })
    }

    /// Waits until there is news of any topic, and returns it.
    ///
    /// The first call returns the topics that are there, or waits for one. Returns the errors of
    /// [`Discovery::try_next`] and of [`WaitSet::wait`]; a later call goes on.
    pub fn wait(&mut self) -> Result<Vec<News<K>>, SetupError> {
        self.acknowledge();
        let events = self.set.wait()?;
        self.take(events)
    }

    /// Like [`wait`](Self::wait), for at most `timeout`. Returns no news if that has passed.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Vec<News<K>>, SetupError> {
        self.acknowledge();
        match self.set.wait_timeout(timeout) {
            Err(Error::TimedOut) => Ok(Vec::new()),
            events => self.take(events?),
        }
    }

    /// Acknowledges the ends of publishers that reads have returned: they stand, and the set would report them for ever.
    fn acknowledge(&mut self) {
        for name in std::mem::take(&mut self.reported) {
            if let Some((_, rx)) = self.topics.get_mut(&name) {
                // It acknowledges nothing that no read has returned. What else is wrong is the next read's to tell.
                let _ = rx.wait_for_producer(Duration::ZERO);
            }
        }
    }

    fn take(&mut self, events: Vec<crate::set::Event>) -> Result<Vec<News<K>>, SetupError> {
        let mut news = Vec::new();
        let mut looked = Ok(());
        for event in events {
            if event.key == self.appeared {
                looked = self.look(&mut news);
            } else if event.ready
                && let Some(name) = self.names.get(&event.key)
            {
                self.reported.push(name.clone());
                news.push(News::Ready(name.clone()));
            }
        }
        // The error stands, and the next call meets it.
        match news.is_empty() {
            true => looked.map(|()| news),
            false => Ok(news),
        }
    }

    /// Takes up the topics that appeared, and leaves those that are gone.
    fn look(&mut self, news: &mut Vec<News<K>>) -> Result<(), SetupError> {
        while let Some(found) = self.discovery.try_next()? {
            match found {
                Discovered::Appeared { name, kind } => {
                    let named = |pattern: &Pattern| pattern.as_name().as_ref() == Some(&name);
                    let other = kind.is_some_and(|kind| kind != layout::Kind::Topic);
                    if other && !self.patterns.iter().any(named) {
                        continue;
                    }
                    match self.join(&name) {
                        Ok(_) => news.push(News::Joined(name)),
                        // It went again; that is reported next.
                        Err(SetupError::NotFound { .. }) => {}
                        Err(error) => news.push(News::Refused(name, error)),
                    }
                }
                Discovered::Gone { name, .. } => {
                    if let Some((key, rx)) = self.topics.remove(&name) {
                        self.names.remove(&key);
                        self.set.unwatch(key);
                        news.push(News::Left(name, Box::new(rx)));
                    }
                }
            }
        }
        // All that were there at the start have been taken up.
        self.seek = Seek::Oldest;
        Ok(())
    }

    /// Subscribes to a topic that was [refused](News::Refused), for example because all its seats were taken.
    ///
    /// Errors: as for [`Builder::open`] and [`Channel::consumer`](crate::Channel::consumer).
    pub fn join(&mut self, name: &Name) -> Result<&mut Consumer<K>, SetupError> {
        let builder = self.builder.clone().join(self.seek);
        let rx = builder.open(&name.to_string())?.consumer()?;
        let key = self.set.watch(&rx)?;
        self.names.retain(|_, other| other != name);
        self.names.insert(key, name.clone());
        let entry = self.topics.entry(name.clone()).insert_entry((key, rx));
        Ok(&mut entry.into_mut().1)
    }

    /// Returns the subscriber to this topic; `None` if there is none.
    pub fn get_mut(&mut self, name: &Name) -> Option<&mut Consumer<K>> {
        self.topics.get_mut(name).map(|(_, rx)| rx)
    }

    /// Returns all topics that are subscribed to, sorted by their names, with their subscribers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Name, &mut Consumer<K>)> {
        self.topics.iter_mut().map(|(name, (_, rx))| (name, rx))
    }
}
