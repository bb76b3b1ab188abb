//! Checks the modules against ARCHITECTURE.md: rooms import only from floors below, and no files
//! import each other in a circle.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A library crate: its files by module path, and the files that each imports.
struct Crate {
    imports: BTreeMap<String, BTreeSet<String>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Collects all modules under `dir`, by their path (`wait::set::entry`).
fn modules(dir: &Path, within: &str, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = match (within, stem.as_str()) {
            (_, "mod") => within.to_owned(),
            ("", _) => stem,
            _ => format!("{within}::{stem}"),
        };
        if path.is_dir() {
            modules(&path, &module, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.insert(module, code_of(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Returns the code without comments and unit tests.
fn code_of(source: &str) -> String {
    let tests = source
        .find("#[cfg(test)]\n")
        .or(source.find("#[cfg(all(test"));
    let code = &source[..tests.unwrap_or(source.len())];
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns every path that begins with `crate` or `super`, with `use` trees taken apart.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            let inside =
                before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$');
            if !inside {
                tree(&[], &code[at..], &mut found);
            }
        }
    }
    found
}

/// Takes one `use` tree apart, and returns the length of `text` that it took.
fn tree(before: &[String], text: &str, found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            loop {
                at += tree(&path, &text[at..], found);
                match text[at..].chars().next() {
                    Some(',') => at += 1,
                    Some('}') => return at + 1,
                    _ => return at,
                }
            }
        }
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        path.push(rest[..end].to_owned());
        at += end;
        match text[at..].strip_prefix("::") {
            Some(_) => at += 2,
            None => break,
        }
    }
    if path.len() > before.len() {
        found.push(path);
    }
    let rename = text[at..].trim_start();
    if rename.starts_with("as ") {
        at = text.len() - rename.len();
        at += text[at..].find([',', '}', ';']).unwrap_or(0);
    }
    at + (text[at..].len() - text[at..].trim_start().len())
}

impl Crate {
    fn read(name: &str) -> Crate {
        let mut sources = BTreeMap::new();
        modules(
            &root().join("crates").join(name).join("src"),
            "",
            &mut sources,
        );
        sources.remove("lib");
        let imports = sources.iter().map(|(module, code)| {
            let all = paths(code).into_iter();
            let files = all.filter_map(|path| file_of(module, &path, &sources));
            (
                module.clone(),
                files.filter(|file| file != module).collect(),
            )
        });
        let imports = imports.collect();
        Crate { imports }
    }
}

/// Returns the file that a path in `module` leads into.
fn file_of(module: &str, path: &[String], files: &BTreeMap<String, String>) -> Option<String> {
    let mut full: Vec<&str> = match path[0].as_str() {
        "crate" => Vec::new(),
        _ => module.split("::").collect(),
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => {
                full.pop();
            }
            part => full.push(part),
        }
    }
    let fronts = (1..=full.len()).rev().map(|len| full[..len].join("::"));
    fronts.into_iter().find(|front| files.contains_key(front))
}

/// Returns the floors of a crate in ARCHITECTURE.md: for each room its floor.
fn floors(name: &str) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = text.split(&format!("```floors {name}\n")).nth(1).unwrap();
    let mut floors = BTreeMap::new();
    for (floor, line) in block.lines().take_while(|line| *line != "```").enumerate() {
        for room in line.split_whitespace() {
            assert!(
                floors.insert(room.to_owned(), floor).is_none(),
                "{room} is on two floors"
            );
        }
    }
    floors
}

fn room_of(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn rooms_import_from_floors_below() {
    for name in ["slipring-core", "slipring"] {
        let (floors, house) = (floors(name), Crate::read(name));
        let rooms: BTreeSet<&str> = house.imports.keys().map(|module| room_of(module)).collect();
        let listed: BTreeSet<&str> = floors.keys().map(String::as_str).collect();
        assert_eq!(
            rooms, listed,
            "the rooms of {name}, and those that ARCHITECTURE.md lists"
        );
        for (module, imports) in &house.imports {
            for import in imports {
                let (room, below) = (room_of(module), room_of(import));
                assert!(
                    room == below || floors[below] < floors[room],
                    "{name}: `{module}` imports `{import}`, which is not on a floor below"
                );
            }
        }
    }
}

#[test]
fn no_files_import_in_circles() {
    for name in ["slipring-core", "slipring"] {
        // A file that imports no remaining file is taken away, until only circles are left.
        let mut left = Crate::read(name).imports;
        assert!(left.len() > 20, "{name}: only {} files", left.len());
        loop {
            let files: BTreeSet<String> = left.keys().cloned().collect();
            left.retain(|_, imports| !imports.is_disjoint(&files));
            if left.len() == files.len() {
                break;
            }
        }
        let circles: Vec<_> = left.keys().collect();
        assert!(circles.is_empty(), "{name}: a circle among {circles:?}");
    }
}
