#!/usr/bin/env python3
"""Shows that the stepper finds what it is there for, and what the storm finds of that: puts one deliberate bug
at a time into a scratch copy, and wants the stepper to fail there, or a short storm.

    verify/stepper/bugs.py             a minute or two for each
    verify/stepper/bugs.py WORDS...    only runs with any of these in their names: of bugs, `stepper`, `storm`
    verify/stepper/bugs.py --texts     only checks that each bug has its place still; CI does

It builds in a directory of its own unless CARGO_TARGET_DIR names one: crates with a bug must not be taken for those of
this tree, as cargo would.

Exit code 1 if a bug goes unnoticed by what is to find it, or is found by what is not known to.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CORE = "crates/slipring-core/src/"
USUAL = "--recovery --first"
# How many a storm kills, at most: a scenario for each of the four ways to wait. It ends at its first failure.
KILLS = 720
MINUTES = 10
# What is wrong: file, text, what stands there instead; by which run it must be found, if not the usual one.
BUGS = {
    "a tail stored before the message": (
        CORE + "proto/spsc.rs",
        """        unsafe { self.slots.write(self.writer.at(), *value) };
        self.writer.commit(1);
""",
        """        let at = self.writer.at();
        self.writer.commit(1);
        unsafe { self.slots.write(at, *value) };
""",
    ),
    "a tail stored before a record": (
        CORE + "packed.rs",
        """        unsafe { self.write(self.room.at(), payload) };
        self.publish(record_size(payload.len() as u64), 1);
""",
        """        let at = self.room.at();
        self.publish(record_size(payload.len() as u64), 1);
        unsafe { self.write(at, payload) };
""",
    ),
    "a tail stored message by message in a batch that is one": (
        CORE + "proto/spsc.rs",
        """            self.writer.commit(amount as u64);
""",
        """            for _ in 0..amount {
                self.writer.commit(1);
            }
""",
    ),
    "a waiters bit that no waker clears": (
        CORE + "wait.rs",
        "        let before = self.wait_cell.waiters.fetch_and(!chosen, Ordering::Acquire);",
        "        let before = self.wait_cell.waiters.fetch_and(!0, Ordering::Acquire);",
    ),
    "a creator that does not sweep": (
        "crates/slipring/src/shm/named.rs",
        "            sweep(&parent);\n            room_for(",
        "            let _ = sweep;\n            room_for(",
        "--first names",
    ),
    "a consumer that begins at the tail": (
        CORE + "cursor/reader.rs",
        "        let (_, at) = words.resume()?;\n",
        "        let (at, _) = words.resume()?;\n",
    ),
    "a taken seat before the end of the last holder was kept": (
        CORE + "seat.rs",
        "        let last = self.life()?;\n        if last.state == State::Finished {",
        "        let last = self.life()?;\n        self.life.store((last.generation + 1) << 8 | 1, Ordering::Release);\n        if last.state == State::Finished {",
    ),
    "a tail stored before the message that all are to see": (
        CORE + "proto/broadcast/writing.rs",
        """        unsafe { self.store_ahead(0, value) };
        self.gate.commit(1);
""",
        """        self.gate.commit(1);
        unsafe { self.slots.write(self.gate.at() - 1, value) };
