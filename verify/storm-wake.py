#!/usr/bin/env python3
"""Kills processes at random while both sides of a channel wait, through sleep and through descriptors, a
hundred thousand times; every message is accounted for, and nobody waits for longer than LONG.

    verify/storm-wake.py           goes on where it stopped; counts are kept in target/verify/storm-wake.json
    verify/storm-wake.py TOTAL     until so many kills in all

A shard is a thousand kills of one variant, with dice of its own; some seconds each. Every other kill the
survivor is stopped until the victim has a successor. Stop it whenever you like.
"""

import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTS = ROOT / "target/verify/storm-wake.json"
SHARD = 1000
MINUTES = 10
LONG = 5000  # milliseconds without a message, at most


def build():
    """The storm, and beside it the peers, optimised."""
    command = "cargo build --locked --release -p slipring-tests --message-format json".split()
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    messages = map(json.loads, built.stdout.splitlines())
    made = [m["executable"] for m in messages if m.get("executable")]
    return next(path for path in made if pathlib.Path(path).name == "storm")


def shard(storm, variant, seed):
    """One storm; the messages that arrived, and the longest silence."""
    command = [storm, variant, str(SHARD), str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        sys.exit(f"{variant}, seed {seed}: not done within {MINUTES} minutes")
    if done.returncode != 0:
        sys.exit(f"{variant}, seed {seed}: {done.stderr}")
    messages, silence = map(int, done.stdout.split())
    if silence > LONG:
        sys.exit(f"{variant}, seed {seed}: {silence} ms without a message")
    return messages, silence


def main():
    total = int(sys.argv[1]) if sys.argv[1:] else 100_000
    storm = build()
    variants = subprocess.run([storm], check=True, capture_output=True, text=True).stdout.splitlines()
    COUNTS.parent.mkdir(parents=True, exist_ok=True)
    counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    of = lambda name: counts.setdefault(name, {"kills": 0, "messages": 0, "silence_ms": 0})
    while sum(of(name)["kills"] for name in variants) < total:
        name = min(variants, key=lambda name: of(name)["kills"])
        start, count = time.monotonic(), of(name)
        messages, silence = shard(storm, name, 1 + count["kills"])
        count["kills"] += SHARD
        count["messages"] += messages
        count["silence_ms"] = max(count["silence_ms"], silence)
        COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
        kills = sum(count["kills"] for count in counts.values())
        longest = max(count["silence_ms"] for count in counts.values())
        print(f"{kills:,} kills, 0 messages lost, {longest} ms the longest silence; the last thousand "
              f"({name}): {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
