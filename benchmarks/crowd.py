"""A crowd on a server, which gives its stats page something to show: `python -m benchmarks.crowd`.

200 users talk in 30 channels, and one user has a line so slow that the page shows it. The program prints the URL of the
page. `--screenshot FILE` takes a picture of the page, on a desktop in light mode and on a phone in dark mode. At the
end it prints what the requests of the page cost, under this load and while nothing changes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import random
import shutil
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from tests.support.raw import greet, masked, small_socket
from tests.support.server import Server, running

NAMES = ("Ann", "Bob", "Carol", "Dan", "Eve", "Finn", "Gil", "Hana", "Ivo", "June", "Kai", "Lea", "Max", "Nia", "Oto")
ROOM = "presence-floor-plan"
STATES = ("online", "away", "busy")
POLLS = (
    "activity",
    "channels?limit=50&sort=-memberCount&include=rate",
    f"channels/{ROOM}?limit=50&include=connections",
)


def channels_of(count: int) -> list[str]:
    """Names of channels: two thirds are presence channels, the others are private and public."""
    presence = [ROOM, *(f"presence-room-{number}" for number in range(1, count * 2 // 3))]
    private = [f"private-team-{number}" for number in range(count // 6)]
    return [*presence, *private, *(f"news-{number}" for number in range(count - len(presence) - len(private)))]


async def live(server: Server, number: int, channels: list[str], until: float) -> None:
    """One user, who is in a few channels and sends a message now and then."""
    name = NAMES[number % len(NAMES)]
    claims = {"name": f"{name} {number}", "teams": [str(team) for team in range(len(channels))]}
    token = await asyncio.to_thread(server.token, f"{name.lower()}-{number}", **claims)
    url = f"ws://{server.host}/presence/ws?token={token}"
    async with connect(url, compression=None, max_queue=None) as socket:
        mine = {channels[number % len(channels)], channels[number * 7 % len(channels)]}
        mine |= {ROOM} if number % 3 == 0 else set()
        for channel in mine:
            info = {"status": random.choice(STATES), "device": random.choice(("desk", "phone"))}
            await socket.send(json.dumps({"type": "join", "channel": channel, "userInfo": info}))
        if number % 40 == 0:
            await socket.send(json.dumps({"type": "join", "channel": "private-denied-room"}))
        reader = asyncio.create_task(_read(socket))
        while time.monotonic() < until:
            await asyncio.sleep(random.expovariate(0.5))
            channel = ROOM if ROOM in mine and random.random() < 0.7 else random.choice(sorted(mine))
            message = {
                "type": "channel:message",
                "channel": channel,
                "data": {"text": "x" * random.randrange(500, 5000)},
            }
            await socket.send(json.dumps(message))
        reader.cancel()


async def _read(socket: Any) -> None:
    async for _ in socket:
        continue


def read_slowly(slow: socket.socket, until: float) -> None:
    """Read less than the server sends, and send a ping now and then."""
    for turn in itertools.count():
        if time.monotonic() >= until:
            return
        if turn % 100 == 0:
            slow.sendall(masked(b'{"type": "ping"}'))
        slow.recv(256)
        time.sleep(0.05)


async def crowd(server: Server, clients: int, channels: int, until: float) -> None:
    names = channels_of(channels)
    await asyncio.gather(*(live(server, number, names, until) for number in range(clients)))


def ask(server: Server, seconds: list[float]) -> None:
    """Send the requests that the page sends every two seconds."""
    for path in POLLS:
        began = time.perf_counter()
        server.json(f"/presence/{path}")
        seconds.append(time.perf_counter() - began)


def photograph(url: str, target: Path) -> None:
    """Take a picture of the page on a desktop and on a phone, side by side."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        shots = []
        for width, height, scheme, query in ((1180, 800, "light", f"?channel={ROOM}"), (370, 800, "dark", "")):
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page = context.new_page()
            page.goto(f"{url}{query}")
            page.get_by_text("Live", exact=True).wait_for()
            page.wait_for_timeout(3000)
            shots.append(base64.b64encode(page.screenshot()).decode())
        style = "height: 800px; border-radius: 12px; box-shadow: 0 8px 30px #0005"
        pictures = "".join(f'<img src="data:image/png;base64,{shot}" style="{style}">' for shot in shots)
        frame = browser.new_page(viewport={"width": 1700, "height": 900})
        frame.set_content(
            '<main style="padding: 32px; display: flex; gap: 28px; background: #c9d3e2; width: max-content">'
            f"{pictures}</main>"
        )
        frame.locator("main").screenshot(path=target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--channels", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="at most an hour")
    parser.add_argument("--screenshot", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    until = time.monotonic() + min(chosen.seconds, 3600)
    polls: list[float] = []
    with running(PRESENCE_MAX_OUTBOX=1 << 26) as server, small_socket(server.port) as slow:
        greet(slow, server.port, server.token("sam-on-a-train", name="Sam"))
        slow.sendall(masked(json.dumps({"type": "join", "channel": ROOM}).encode()))
        print(f"{server.origin}/presence/ for {until - time.monotonic():.0f} seconds", flush=True)
        talking = crowd(server, chosen.clients, chosen.channels, until)
        threads = [
            threading.Thread(target=asyncio.run, args=(talking,)),
            threading.Thread(target=read_slowly, args=(slow, until)),
        ]
        for thread in threads:
            thread.start()
        if chosen.screenshot:
            time.sleep(max(0.0, until - time.monotonic() - 20))
            photograph(f"{server.origin}/presence/", chosen.screenshot)
        while time.monotonic() < until:
            ask(server, polls)
            time.sleep(1)
        for thread in threads:
            thread.join()
        report(server, polls)


def report(server: Server, polls: list[float]) -> None:
    """Print the cost of the page's requests: under load, and while nothing changes."""
    print(f"a request of the page under load: {statistics.median(polls) * 1000:.1f} ms (median of {len(polls)})")
    quiet: list[float] = []
    _, headers, body = server.get("/presence/channels?limit=50")
    for _ in range(200):
        began = time.perf_counter()
        status, _, _ = server.get("/presence/channels?limit=50", {"If-None-Match": headers["ETag"]})
        quiet.append(time.perf_counter() - began)
        assert status == 304
    print(
        f"a request while nothing changes: {statistics.median(quiet) * 1000:.1f} ms, without {len(body)} bytes of body"
    )


if __name__ == "__main__":
    main()
