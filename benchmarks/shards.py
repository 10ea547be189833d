"""What a service with several shards costs Redis, counted: `python -m benchmarks.shards`.

The Redis servers and two servers of one worker each share core 0, so nothing here is a race: the figures are commands,
CPU time and memory. The exit status is 1 if a count is wrong: a message or a channel in a shard that is not its own,
more commands with several shards than with one, an uneven share of names, or something that stays behind in Redis or in
a worker. A time does not change the exit status.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from itertools import islice
from statistics import median
from typing import Final, NamedTuple

from flask_presence.backends.redis.shards.sharding import Sharding
from tests.support.redis_server import running_redis

from .copies import memory_of_a_member
from .fleet import Fleet
from .listeners import message_cost
from .report import format_markdown, format_text
from .run import minted_tokens, prepare_machine
from .servers import redis_program
from .sharded_service import Connection, Cost, ShardedService

LABELS: Final = ("a", "b", "c", "d")
GROUP: Final = 10
"""Connections in each channel, half of them on each server."""
CHANNELS: Final = 5
"""Channels of each connection."""
AT_ONCE: Final = 64
"""Messages that are sent together."""
MESSAGES: Final = ("alone", "alone_in_one", "together", "together_in_one", "each")
"""The costs of a message."""
FIRST: Final = 12
"""Channels that are joined and left before anything is measured. Few, because workers close them during it."""
REST: Final = 3.0
"""Seconds for which the cost of doing nothing is measured. It is taken off the other costs."""
LISTENERS: Final = (1, 10, 50, 150)
RECEIVED: Final = 6400
"""Messages that one worker hears from another."""
NAMES: Final = 10_000
MAX_SHARE: Final = 0.3
"""The share of so many names that the busiest of four shards may have."""
MAX_MORE_COMMANDS: Final = 200
"""How many more commands all messages together may take with several shards: a heartbeat of each worker in each shard
may fall between two readings."""
WORKERS: Final = 1000
LOT: Final = 50
"""Channels that are joined together, and left together."""
WARM_UP: Final = 40.0
"""Seconds until a worker's caches are full. It also keeps a channel for some seconds after it was left."""
MAX_GROWTH: Final = 16
"""Bytes by which a worker may grow for each channel: whatever it kept of one would take more."""
ALLOWANCE: Final = 4_000_000
"""Bytes by which it may grow in any case: a faster machine makes it keep more channels that were left just now."""

Problems = list[str]


class Turn(NamedTuple):
    """What one run measured. `alone`: a message with no other in flight; `together`: with others; `each`: with so many
    others that each shard has as many as if it were the only one; `…_in_one`: all messages are in one of the shards."""

    rest: Cost
    connect: Cost
    join: Cost
    alone: Cost
    together: Cost
    each: Cost
    alone_in_one: Cost
    together_in_one: Cost


def main() -> int:
    options = _parse()
    program = redis_program()
    prepare_machine()
    table = format_markdown if options.markdown else format_text
    problems: Problems = []
    with minted_tokens() as file:
        tokens = list(islice(file.read_text().split(), options.connections))
    turns: dict[int, list[Turn]] = {count: [] for count in options.shards}
    for _ in range(options.repeat):
        for count in options.shards:
            turns[count].append(_take_turn(program, count, tokens, options.messages, problems))
    print(table(_compare(turns, options.messages, problems)) + "\n")
    print(table(_share(problems)) + "\n")
    print(table(_receiving(program, tokens)) + "\n")
    print(f"A worker grows by {memory_of_a_member(program, tokens):.0f} bytes for each member on another worker.\n")
    print(table(_listeners(program)) + "\n")
    if options.workers:
        with running_redis(program) as server, Fleet(server, options.workers) as fleet:
            print(
                f"With {options.workers:,} workers, a claim takes {fleet.script_time(fleet.claim):.1f} µs of Redis.\n"
            )
    if options.names:
        print(table(_join_and_leave(program, max(options.shards), tokens[0], options.names, problems)))
    print("\n".join(problems))
    return 1 if problems else 0


# The cost of connections, joins and messages


