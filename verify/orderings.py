#!/usr/bin/env python3
"""Shows that each ordering is needed: weakens one at a time in a scratch copy, and asks what finds out.

    verify/orderings.py            goes on where it stopped, and prints the table of verify/README.md
    verify/orderings.py FILE...    only files of these names
    verify/orderings.py --names    only checks that the orderings named below are there still; CI does

The orderings are found, not listed: every one stronger than Relaxed, and every fence, in the sources of
`slipring-core` and `slipring`. A new file joins by itself. Each is weakened to Relaxed (AcqRel to each
of its halves as well), each fence removed (a SeqCst fence made AcqRel as well). Asked are, until one
finds out: for what loom cannot see, the SPIN models, by the part that stands for this ordering (SPIN
below); and the loom models, those of its kind first, the quickest of each first. (No test: x86 has no weaker loads and stores than acquire
and release. What `slipring` orders, it should have the core do, where loom sees it.)

The loom models are built once, with all mutants of the core in them; the environment says which one to be.

Exit code 1 if a mutant survives that SURVIVORS does not explain, if an explained one does not survive, or
if fewer than 95 % are caught. What was found out is kept in target/verify/orderings.json: what was caught
until its file changes, what survived until anything does.
"""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "target/verify/orderings.json"
CRATES = ["slipring-core", "slipring"]
# Where fences come from; its only one is that of its callers.
DEFINES = "sync.rs"
COPIED = ["Cargo.toml", "Cargo.lock", "crates", "examples", "testkit", "tests", "verify/stepper", "verify/storm"]
COPIED += ["verify/spin", "verify/spin.sh"]
STRONG = re.compile(
    r"(?P<compiler>\bcompiler_fence\(\);)"
    r"|(?P<fence>\bfence\()?Ordering::(?P<kind>Acquire|Release|AcqRel|SeqCst)(?(fence)\);)"
)
FUNCTION = re.compile(r"^( *)(?:pub(?:\(\w+\))? )?(?:const )?(?:unsafe )?fn (\w+)", re.M)
OWNER = re.compile(r"^(?:unsafe )?(?:impl|trait)(?:<[^>]*>)? (?:\w+(?:<[^>]*>)? for )?(\w+)", re.M)
# How a build with all mutants chooses one, as `3=Relaxed` or `3=removed`.
CHOICE = "SLIPRING_MUTANT"
CHOOSES = """
extern crate std;

fn chosen(n: usize, as_it_is: Ordering) -> Option<Ordering> {
    static CHOICE: std::sync::OnceLock<std::string::String> = std::sync::OnceLock::new();
    let choice = CHOICE.get_or_init(|| std::env::var("SLIPRING_MUTANT").unwrap_or_default());
    match choice.split_once('=') {
        Some((which, weaker)) if which.parse() == Ok(n) => match weaker {
            "Acquire" => Some(Ordering::Acquire),
            "Release" => Some(Ordering::Release),
            "AcqRel" => Some(Ordering::AcqRel),
            "Relaxed" => Some(Ordering::Relaxed),
            _ => None,
        },
        _ => Some(as_it_is),
    }
}

/// The ordering of place `n`.
pub fn ordering(n: usize, as_it_is: Ordering) -> Ordering {
    chosen(n, as_it_is).unwrap_or(Ordering::Relaxed)
}

/// The fence of place `n`, if it is there.
pub fn fence_of(n: usize, as_it_is: Ordering) {
    if let Some(ordering) = chosen(n, as_it_is) {
        fence(ordering);
    }
}
"""
BUILD = "cargo test -p slipring-core --test loom --release --locked --no-run --message-format json".split()
MINUTES = 15
WANTED = 0.95

# What loom cannot see: it has no compiler, and runs read-modify-writes in program order. The model's part
# is what the protocol becomes without the ordering. Key: file, type or module, function, which one there.
SPIN = {
    "wait.rs Notifier::ring_for compiler fence 1": ("wake", "ASYMMETRIC", 9),
    "wait.rs Notifier::tell Release 2": ("wake", "ASYMMETRIC", 7),
    "wait/waiter.rs Waiter::arm Acquire 1": ("wake", "SET", 4),
}

