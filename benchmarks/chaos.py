"""Chaos for workers on one Redis: `python -m benchmarks.chaos --minutes 30`.

Clients join, leave, update and send at random, and replay their events. Between the rounds workers are killed, paused
and reloaded, and Redis is cut off, flushed, paused and restarted empty. After each round every view, the counts of
every server and the data in Redis must agree, and a message must reach everybody once. The exit status is 1, and the
seed is printed, if a member was missing or listed wrongly, or if an event was impossible.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter

from tests.support.chaos import running_world

from .servers import redis_program

ROUNDS_PER_WORLD = 25


def main() -> int:
    options = _parse()
    program = redis_program()
    done: Counter[str] = Counter()
    healed: list[float] = []
    end, seed, failures = time.monotonic() + options.minutes * 60, options.seed, 0
    while time.monotonic() < end:
        try:
            with running_world(program, seed, options.workers, options.shards) as world:
                healed += world.play(ROUNDS_PER_WORLD, end)
                done += world.done
        except AssertionError as problem:
            failures += 1
            print(f"seed {seed}: {problem}", flush=True)
        seed += 1
    for what, count in sorted(done.items()):
        print(f"{count:8} {what}")
    if healed:
        middle, most = statistics.median(healed), max(healed)
        print(f"{len(healed)} rounds; healed {middle:.1f} s after the last fault (median), {most:.1f} s at most")
    print(f"{failures} of {seed - options.seed} worlds failed")
    return 1 if failures else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--shards", type=int, default=1, help="how many Redis servers have a part of the channels each")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
