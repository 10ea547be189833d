"""What history costs: `python -m benchmarks.history`.

Messages per CPU second with history beside without, for both backends (with Redis, its CPU time is included); and a
storm of clients that come back at once, each with `since` and 50 messages that it has missed: how long until the last
one has them, and how many bytes that is. In each repeat both settings take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import connect

from tests.support.redis_server import find, running_redis

from .peers import OURS
from .report import format_markdown, format_text
from .run import build_client, minted_tokens, prepare_machine
from .scale import MESSAGES, load, servers_on
from .servers import Server, running

CLIENTS: Final = 1000
MISSED: Final = 50
CHANNEL: Final = "lobby"
SETTINGS: Final = {"without": {}, "with history": {"FLASK_PRESENCE_HISTORY": json.dumps({"*": [1000, 3600]})}}

Rows = dict[str, dict[str, list[float]]]


def main() -> int:
    options = _parse()
    program = find()
    prepare_machine()
    build_client()
    rows: Rows = {}
    with minted_tokens() as tokens:
        for repeat in range(options.repeat):
            for backend in ("memory", *(["Redis"] if program else [])):
                for setting in list(SETTINGS)[:: -1 if repeat % 2 else 1]:
                    _measure_messages(rows, program, backend, setting, tokens, options.seconds)
                with _servers(program, backend, "with history") as (servers, _):
                    seconds, size = asyncio.run(_storm(servers))
                _note(rows, f"{CLIENTS} clients recover {MISSED} messages each, {backend}: s", "with history", seconds)
                _note(rows, f"the same: MB received, {backend}", "with history", size / 1e6)
    _print(rows, markdown=options.markdown)
    return 0


def _measure_messages(
    rows: Rows, program: str | None, backend: str, setting: str, tokens: Path, seconds: float
) -> None:
    for title, arguments in MESSAGES:
        with _servers(program, backend, setting) as (servers, redis_server):
            report = load(servers, redis_server, [*arguments, "--seconds", str(seconds)], tokens)
        per_cpu = report["published_per_s"] / report["server_cpu"]
        _note(rows, f"{title}: messages per CPU s, {backend}", setting, per_cpu)


@contextmanager
def _servers(program: str | None, backend: str, setting: str) -> Iterator[tuple[list[Server], Any]]:
    """One server on a core of its own, and its Redis."""
    with ExitStack() as stack:
        if backend == "memory":
            yield [stack.enter_context(running(OURS, **SETTINGS[setting]))], None
            return
        assert program is not None
        redis_server = stack.enter_context(running_redis(program))
        yield stack.enter_context(servers_on(redis_server, OURS, 1, **SETTINGS[setting])), redis_server


async def _storm(servers: list[Server]) -> tuple[float, int]:
    """Seconds until all clients have what they missed, and how many bytes that was."""
    url = f"ws://127.0.0.1:{servers[0].port}/presence/ws"
    join = json.dumps({"type": "join", "channel": CHANNEL, "requestId": 1})

    async def ask(one: Any, request: str) -> str:
        await one.send(request)
        while '"requestId":' not in (frame := str(await one.recv())):
            continue
        return frame

    async with connect(url, compression=None) as speaker:
        since = json.loads(await ask(speaker, join))["position"]
        message = json.dumps({"type": "channel:message", "channel": CHANNEL, "data": "x" * 100, "requestId": 2})
        for _ in range(MISSED):
            await ask(speaker, message)
        clients = [await connect(url, compression=None, max_size=None) for _ in range(CLIENTS)]
        rejoin = json.dumps({"type": "join", "channel": CHANNEL, "since": since, "requestId": 3})
        began = time.perf_counter()
        answers = await asyncio.gather(*(ask(one, rejoin) for one in clients))
        took = time.perf_counter() - began
        assert all('"recovered":true' in answer for answer in answers)
        assert len(json.loads(answers[-1])["messages"]) == MISSED
        await asyncio.gather(*(one.close() for one in clients))
    return took, sum(map(len, answers))


def _note(rows: Rows, title: str, setting: str, value: float) -> None:
    rows.setdefault(title, {}).setdefault(setting, []).append(value)
    print(f"{title:70} {setting:14} {value:.4g}", file=sys.stderr, flush=True)


def _print(rows: Rows, *, markdown: bool) -> None:
    table = [["", *SETTINGS]]
    for title, values in rows.items():
        middle = {setting: statistics.median(found) for setting, found in values.items()}
        without, kept = middle.get("without"), middle["with history"]
        ratio = "" if without is None else f" ({kept / without:.2f}x)"
        table.append([title, "-" if without is None else f"{without:,.4g}", f"{kept:,.4g}{ratio}"])
    print((format_markdown if markdown else format_text)(table))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
