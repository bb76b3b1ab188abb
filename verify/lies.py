#!/usr/bin/env python3
"""Tells lies (`stepper --hostile`), ten million of them at rest and a hundred thousand live: each kind, with its
memory in memfds and between walls.

    verify/lies.py           goes on where it stopped; counts are kept in target/verify/lies.json
    verify/lies.py TOTAL     until so many at rest in all

A shard is ten thousand lies at rest and a hundred live, with dice of its own; some seconds. Stop it whenever
you like.
"""

import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTS = ROOT / "target/verify/lies.json"
SHARD = 10_000
MINUTES = 10
KINDS = ["spsc", "bytes", "broadcast", "overwriting", "broadcast-records", "mpmc", "records", "topic", "topic-records"]
VARIANTS = [f"{kind} {where}".strip() for kind in KINDS for where in ["", "--walls"]]


def build():
    command = "cargo build --locked --release -p slipring-stepper --message-format json".split()
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    messages = map(json.loads, built.stdout.splitlines())
    return next(m["executable"] for m in messages if m.get("executable"))


def shard(stepper, variant, seed):
    """One run: lies at rest, found corrupt, lies live, messages meanwhile."""
    command = [stepper, "--hostile", str(SHARD), "--seed", str(seed), *variant.split()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        sys.exit(f"{variant}, seed {seed}: not done within {MINUTES} minutes")
    if done.returncode != 0:
        sys.exit(f"{variant}, seed {seed}: {done.returncode} {done.stderr}")
    rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines()[2:]]
    return [sum(int(row[column]) for row in rows) for column in range(2, 6)]


def main():
    total = int(sys.argv[1]) if sys.argv[1:] else 10_000_000
    stepper = build()
    COUNTS.parent.mkdir(parents=True, exist_ok=True)
    counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    of = lambda name: counts.setdefault(name, {"shards": 0, "rest": 0, "corrupt": 0, "live": 0, "messages": 0})
    while sum(of(name)["rest"] for name in VARIANTS) < total:
        name = min(VARIANTS, key=lambda name: of(name)["rest"])
        start, count = time.monotonic(), of(name)
        found = shard(stepper, name, 1 + count["shards"])
        count["shards"] += 1
        for word, more in zip(["rest", "corrupt", "live", "messages"], found):
            count[word] += more
        COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
        rest, live = (sum(count[word] for count in counts.values()) for word in ["rest", "live"])
        print(f"{rest:,} lies at rest, {live:,} live, 0 failures; the last shard ({name}): "
              f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
