//! Checks `docs/verbs.md`, the table of all verbs, against the code.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(file)).unwrap()
}

/// Returns the public functions in the blocks of `source` that begin with a line `impl…`.
fn functions(source: &str, impls: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in source.lines() {
        if line.starts_with("impl") {
            inside = impls.contains(&line.trim_end_matches(" {"));
        } else if line == "}" {
            inside = false;
        }
        let (Some(function), true) = (line.strip_prefix("    pub "), inside) else {
            continue;
        };
        let function = function.trim_start_matches("async ");
        if let Some(function) = function.strip_prefix("fn ") {
            let end = function.find(['(', '<']).unwrap();
            found.insert(function[..end].to_owned());
        }
    }
    found
}

/// A column of the table: a kind, or one of its modes.
struct Column {
    head: &'static str,
    kind: &'static str,
    /// The blocks of the handles' files that hold its verbs, besides those of `Kind`.
    traits: &'static [&'static str],
    /// `true` if it has the verbs of records.
    records: bool,
}

const COLUMNS: [Column; 9] = [
    Column {
        head: "`spsc`",
        kind: "spsc",
        traits: &["SlotKind", "InPlaceKind", "PeekKind"],
        records: false,
    },
    Column {
        head: "`broadcast`, waiting",
        kind: "broadcast",
        traits: &["SlotKind", "InPlaceKind", "PeekKind"],
        records: false,
    },
    Column {
        head: "`broadcast`, overwriting",
        kind: "broadcast",
        traits: &["SlotKind"],
        records: false,
    },
    Column {
        head: "`bytes`",
        kind: "bytes",
        traits: &[],
        records: true,
    },
    Column {
        head: "`broadcast::records`",
        kind: "broadcast/records",
        traits: &[],
        records: true,
    },
    Column {
        head: "`mpmc`",
        kind: "mpmc",
        traits: &["SlotKind", "InPlaceKind"],
        records: false,
    },
    Column {
        head: "`mpmc::records`",
        kind: "mpmc/records",
        traits: &[],
        records: true,
    },
    Column {
        head: "`topic`",
        kind: "topic",
        traits: &["SlotKind", "InPlaceKind", "PeekKind"],
        records: false,
    },
    Column {
        head: "`topic::records`",
        kind: "topic/records",
        traits: &[],
        records: true,
    },
];

/// Returns what the code has for a column and role.
fn in_code(column: &Column, role: &str) -> BTreeSet<String> {
    let kind = column.kind;
    let own = [
        format!("impl {role}"),
        format!("impl<T: Payload> {role}<T>"),
        format!("impl<T: Payload, M: Mode> {role}<T, M>"),
        format!("impl<K: QueueKind> {}::{role}<K>", role.to_lowercase()),
        format!("impl<K: TopicKind> {}::{role}<K>", role.to_lowercase()),
    ];
    let handle = format!("crates/slipring/src/{}.rs", role.to_lowercase());
    let impls = ["Kind"].iter().chain(column.traits);
    let impls: Vec<String> = impls
        .map(|bound| format!("impl<K: {bound}> {role}<K>"))
        .collect();
    let impls: Vec<&str> = impls.iter().map(String::as_str).collect();
    let mut found = functions(&read(&handle), &impls);
    found.extend(functions(&read("crates/slipring/src/channel.rs"), &impls));
    let growth = read("crates/slipring/src/growth.rs");
    found.extend(functions(&growth, &impls));
    if matches!(kind, "spsc" | "bytes") {
        let growing = format!("impl<K: GrowKind> {role}<K>");
        found.extend(functions(&growth, &[&growing]));
    }
    if column.records {
        let records = format!("impl<R> {role}<OfRecords<R>>");
        let file = read("crates/slipring/src/records.rs");
        found.extend(functions(&file, &[&records]));
    }
    let mut files = vec![format!("crates/slipring/src/kinds/{kind}.rs")];
    if kind == "mpmc" {
        files.push("crates/slipring/src/kinds/mpmc/owned.rs".to_owned());
    }
    if matches!(kind, "bytes" | "broadcast/records" | "mpmc/records") {
        let records = format!("impl<R> {role}<OfRecords<R>>");
        let file = read("crates/slipring/src/records/batch.rs");
        found.extend(functions(&file, &[&records]));
    }
    if matches!(kind, "bytes" | "broadcast/records") {
        let records = format!("impl<R> {role}<OfRecords<R>>");
        for file in ["packed.rs", "packed/io.rs"] {
            let file = read(&format!("crates/slipring/src/kinds/{file}"));
            found.extend(functions(&file, &[&records]));
        }
    }
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    for file in files {
        found.extend(functions(&read(&file), &own));
    }
    // Verbs of values and records alike, of a kind with both.
    if let Some((family, _)) = kind.split_once('/') {
        let bound = match family {
            "mpmc" => "QueueKind",
            _ => "TopicKind",
        };
        let both = format!("impl<K: {bound}> {}::{role}<K>", role.to_lowercase());
        let file = read(&format!("crates/slipring/src/kinds/{family}.rs"));
        found.extend(functions(&file, &[&both]));
    }
    if kind.starts_with("mpmc") || kind.starts_with("topic") {
        let crowded = format!("impl<K: CrowdKind> {role}<K>");
        found.extend(functions(
            &read("crates/slipring/src/channel.rs"),
            &[&crowded],
        ));
    }
    found
}

/// Returns what the table has for a column and role. A cell is `yes` or says why not.
fn in_table(wanted: &Column, role: &str) -> BTreeSet<String> {
    let page = read("docs/verbs.md");
    let section = page.split(&format!("\n## {role}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut rows = section.lines().filter(|line| line.starts_with('|'));
    let head: Vec<&str> = rows.next().unwrap().split('|').map(str::trim).collect();
    let column = head.iter().position(|name| *name == wanted.head);
    let mut found = BTreeSet::new();
    for row in rows.skip(1) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (verb, cell) = (cells[1].trim_matches('`'), cells[column.unwrap()]);
        if !cell.starts_with("yes") {
            assert!(
                cell.starts_with("no: "),
                "{verb} of {}: {cell:?} is no reason",
                wanted.head
            );
            continue;
        }
        for form in cells[2].split(", ") {
            found.insert(match form {
                "try" => format!("try_{verb}"),
                "wait" | "as named" => verb.to_owned(),
                "timeout" | "async" => format!("{verb}_{form}"),
                form => panic!("{verb}: unknown form {form:?}"),
            });
        }
    }
    found
}

#[test]
fn every_verb_is_in_the_table() {
    for column in &COLUMNS {
        for role in ["Producer", "Consumer"] {
            let (code, table) = (in_code(column, role), in_table(column, role));
            assert!(code.len() > 20, "only {} verbs found", code.len());
            let (more, less): (Vec<_>, Vec<_>) = (
                code.difference(&table).collect(),
                table.difference(&code).collect(),
            );
            assert!(
                more.is_empty() && less.is_empty(),
                "{role} of {}: only the code has {more:?}, only the table has {less:?}",
                column.head
            );
        }
    }
}
