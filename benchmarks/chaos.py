"""Chaos for workers on Redis: `python -m benchmarks.chaos --minutes 30`.

Clients join, leave, update and send at random, and replay their events. Meanwhile workers are killed, paused and
reloaded, and Redis is cut off, flushed, paused and restarted empty. After each round every view, the counts of every
server and the data in Redis must agree, and a message must reach everybody once. With several shards, half of the
rounds harm Redis alone, and leave some shards untouched: there witnesses talk, and must notice nothing. The exit status
is 1, and the seed is printed, if a member was missing or listed wrongly, if an event was impossible, or if a witness
noticed anything or waited for more than two seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter

from tests.support.chaos.witnesses import Figures
from tests.support.chaos.world import running_world

from .servers import redis_program

ROUNDS_PER_WORLD = 25
LATE = 2.0
"""Seconds after which an answer or a message in an untouched shard is late; other programs need the machine too."""


def main() -> int:
    options = _parse()
    program = redis_program()
    done: Counter[str] = Counter()
    healed: list[float] = []
    figures = Figures()
    end, seed, failures = time.monotonic() + options.minutes * 60, options.seed, 0
    while time.monotonic() < end:
        try:
            with running_world(program, seed, options.workers, options.shards, options.kind) as world:
                try:
                    world.play(ROUNDS_PER_WORLD, end)
                finally:
                    healed += world.healed
                    done += world.done
                    figures = figures.with_(world.figures)
        except Exception as problem:  # the next world may do better
            failures += 1
            print(f"seed {seed}: {type(problem).__name__}: {problem}", flush=True)
        seed += 1
    for what, count in sorted(done.items()):
        print(f"{count:8} {what}")
    if healed:
        middle, most = statistics.median(healed), max(healed)
        print(f"{len(healed)} rounds; healed {middle:.1f} s after the last fault (median), {most:.1f} s at most")
    if figures.messages:
        print(
            f"untouched shards: {figures.messages} messages arrived, the longest took {figures.delivery:.2f} s; "
            f"an answer {figures.answer:.2f} s, a page {figures.page:.2f} s"
        )
    print(f"{failures} of {seed - options.seed} worlds failed")
    if figures.longest > LATE:
        print(f"more than {LATE} s is too late for a shard that nothing has touched")
    return 1 if failures or figures.longest > LATE else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--shards", type=int, default=1, help="how many Redis servers have a part of the channels each")
    kinds = parser.add_mutually_exclusive_group()
    text = "one of the shards is a master with a replica behind Sentinels, and only that one is harmed"
    kinds.add_argument("--sentinel", dest="kind", action="store_const", const="sentinel", help=text)
    text = "16 shards on a cluster of three masters with replicas, whatever --shards says"
    kinds.add_argument("--cluster", dest="kind", action="store_const", const="cluster", help=text)
    parser.set_defaults(kind="servers")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
