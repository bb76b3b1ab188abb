#!/usr/bin/env python3
"""Shows that each ordering is needed: weakens one at a time to Relaxed in a scratch copy, runs the
loom models there, and says which of them fail.

    verify/orderings.py            prints the table that verify/README.md holds
    verify/orderings.py FILE...    only those files of crates/slipring-core/src

Exit code 1 if a weakened ordering survives that SURVIVORS does not explain, or if an explained one
no longer survives. Takes about ten seconds an ordering.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ["cursor.rs", "spsc.rs", "bytes.rs", "seat.rs", "wait.rs"]
STRONG = re.compile(r"(?P<fence>\bfence\()?Ordering::(Acquire|Release|AcqRel|SeqCst)(?(fence)\);)")
RUN = "cargo test -p slipring-core --test loom --release --locked".split()

# What survives, and why that is right. Key: file, type or module, function, which one there.
ARGUED = "kept by argument (see `take`); no model reaches it yet"
LEN = "a promise to callers, who may act on it; the models do not"
SPIN = "the SPIN model (`wake.pml`, parts 4 and 7); loom runs read-modify-writes in program order"
MIXED = "kept by argument (*mixed* in `wait.rs`); no model reaches it yet"
SURVIVORS = {
    "seat.rs SeatLine::take Release 2": ARGUED,
    "seat.rs SeatLine::finished Acquire 1": ARGUED,
    "wait.rs Ringer::wake Acquire 2": MIXED,
    "wait.rs Ringer::wake Release 4": SPIN,
    "wait.rs Sleeper::arm Acquire 1": SPIN,
    "cursor.rs Writer::len Acquire 1": LEN,
    "cursor.rs Reader::len Acquire 1": LEN,
    "seat.rs SeatLine::unread_end Acquire 1": "kept by argument; `finished` acquires before it",
}


def places(text):
    """Each strong ordering: its position, and a name that outlives edits elsewhere in the file."""
    seen = {}
    for found in STRONG.finditer(text):
        before = text[: found.start()]
        if before.rsplit("\n", 1)[-1].lstrip().startswith("//"):
            continue
        owner = re.findall(r"^impl(?:<[^>]*>)? (?:\w+ for )?(\w+)", before, re.M)
        function = re.findall(r"\bfn (\w+)", before)[-1]
        name = f"{owner[-1]}::{function}" if owner else function
        seen[name] = seen.get(name, 0) + 1
        yield found, name, seen[name]


def run(scratch):
    """Runs the models; the names of those that fail, or nothing if none does."""
    environment = dict(os.environ, RUSTFLAGS="--cfg loom", RUST_BACKTRACE="0")
    environment.update(CARGO_PROFILE_RELEASE_LTO="off", CARGO_PROFILE_RELEASE_DEBUG="0")
    environment["CARGO_TARGET_DIR"] = os.environ.get("CARGO_TARGET_DIR", "/tmp/target-orderings")
    done = subprocess.run(
        RUN, cwd=scratch, env=environment, capture_output=True, text=True, check=False
    )
    failed = sorted(set(re.findall(r"^test (\S+) \.\.\. FAILED", done.stdout, re.M)))
    if done.returncode != 0 and not failed:
        sys.exit(f"the scratch copy does not build or run:\n{done.stdout}{done.stderr}")
    return failed


def main():
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "verify").mkdir()
        for part in ["Cargo.toml", "Cargo.lock", "crates", "examples", "tests", "verify/stepper"]:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, scratch / part)
        if failed := run(scratch):
            sys.exit(f"the models fail on the code as it is: {', '.join(failed)}")
        print("| ordering | weakened to Relaxed, these models fail |")
        print("|---|---|", flush=True)
        for file in sys.argv[1:] or FILES:
            source = scratch / "crates/slipring-core/src" / file
            text = source.read_text()
            for found, name, nth in places(text):
                # A fence is removed: a relaxed one does not exist.
                weak = "" if found["fence"] else "Ordering::Relaxed"
                source.write_text(text[: found.start()] + weak + text[found.end() :])
                failed = run(scratch)
                kind = found[2] + (" fence" if found["fence"] else "")
                key = f"{file} {name} {kind} {nth}"
                reason = SURVIVORS.get(key)
                if bool(failed) == bool(reason):
                    wrong.append(key)
                shown = ", ".join(f"`{test}`" for test in failed[:2]) or f"none: {reason or 'WHY?'}"
                if failed[2:]:
                    shown += f" and {len(failed) - 2} more"
                print(f"| `{file}` `{name}` {kind} ({nth}) | {shown} |", flush=True)
            source.write_text(text)
    if wrong:
        sys.exit("not as SURVIVORS says: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