""",
        "--first broadcast",
    ),
    "a gate that lets one message be read too long": (
        CORE + "gate.rs",
        "    write_limit.load(Ordering::Relaxed).wrapping_sub(at + 1) < capacity\n",
        "    write_limit.load(Ordering::Relaxed).wrapping_sub(at + 1) <= capacity\n",
        "--first overwriting",
    ),
    "a copy that nobody looks after": (
        CORE + "gate.rs",
        "    write_limit.load(Ordering::Relaxed).wrapping_sub(at + 1) < capacity\n",
        "    write_limit.load(Ordering::Relaxed) < u64::MAX || at == capacity\n",
        "--first overwriting",
    ),
    "a dead consumer that is waited for": (
        "crates/slipring/src/seat/repair.rs",
        "    give_back(region, other)?;\n",
        "",
        "--first broadcast",
    ),
    "a successor that takes the gate back": (
        CORE + "gate.rs",
        "            .store(self.published, Ordering::Release);",
        "            .store(write_limit, Ordering::Release);",
        "--first broadcast",
    ),
    "a consumer that goes on in its predecessor's place": (
        CORE + "gate.rs",
        "        let first = wanted.max(self.floor());\n",
        "        let first = self.position.load(Ordering::Relaxed).min(wanted);\n",
        "--first broadcast",
    ),
    "a mask of one bit too many": (
        CORE + "mem.rs",
        "        let index = (position & self.mask) as usize;\n",
        "        let index = (position & (self.mask << 1 | 1)) as usize;\n",
        "--hostile 100 --walls spsc",
    ),
    "a claim that does not name its owner": (
        CORE + "proto/mpmc/claimant.rs",
        "        let word = shape.owned(state, self.seat, count, lap);\n",
        "        let word = shape.owned(state, 0, count, lap);\n",
        "--first --only fellows mpmc",
    ),
    "a repair that begins with the head": (
        CORE + "proto/mpmc/recovery.rs",
        """        for step in (1..head.count).rev() {
            let inner = first.after(step, shape);
            settle_inner(queue, side, seat, delivery, inner)?;
        }
        forget_note(queue, side, delivery, index);
""",
        """        let _ = queue.word(index).compare_exchange(
            found,
            settled(queue, side, delivery, first),
            Ordering::Release,
            Ordering::Relaxed,
        );
        for step in (1..head.count).rev() {
            let inner = first.after(step, shape);
            settle_inner(queue, side, seat, delivery, inner)?;
        }
        forget_note(queue, side, delivery, index);
""",
        "--recovery --first --only pop-slice mpmc",
    ),
    "a message that comes back unmarked": (
        CORE + "proto/mpmc/consumer.rs",
        "        self.deliveries = again.load(Ordering::Relaxed).wrapping_add(1);\n",
        "        self.deliveries = again.load(Ordering::Relaxed);\n",
        "--first --only fellows mpmc",
    ),
    "a message that is released before it is put aside": (
        CORE + "proto/mpmc/consumer.rs",
        "        run.finish(queue, 1, dead_letter, |lap| queue.shape.next_free(lap));\n",
        """        let free = |lap| queue.shape.next_free(lap);
        run.finish(queue, 1, free, free);
        let word = queue.word(run.first.index);
        word.store(dead_letter(run.first.lap), Ordering::Release);
""",
        "--first --only aside mpmc",
    ),
    "a guard that overlooks that its slot was carried": (
        CORE + "proto/mpmc/recovery.rs",
        """            let finished =
                word.compare_exchange(found, word_of(lap), Ordering::Release, Ordering::Relaxed);
            if finished.is_ok() {
                return;
            }
""",
        """            word.store(word_of(lap), Ordering::Release);
            return;