# What survives, and why that is right.
SURVIVORS = {
    "proto/mpmc/recovery.rs Run::finish Release fence 1": "found by reasoning: no model has an end that meets inner words alone",
    "proto/mpmc/recovery.rs Run::split Release 1": "an end that sees an older word behind the cut tries a CAS there, in vain",
    "proto/topic/watching.rs Watcher::overrun Acquire fence 1": "found by reasoning: no model has a watcher with a new entry and an old head",
    "proto/topic/word.rs Topic::raise Release 1": "only a stranger's write leads there, and no model has strangers",
}


def sources():
    """The files that may hold orderings, and their names in the table."""
    for crate in CRATES:
        for path in sorted((ROOT / "crates" / crate / "src").rglob("*.rs")):
            name = path.relative_to(ROOT / "crates" / crate / "src")
            if name.name != DEFINES:
                yield path, str(name if crate == CRATES[0] else crate / name)


def places(text):
    """Each strong ordering: where it stands, what it is, and a name that outlives edits elsewhere."""
    seen = {}
    for found in STRONG.finditer(text):
        before = text[: found.start()]
        if "//" in before.rsplit("\n", 1)[-1]:
            continue
        if before.endswith("fence("):
            sys.exit(f"a fence that is not a statement on one line:\n{before[-200:]}")
        indent, name = FUNCTION.findall(before)[-1]
        if indent:
            name = f"{OWNER.findall(before)[-1]}::{name}"
        seen[name] = seen.get(name, 0) + 1
        kind = "compiler" if found["compiler"] else found["kind"]
        kind += " fence" if found["fence"] or found["compiler"] else ""
        yield found, kind, f"{name} {kind} {seen[name]}"


def weaker(kind):
    """To what an ordering of this kind is weakened."""
    if kind == "SeqCst fence":
        return ["removed", "AcqRel"]
    if kind.endswith("fence"):
        # A relaxed one does not exist.
        return ["removed"]
    return ["Relaxed", "Acquire", "Release"] if kind == "AcqRel" else ["Relaxed"]


def replaced(text, change):
    """The text with each of its places as `change` says, which is given the place's number."""
    made, end = [], 0
    for nth, (found, _, _) in enumerate(places(text)):
        made += [text[end : found.start()], change(nth, found)]
        end = found.end()
    return "".join(made) + text[end:]


def choosing(text, first):
    """The text with each of its places as the environment chooses, numbered from `first`."""

    def change(nth, found):
        if found["compiler"]:
            return found[0]
        strong = f"{first + nth}, Ordering::{found['kind']}"
        if found["fence"]:
            return f"crate::sync::fence_of({strong});"
        return f"crate::sync::ordering({strong})"

    return replaced(text, change)


def files(*paths):
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield file


def digest(*paths):
    """Of the contents of files, and of all files in directories."""
    sum_ = hashlib.sha256()
    for file in files(*paths):
        sum_.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return sum_.hexdigest()[:16]


