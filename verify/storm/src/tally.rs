//! Counts the events of storms, and keeps the counts in `verify/RESULTS.md`, where the next run
//! takes them up.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The upper bounds of the classes of times, in microseconds; the last class has none.
const BOUNDS: [u64; 22] = [
    20, 50, 100, 200, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4100, 4200, 4300, 4500, 5000,
    7000, 10_000, 20_000, 50_000, 100_000,
];

/// A histogram of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times([u64; BOUNDS.len() + 1]);

impl Times {
    /// Adds one time, in nanoseconds.
    pub(crate) fn add(&mut self, nanoseconds: u64) {
        let class = BOUNDS.partition_point(|bound| bound * 1000 < nanoseconds);
        self.0[class] += 1;
    }

    fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns the bound below which this many of a thousand times are.
    pub(crate) fn below(&self, of_a_thousand: u64) -> String {
        let wanted = (self.count() * of_a_thousand).div_ceil(1000);
        let mut so_far = 0;
        for (class, count) in self.0.iter().enumerate() {
            so_far += count;
            if so_far >= wanted {
                return bound(class);
            }
        }
        bound(BOUNDS.len())
    }
}

impl std::ops::AddAssign<&Times> for Times {
    fn add_assign(&mut self, more: &Times) {
        for (count, more) in self.0.iter_mut().zip(more.0) {
            *count += more;
        }
    }
}

fn bound(class: usize) -> String {
    match BOUNDS.get(class) {
        Some(bound) => format!("{} ms", *bound as f64 / 1000.0),
        None => "longer".to_owned(),
    }
}

/// The times that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// From the kernel's release of a victim until the blocked side's call had returned.
    Unblocked,
    /// The same, if neither that side nor the successor had to wait noticeably for a processor.
    Undisturbed,
    /// From the release until a process that wanted the seat had it.
    Succeeded,
}

impl Time {
    const ALL: [Time; 3] = [Time::Unblocked, Time::Undisturbed, Time::Succeeded];

    fn name(self) -> &'static str {
        match self {
            Time::Unblocked => "the other side unblocked",
            Time::Undisturbed => "undisturbed",
            Time::Succeeded => "the next one seated",
        }
    }
}

/// The events that are counted in a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Kills,
    /// The killed processes that had a seat.
    Seated,
    /// The processes that were stopped and went on.
    Stops,
    /// The messages that were committed; all of them arrived.
    Messages,
    /// The messages that arrived twice.
    Again,
    /// The times that a live side learned of a death.
    Told,
    /// The messages that were reported as lost to a consumer: they were overwritten.
    Lost,
    /// The messages that a queue dropped with a killed consumer, as it was asked to.
    Dropped,
    /// The publishers of a topic that were killed between the entry of a message and the head.
    Behind,
    /// The resizes of rings that grow.
    Resizes,
}

impl Count {
    const NAMES: [&'static str; 10] = [
        "killed",
        "of those seated",
        "stopped",
        "messages",
        "twice",
        "deaths told",
        "overwritten",
        "dropped",
        "head behind",
        "resizes",
    ];
}

/// The counts of one storm or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    counts: [u64; Count::NAMES.len()],
    times: [Times; Time::ALL.len()],
}

impl Tally {
    pub(crate) fn add(&mut self, what: Count, more: u64) {
        self.counts[what as usize] += more;
    }

    pub(crate) fn get(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    pub(crate) fn time(&mut self, what: Time, nanoseconds: u64) {
        self.times[what as usize].add(nanoseconds);
    }
}

/// The kind, and the way in which it was used.
pub(crate) type Row = (String, String);

/// All counts so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    storms: BTreeMap<Row, [u64; Count::NAMES.len()]>,
    times: [Times; Time::ALL.len()],
    /// Seconds and messages.
    soaks: BTreeMap<Row, [u64; 2]>,
}

const STORMS: &str = "## Storms";
const TIMES: &str = "## Times";
const SOAKS: &str = "## Soak";

impl Results {
    pub(crate) fn add_storm(&mut self, row: Row, tally: &Tally) {
        let counts = self.storms.entry(row).or_default();
        for (count, more) in counts.iter_mut().zip(tally.counts) {
            *count += more;
        }
        for (times, more) in self.times.iter_mut().zip(&tally.times) {
            *times += more;
        }
    }

    pub(crate) fn add_soak(&mut self, row: Row, seconds: u64, messages: u64) {
        let counts = self.soaks.entry(row).or_default();
        counts[0] += seconds;
        counts[1] += messages;
    }

    /// Returns the number of kills in a row.
    pub(crate) fn kills(&self, row: &Row) -> u64 {
        self.storms
            .get(row)
            .map_or(0, |counts| counts[Count::Kills as usize])
    }

    fn total(&self, what: Count) -> u64 {
        self.storms
            .values()
            .map(|counts| counts[what as usize])
            .sum()
    }

    /// Returns a summary in one line.
    pub(crate) fn summary(&self) -> String {
        let [unblocked, undisturbed, succeeded] = &self.times;
        format!(
            "{} killed ({} of them seated), {} stopped, {} messages, 0 lost, {} overwritten; the other side unblocked within \
             {} (p50), {} (p99.9), undisturbed {} (p99.9); the next one seated within {} (p50), {} (p99.9); \
             {} killed between a topic's entry and its head; {} resizes",
            figure(self.total(Count::Kills)),
            figure(self.total(Count::Seated)),
            figure(self.total(Count::Stops)),
            figure(self.total(Count::Messages)),
            figure(self.total(Count::Lost)),
            unblocked.below(500),
            unblocked.below(999),
            undisturbed.below(999),
            succeeded.below(500),
            succeeded.below(999),
            figure(self.total(Count::Behind)),
            figure(self.total(Count::Resizes)),
        )
    }