def _take_turn(program: str, count: int, tokens: list[str], messages: int, problems: Problems) -> Turn:
    """Measure everything once with so many shards."""
    with ShardedService(program, LABELS[:count]) as service, ExitStack() as stack:
        for number in range(2):
            with service.connected(number, tokens[number]) as connection:
                _visit(connection, range(FIRST))  # the shards load the scripts
        rest = service.cost(1, partial(time.sleep, REST))
        connections: list[Connection] = []

        def connect() -> None:
            for number, token in enumerate(tokens):
                connections.append(stack.enter_context(service.connected(number, token)))
            service.settle()

        opened = service.cost(len(tokens), connect, rest)
        groups = [connections[first : first + GROUP] for first in range(0, len(connections), GROUP)]
        names = [[f"presence-room-{group}-{number}" for number in range(CHANNELS)] for group in range(len(groups))]
        joined = service.cost(len(tokens) * CHANNELS, lambda: _join(groups, names), rest)
        _check_places(service, {name for some in names for name in some}, problems)
        rest = service.cost(1, partial(time.sleep, REST))
        control = service.sharding.control
        own = [[name for name in some if service.sharding.of_channel(name) == control] for some in names]
        in_one = [pair for pair in zip(groups, own, strict=True) if pair[1]]
        measure = partial(_measure_messages, service, messages, rest, problems)
        costs = [measure(list(zip(groups, names, strict=True)), size) for size in (1, AT_ONCE, AT_ONCE * count)]
        return Turn(rest, opened, joined, *costs, *(measure(in_one, size) for size in (1, AT_ONCE)))


def _join(groups: list[list[Connection]], names: list[list[str]]) -> None:
    for group, some in zip(groups, names, strict=True):
        for name in some:
            for connection in group:
                connection.send({"type": "join", "channel": name})
                connection.wait(1, "channel:joined")