class Scratch:
    """A copy of the workspace, and what finds mutants in it."""

    def __init__(self):
        # Its own target: cargo takes packages that lie alike in two workspaces for the same.
        self.target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "orderings"
        self.place = self.target / "scratch"
        self.models, self.program, self.first = [], "", {}
        core, count, chosen = ROOT / "crates" / CRATES[0], 0, {}
        for path, name in sources():
            if path.is_relative_to(core):
                text = path.read_text()
                self.first[name] = count
                chosen[path] = choosing(text, count).encode()
                count += len(list(places(text)))
        defines = core / "src" / DEFINES
        chosen[defines] = defines.read_bytes() + CHOOSES.encode()
        for path in files(*(ROOT / part for part in COPIED)):
            self.put(path, chosen.get(path, path.read_bytes()))

    def put(self, path, content):
        """Changes a file of the copy, if that is a change: cargo looks at its time."""
        copy = self.place / path.relative_to(ROOT)
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)

    def build(self):
        """Builds the loom models, with all mutants of the core."""
        environment = dict(os.environ, CARGO_TARGET_DIR=str(self.target), RUSTFLAGS="--cfg loom")
        environment.update(CARGO_PROFILE_RELEASE_LTO="off", CARGO_PROFILE_RELEASE_DEBUG="0")
        built = subprocess.run(
            BUILD, cwd=self.place, env=environment, capture_output=True, text=True, check=False
        )
        if built.returncode != 0:
            sys.exit(f"the scratch copy does not build:\n{built.stderr}")
        messages = map(json.loads, built.stdout.splitlines())
        self.program = [m["executable"] for m in messages if m.get("executable")][-1]

    def passes(self, model, mutant=""):
        words = [self.program, "--exact", model]
        environment = dict(os.environ, RUST_BACKTRACE="0", **{CHOICE: mutant})
        try:
            run = subprocess.run(words, env=environment, capture_output=True, timeout=60 * MINUTES)
            return run.returncode == 0
        except subprocess.TimeoutExpired:
            # It has found nothing.
            print(f"{model} does not end ({mutant})", file=sys.stderr)
            return True

    def measure(self, kept, pool):
        """Runs every model on the code as it is, and puts the quickest first."""
        self.build()
        code = digest(ROOT / "crates" / CRATES[0])
        if kept.get("models", {}).get("code") == code:
            self.models = kept["models"]["quickest first"]
            return
        listed = subprocess.run([self.program, "--list"], capture_output=True, text=True, check=True)
        self.models = re.findall(r"^(\S+): test$", listed.stdout, re.M)

        def taken(model):
            began = time.monotonic()
            return self.passes(model) and time.monotonic() - began

        times = dict(zip(self.models, pool.map(taken, self.models)))
        if failed := [model for model in times if times[model] is False]:
            sys.exit(f"on the code as it is fail: {', '.join(failed)}")
        self.models.sort(key=times.get)
        kept["models"] = {"code": code, "quickest first": self.models}

    def finds(self, file, which, to, key, before):
        """What finds this mutant, or nothing. What found it before is asked first, then the models of its kind."""
        if key in SPIN:
            model, variant, part = SPIN[key]
            asked = subprocess.run(
                ["bash", self.place / "verify/spin.sh", model, variant, str(part)],
                capture_output=True,
                text=True,
                check=True,
            )
            if asked.stdout.strip() not in ["", "0"]:
                return f"SPIN: `{model}.pml` {variant}, part {part}"
        # The models of its own kind are the likeliest.
        place = lambda model: (f"`{model}`" != before, model.split("::")[0] not in file)
        models = sorted(self.models, key=place)
        for model in models if file in self.first else []:
            if not self.passes(model, f"{self.first[file] + which}={to}"):
                return f"`{model}`"
        return None


def main():
    wanted = [word for word in sys.argv[1:] if word != "--names"]
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    checks = digest(*(ROOT / part for part in COPIED if "Cargo" not in part))
    every = []
    for path, file in sources():
        if wanted and path.name not in wanted:
            continue
        of = digest(path)
        for which, (_, kind, name) in enumerate(places(path.read_text())):
            every += [(file, which, to, f"{file} {name}", of) for to in weaker(kind)]

    keys = {key for *_, key, _ in every}
    if not wanted and (gone := [key for key in [*SPIN, *SURVIVORS] if key not in keys]):
        sys.exit(f"no such ordering any more; say anew where it is: {', '.join(gone)}")

    if "--names" in sys.argv[1:]:
        print(f"{len(every)} orderings to weaken; those with a name are there")
        return

    def known(key, to, of):
        found = kept.get(f"{key} {to}")
        return found and found["file"] == of and (found["by"] or found["checks"] == checks)

    scratch = Scratch()
    wrong, caught = [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not all(known(key, to, of) for *_, to, key, of in every):
            scratch.measure(kept, pool)

        def ask(mutant):
            *what, of = mutant
            _, _, to, key = what
            if known(key, to, of):
                return kept[f"{key} {to}"]
            before = kept.get(f"{key} {to}", {}).get("by")
            return {"file": of, "checks": checks, "by": scratch.finds(*what, before)}

        print("| ordering | weakened to | found by |\n|---|---|---|", flush=True)
        for (file, _, to, key, _), found in zip(every, pool.map(ask, every)):
            kept[f"{key} {to}"] = found
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            KEPT.write_text(json.dumps(kept, indent=1))
            caught += found["by"] is not None
            if (found["by"] is None) != (key in SURVIVORS):
                wrong.append(f"{key} ({to})")
            by = found["by"] or f"SURVIVED: {SURVIVORS.get(key, 'WHY?')}"
            _, function, kind = key.split(" ", 2)
            print(f"| `{file}` `{function}` {kind} | {to} | {by} |", flush=True)
    print(f"\n{caught} of {len(every)} caught: {100 * caught / max(len(every), 1):.1f} %")
    if wrong:
        sys.exit("not as SURVIVORS says: " + "; ".join(wrong))
    if caught < WANTED * len(every) and not wanted:
        sys.exit(f"fewer than {100 * WANTED:.0f} % caught")


if __name__ == "__main__":
    main()