""",
        "--stopped --near 48 --first --only guards mpmc",
    ),
    "a pin set after the second look": (
        CORE + "proto/topic/consumer.rs",
        """        word.store(slot + 1, Ordering::Release);
        // SeqCst: pairs with the fence before a producer's scan; see *why a pinned message stays*.
        fence(Ordering::SeqCst);
        if !self.topic.stands(sequence, entry) {
""",
        """        fence(Ordering::SeqCst);
        let stands = self.topic.stands(sequence, entry);
        word.store(slot + 1, Ordering::Release);
        if !stands {
""",
        "--stopped --first --only latest topic",
    ),
    "a successor that does not read the ring": (
        CORE + "proto/topic/pool.rs",
        "        for (index, entry) in topic.entries(newest) {\n",
        "        for (index, entry) in topic.entries(newest).take(0) {\n",
        "--first topic",
    ),
    "a head that is believed though it is behind": (
        CORE + "proto/topic/word.rs",
        """                Age::Own => return Ok(head + 1),
""",
        """                Age::Own => return Ok(head),
""",
        "--first --only fellows topic",
    ),
    "a consumer that reads beyond the end of its ring": (
        CORE + "rings.rs",
        """            if from > at {
                return Ok(from);
            }
""",
        """            if from > at {
                return Ok(tail);
            }
""",
        "--first spsc-growing",
    ),
    "a ring that is known before its record": (
        CORE + "rings.rs",
        """        // Relaxed, both: the store of `rings` publishes them.
""",
        """        self.rings.words.line.newest.store(next, Ordering::Release);
""",
        "--first --only resize spsc-growing",
    ),
    "a consumer that begins in the newest ring": (
        CORE + "rings.rs",
        "        let live = Live::resume(rings, tail, step, |from| from <= head)?;\n",
        "        let live = Live::resume(rings, tail, step, |_| true)?;\n",
        "--first spsc-growing",
    ),
    "memory that is said to be given back, and is not": (
        CORE + "rings.rs",
        "            backing.give_back(area.start + self.given, step);\n            self.given += step;\n",
        "            self.given += step;\n",
        "--first bytes-growing",
    ),
}

# Which of them a storm is asked about, over which kind. Where it says so it finds nothing: no message is lost by
# that, or it kills too seldom at the one instant.
STORMS = {
    "a tail stored before the message": ("spsc", True),
    "a tail stored before a record": ("bytes", True),
    "a waiters bit that no waker clears": ("spsc", False),
    "a consumer that begins at the tail": ("spsc", True),
    "a tail stored before the message that all are to see": ("broadcast", True),
    "a gate that lets one message be read too long": ("overwriting", True),
    "a copy that nobody looks after": ("overwriting", True),
    "a dead consumer that is waited for": ("broadcast", True),
    "a consumer that begins in the newest ring": ("spsc-growing", True),
    # The next producer gives back what no ring uses.
    "memory that is said to be given back, and is not": ("bytes-growing", False),
}


def runs(bug, stepper=USUAL):
    """What is asked about a bug: by what, with which words, and whether that is to find it."""
    yield "stepper", stepper.split(), True
    if bug in STORMS:
        kind, finds = STORMS[bug]
        yield "storm", [str(KILLS), "--kind", kind], finds


def main():
    for bug, (file, right, *_) in BUGS.items():
        if (ROOT / file).read_text().count(right) != 1:
            sys.exit(f"{bug}: {file} has changed; say anew where the bug goes")
    if sys.argv[1:] == ["--texts"]:
        print(f"{len(BUGS)} bugs have their places")
        return
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for part in ["Cargo.toml", "Cargo.lock", "crates", "testkit", "tests", "verify", "examples"]:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, scratch / part)
        target = os.environ.get("CARGO_TARGET_DIR", str(scratch / "target"))
        environment = dict(os.environ, CARGO_TARGET_DIR=target, CARGO_INCREMENTAL="0")
        for bug, (file, right, mistake, *stepper) in BUGS.items():
            asked = [
                run for run in runs(bug, *stepper)
                if not sys.argv[1:] or any(words in f"{bug} ({run[0]})" for words in sys.argv[1:])
            ]
            source = scratch / file
            text = source.read_text()
            source.write_text(text.replace(right, mistake))
            for by, words, finds in asked:
                found, said = ask(by, words, scratch, environment)
                print(f"{bug} ({by}): {'found: ' if found else 'not found: '}{said}", flush=True)
                if found != finds:
                    wrong.append(f"{bug} ({by})")
            source.write_text(text)
    if wrong:
        sys.exit(f"not as expected: {', '.join(wrong)}")


def ask(by, words, scratch, environment):
    """Whether it fails there, and what it says first."""
    build = ["cargo", "build", "--quiet", "--profile", "evidence", "--locked", "-p", f"slipring-{by}"]
    subprocess.run(build, cwd=scratch, env=environment, check=True)
    program = [f"{environment['CARGO_TARGET_DIR']}/evidence/{by}", *words]
    # A storm's processes go with it: it is the first of a group.
    with subprocess.Popen(
        program, cwd=scratch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as run:
        try:
            _, told = run.communicate(timeout=60 * MINUTES if by == "storm" else None)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return False, f"not done within {MINUTES} minutes"
    # Between walls an access beyond the memory ends the stepper itself.
    found = run.returncode in [1, -signal.SIGSEGV]
    said = [line for line in told.splitlines() if line.strip() and " panicked at " not in line]
    return found, (said or [f"ended with {run.returncode}"])[0]


if __name__ == "__main__":
    main()