def _measure_messages(
    service: ShardedService,
    messages: int,
    rest: Cost,
    problems: Problems,
    groups: list[tuple[list[Connection], list[str]]],
    at_once: int,
) -> Cost:
    """Send messages, so many at once, and wait each time until everybody has them. Each goes to the next channel."""
    sent: Counter[str] = Counter()
    before = service.numbered()

    def send() -> None:
        for first in range(0, messages, at_once):
            expected: Counter[int] = Counter()
            for number in range(first, first + at_once):
                at, turn = number % len(groups), number // len(groups)
                connections, names = groups[at]
                name, sender = names[turn % len(names)], connections[turn // len(names) % len(connections)]
                sender.send({"type": "channel:message", "channel": name, "data": number})
                sent[service.sharding.of_channel(name)] += 1
                expected[at] += 1
            for at, count in expected.items():
                for connection in groups[at][0]:
                    connection.wait(count, "channel:message", "channel:sent")

    cost = service.cost(-(-messages // at_once) * at_once, send, rest)
    published = {label: number - before[label] for label, number in service.numbered().items()}
    if published != {label: sent[label] for label in published}:
        problems.append(f"{len(published)} shards published {published} messages instead of {dict(sent)}")
    return cost


def _check_places(service: ShardedService, names: set[str], problems: Problems) -> None:
    """Check that each channel is in its own shard, and in no other."""
    for label, found in service.channels().items():
        own = {name for name in names if service.sharding.of_channel(name) == label}
        if found != own:
            problems.append(f"shard {label} of {len(service.sharding.labels)} has {len(found ^ own)} wrong channels")


def _compare(turns: dict[int, list[Turn]], messages: int, problems: Problems) -> list[list[str]]:
    """The CPU time and memory of the run that was disturbed least, and the median of counts. In brackets: the ratio to
    one shard."""
    kinds = (
        ("message, one in flight", "alone"),
        ("message, one in flight, all in one of the shards", "alone_in_one"),
        (f"message, {AT_ONCE} at once", "together"),
        (f"message, {AT_ONCE} at once, all in one of the shards", "together_in_one"),
        (f"message, {AT_ONCE} at once for each shard", "each"),
        ("join", "join"),
        ("connection", "connect"),
    )
    counts, more = list(turns), MAX_MORE_COMMANDS / messages
    rows = [["", *(f"{count} shard{'s' * (count > 1)}" for count in counts)]]
    for title, field in kinds:
        for measure, text in (("cpu", "Redis CPU, µs"), ("scripts", "scripts"), ("commands", "commands in all")):
            of_runs = min if measure == "cpu" else median
            found = [of_runs([getattr(getattr(turn, field), measure) for turn in turns[count]]) for count in counts]
            rows.append(
                [
                    f"{title}: {text}",
                    *(
                        f"{value:.2f}" + (f" ({value / found[0]:.2f}x)" if at and measure == "cpu" else "")
                        for at, value in enumerate(found)
                    ),
                ]
            )
            if field in MESSAGES and measure != "cpu" and max(found) > found[0] + more:
                problems.append(f"{title}: more {text} with several shards than with one")
    for title, field in (("join", "join"), ("connection", "connect")):
        memory = [f"{min(getattr(turn, field).memory for turn in turns[count]):,.0f}" for count in counts]
        rows.append([f"{title}: Redis memory, bytes", *memory])
    for title, field in ((title, field) for title, field in kinds if field in MESSAGES):
        used = [f"{min(getattr(turn, field).servers for turn in turns[count]):.0f}" for count in counts]
        rows.append([f"{title}: CPU of both workers, µs", *used])
    idle = [min(turn.rest.cpu / REST for turn in turns[count]) for count in counts]
    rows.append(["two workers on which nothing happens: Redis CPU, µs/s", *(f"{value:,.0f}" for value in idle)])
    return rows


def _receiving(program: str, tokens: list[str]) -> list[list[str]]:
    """What a message costs a worker that hears it from Redis and delivers it to one client."""
    rows = [["", "CPU of the worker, µs"]]
    with ShardedService(program, LABELS[:1]) as service, ExitStack() as stack:
        pairs = [
            [stack.enter_context(service.connected(number, tokens[2 * pair + number])) for number in range(2)]
            for pair in range(min(AT_ONCE, len(tokens) // 2))
        ]
        _join(pairs, [[f"presence-pair-{number}"] for number in range(len(pairs))])
        for size, title in ((1, "one message in flight"), (len(pairs), f"{len(pairs)} messages at once")):
            before = service.server_cpu(1)
            for first in range(0, RECEIVED, size):
                some = [number % len(pairs) for number in range(first, first + size)]
                for at in some:
                    pairs[at][0].send({"type": "channel:message", "channel": f"presence-pair-{at}", "data": first})
                for at in some:
                    pairs[at][0].wait(1, "channel:sent")
                    pairs[at][1].wait(1, "channel:message")
            rows.append([title, f"{(service.server_cpu(1) - before) / RECEIVED:.0f}"])
    return rows


def _listeners(program: str) -> list[list[str]]:
    """What a message costs Redis by the number of workers that have its channel."""
    rows = [["workers that have the channel", *(f"{count}" for count in LISTENERS)]]
    for size, title in ((1, "one message in flight"), (AT_ONCE, f"{AT_ONCE} messages at once")):
        costs = [message_cost(program, count, size) for count in LISTENERS]
        rows.append([f"{title}: Redis CPU, µs", *(f"{cost:.1f}" for cost in costs)])
    return rows


def _share(problems: Problems) -> list[list[str]]:
    """The share of names that the busiest shard has."""
    rows = [["", "share of the busiest of four shards"]]
    for kind, pattern in (("channels", "presence-room-{}"), ("users", "user-{}")):
        sharding = Sharding(LABELS)
        of = sharding.of_user if kind == "users" else sharding.of_channel
        share = max(Counter(of(pattern.format(number)) for number in range(NAMES)).values()) / NAMES
        rows.append([f"{NAMES:,} {kind}", f"{share:.1%}"])
        if share > MAX_SHARE:
            problems.append(f"the busiest of four shards has {share:.1%} of the {kind}")
    return rows


# Names that come and go


def _join_and_leave(program: str, count: int, token: str, names: int, problems: Problems) -> list[list[str]]:
    """Join very many channels and leave them again, and see what stays behind."""
    with ShardedService(program, LABELS[:count], servers=1) as service, service.connected(0, token) as connection:
        first, began = service.worker_memory(), time.monotonic()
        warm = 0
        while time.monotonic() < began + WARM_UP:
            _visit(connection, range(warm, warm + LOT))
            warm += LOT
        before, lasting, redis_memory = service.worker_memory(), service.lasting_keys(), service.redis_memory()
        began = time.monotonic()
        _visit(connection, range(warm, warm + names))
        took, after = time.monotonic() - began, service.worker_memory()
        if after - before > ALLOWANCE + MAX_GROWTH * names:
            problems.append(f"the worker has grown by {after - before:,} bytes with {names:,} channels")
        more = service.lasting_keys() - lasting
        if more:
            problems.append(f"{more} more keys stay in Redis after {names:,} channels")
        redis_growth = service.redis_memory() - redis_memory
        sizes = ", ".join(f"{size / 1e6:.1f}" for size in (first, before, after))
        return [
            [f"{names:,} channels joined and left", f"{count} shard{'s' * (count > 1)}, {took:.0f} s"],
            [f"memory of the worker: at first, after {warm:,} others, after all", f"{sizes} MB"],
            ["growth of the worker for each channel", f"{(after - before) / names:.1f} bytes"],
            ["keys in Redis that do not expire: before, after", f"{lasting}, {lasting + more}"],
            ["keys in Redis that expire within five minutes", f"{service.expiring_keys():,}"],
            ["growth of Redis", f"{redis_growth / 1e6:.1f} MB"],
        ]


def _visit(connection: Connection, numbers: range) -> None:
    for first in range(numbers.start, numbers.stop, LOT):
        some = range(first, min(first + LOT, numbers.stop))
        for request, answer in (("join", "channel:joined"), ("leave", "channel:left")):
            for number in some:
                connection.send({"type": request, "channel": f"presence-visited-{number}"})
            connection.wait(len(some), answer)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4], choices=range(1, len(LABELS) + 1))
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--messages", type=int, default=1920, help="messages of each kind")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--workers", type=int, default=WORKERS, help="pretended workers; 0 leaves them out")
    parser.add_argument("--names", type=int, default=30_000, help="channels to join and leave; 0 leaves them out")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
