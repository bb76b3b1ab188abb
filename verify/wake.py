#!/usr/bin/env python3
"""Puts a consumer in another process to sleep and wakes it, a thousand million times, in all variants of
the barrier. A lost wake is a sleep without an end: the shard does not finish within MINUTES.

    verify/wake.py             goes on where it stopped; counts are kept in target/verify/wake.json
    verify/wake.py TOTAL       until so many wakes in all

A shard is a million wakes of each variant, some minutes in all. Stop it whenever you like.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTS = ROOT / "target/verify/wake.json"
SHARD = 1_000_000
MINUTES = 10
# A ring of one, and sleeps without an end but the wake (an hour).
CHANNEL = "kind=u64 capacity=1 check=3600000"
# What is said to the asker, and to the answerer, before they begin.
WARM_UP = ["producer warm-up kind=u64 capacity=64", "leave producer", "sandbox"]
VARIANTS = {
    "barriers": ([], []),
    "fences": (["fenced"], ["fenced"]),
    "publisher fenced": (["fenced"], []),
    "sleeper fenced": ([], ["fenced"]),
    "refused by a sandbox": (["sandbox"], ["sandbox"]),
    "refused later": (WARM_UP, WARM_UP),
}


def build():
    """The other process of the tests, optimised."""
    command = "cargo build --locked --release -p slipring-tests --message-format json".split()
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    messages = map(json.loads, built.stdout.splitlines())
    made = [m["executable"] for m in messages if m.get("executable")]
    return next(path for path in made if pathlib.Path(path).name == "peer")


def shard(peer, before):
    """Runs one pair of processes until the answerer was woken SHARD times."""
    room = tempfile.mkdtemp(prefix="slipring-wake-", dir="/dev/shm")
    pair = []
    try:
        for lines, verb in zip(before, [f"ask {SHARD} {CHANNEL}", f"answer {CHANNEL} wait=sleep"]):
            process = subprocess.Popen(
                [peer],
                env={"SLIPRING_DIR": room},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            pair.append(process)
            for line in lines:
                process.stdin.write(line + "\n")
                process.stdin.flush()
                assert process.stdout.readline().startswith("ok"), line
            process.stdin.write(verb + "\n")
            process.stdin.close()
        for process in pair:
            if process.wait(timeout=60 * MINUTES) != 0 or not process.stdout.read().startswith("ok"):
                sys.exit("a process failed")
    except subprocess.TimeoutExpired:
        sys.exit(f"a wake was lost: not done within {MINUTES} minutes")
    finally:
        for process in pair:
            process.kill()
            process.wait()
        shutil.rmtree(room)


def main():
    total = int(sys.argv[1]) if sys.argv[1:] else 1_000_000_000
    peer = build()
    COUNTS.parent.mkdir(parents=True, exist_ok=True)
    counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    while sum(counts.values()) < total:
        name = min(VARIANTS, key=lambda name: counts.get(name, 0))
        start = time.monotonic()
        shard(peer, VARIANTS[name])
        counts[name] = counts.get(name, 0) + SHARD
        COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
        print(f"{sum(counts.values()):,} wakes, 0 lost; the last million ({name}): "
              f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