    fn path() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../RESULTS.md"))
    }

    /// Changes the kept results under a lock, because other processes may do so too. Returns the
    /// new results.
    pub(crate) fn keep(change: impl FnOnce(&mut Results)) -> Results {
        let directory = std::fs::File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
        directory.lock().unwrap();
        let mut results = Results::load();
        change(&mut results);
        results.save();
        results
    }

    /// Returns the results that the last run left.
    pub(crate) fn load() -> Results {
        match std::fs::read_to_string(Results::path()) {
            Ok(text) => Results::parse(&text),
            Err(_) => Results::default(),
        }
    }

    /// Replaces the file in one step: an interrupted process leaves the old results.
    fn save(&self) {
        let new = Results::path().with_extension("new");
        std::fs::write(&new, self.text()).unwrap();
        std::fs::rename(new, Results::path()).unwrap();
    }

    fn parse(text: &str) -> Results {
        let mut results = Results::default();
        let mut part = "";
        for line in text.lines() {
            if line.starts_with("## ") {
                part = line;
            }
            let cells = line.trim_matches('|').split('|').map(str::trim);
            let cells = cells.collect::<Vec<_>>();
            let numbers = |from: usize| -> Option<Vec<u64>> {
                let cells = cells.get(from..)?.iter();
                cells
                    .map(|cell| cell.replace(',', "").parse().ok())
                    .collect()
            };
            let row = || (cells[0].to_owned(), cells[1].to_owned());
            match part {
                STORMS => {
                    // A file from before a count was added lacks that column: it was zero.
                    let counts = numbers(2).filter(|counts| counts.len() <= Count::NAMES.len());
                    if let Some(mut counts) = counts {
                        counts.resize(Count::NAMES.len(), 0);
                        results.storms.insert(row(), counts.try_into().unwrap());
                    }
                }
                SOAKS => {
                    if let Some(Ok(counts)) = numbers(2).map(TryInto::try_into) {
                        results.soaks.insert(row(), counts);
                    }
                }
                TIMES => {
                    let class = (0..=BOUNDS.len()).find(|class| bound(*class) == cells[0]);
                    if let (Some(class), Some(counts)) = (class, numbers(1)) {
                        for (times, count) in results.times.iter_mut().zip(counts) {
                            times.0[class] = count;
                        }
                    }
                }
                _ => {}
            }
        }
        results
    }

    fn text(&self) -> String {
        let named = |(kind, how): &Row, counts: &[u64]| {
            let figures = counts.iter().copied().map(figure);
            [kind.clone(), how.clone()]
                .into_iter()
                .chain(figures)
                .collect()
        };
        let storms = self.storms.iter().map(|(row, counts)| named(row, counts));
        let soaks = self.soaks.iter().map(|(row, counts)| named(row, counts));
        let heads = |texts: &[&'static str], names: &[&'static str]| [texts, names].concat();
        [
            include_str!("results.md"),
            &table(&heads(&["kind", "waits by"], &Count::NAMES), 2, storms),
            &format!("\nIn all: {}.\n\n", self.summary()),
            include_str!("times.md"),
            &self.times_table(),
            include_str!("soak.md"),
            &table(&["kind", "place", "seconds", "messages"], 2, soaks),
        ]
        .concat()
    }

    pub(crate) fn times_table(&self) -> String {
        let classes = (0..=BOUNDS.len()).map(|class| {
            let counts = self.times.iter().map(|times| figure(times.0[class]));
            std::iter::once(bound(class)).chain(counts).collect()
        });
        let heads = [&["at most"][..], &Time::ALL.map(Time::name)].concat();
        table(&heads, 1, classes)
    }
}

/// Returns a table with `texts` columns of words, and the others of figures.
fn table(heads: &[&str], texts: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let rule = (0..heads.len()).map(|column| if column < texts { "---" } else { "--:" });
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rows = rows.map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    [line(heads), line(&rule.collect::<Vec<_>>())]
        .into_iter()
        .chain(rows)
        .collect()
}

/// Returns a figure with commas.
pub(crate) fn figure(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results that were written out are taken up where they were left.
    #[test]
    fn results_survive_a_round_trip() {
        let mut results = Results::default();
        let mut tally = Tally::default();
        tally.add(Count::Kills, 1_234_567);
        tally.add(Count::Told, 1);
        tally.time(Time::Unblocked, 0);
        tally.time(Time::Unblocked, 4_000_001);
        tally.time(Time::Succeeded, u64::MAX / 1000);
        results.add_storm(("spsc".into(), "sleep".into()), &tally);
        results.add_storm(("bytes".into(), "poll".into()), &tally);
        results.add_soak(("spsc".into(), "named".into()), 60, 5_000_000_000);
        let text = results.text();
        assert_eq!(Results::parse(&text), results);
        assert_eq!(Results::parse(&text).text(), text);
    }

    /// A class holds the times that are not above its bound.
    #[test]
    fn a_class_includes_its_bound() {
        let mut times = Times::default();
        (1..=999).for_each(|_| times.add(4_100_000));
        times.add(4_100_001);
        assert_eq!(times.below(999), "4.1 ms");
        assert_eq!(times.below(1000), "4.2 ms");
    }
}
