"""Any sequence of joins, updates and departures in both dialects: every view equals the member list."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from flask_presence import User

from ..support.effort import at_effort
from ..support.flask_app import make_presence_app
from ..support.pusher import SETTINGS, PusherTab, sign

CHANNELS = ["presence-a", "presence-b"]
USERS = ["ann", "bob", "7"]
KEYS = st.sampled_from(["name", "avatar", "role", "id", "clientId", "__proto__"])
INFOS = st.dictionaries(
    KEYS, st.none() | st.text("xy", max_size=1) | st.integers(0, 1) | st.just({"a": [1]}), max_size=3
)


class NativePeer:
    """A native connection, and the members of its channels as it was told of them."""

    def __init__(self, presence: Any, user: str) -> None:
        self.user = user
        self.tab = presence.test_client(User(user, claims={}))
        self.tab.__enter__()
        self.views: dict[str, dict[str, Any]] = {}

    def join(self, channel: str, info: dict[str, Any]) -> None:
        self.listen()
        answer = self.tab.join(channel, info)
        self.views[channel] = {member["id"]: member for member in answer["members"]}
        self.listen()

    def update(self, channel: str, info: dict[str, Any]) -> None:
        if channel in self.views:
            answer = self.tab.update(channel, **info)
            self.views[channel][self.user] = answer["member"]

    def leave(self, channel: str) -> None:
        self.listen()
        if self.views.pop(channel, None) is not None:
            self.tab.leave(channel)

    def listen(self) -> None:
        while self.tab.received:
            event = self.tab.receive()
            if event["type"] == "channel:removed":
                del self.views[event["channel"]]
                continue
            view, member = self.views[event["channel"]], event["member"]
            assert (member["id"] in view) == (event["type"] != "presence:member_joined"), event
            if event["type"] == "presence:member_left":
                del view[member["id"]]
            else:
                view[member["id"]] = member

    @property
    def is_open(self) -> bool:
        return self.tab.closed is None

    def shown(self, members: list[Any]) -> dict[str, Any]:
        return {member.id: member.to_dict() for member in members}

    def close(self, *, drop: bool) -> None:
        if drop:
            self.tab.drop()
        else:
            self.tab.close()


class PusherPeer:
    """A Pusher connection, and the members of its channels as it was told of them."""

    def __init__(self, app: Any, user: str) -> None:
        self.user = user
        self.tab = PusherTab(app)
        self.tab.__enter__()
        self.views: dict[str, dict[str, Any]] = {}

    def join(self, channel: str, info: dict[str, Any]) -> None:
        self.listen()
        data = json.dumps({"user_id": self.user, "user_info": info})
        auth = sign(f"{self.tab.session.id}:{channel}:{data}")
        self.tab.receive("pusher:subscribe", {"channel": channel, "auth": auth, "channel_data": data})
        self.listen()
        assert channel in self.views or self.tab.end == (4200, "Permissions may have changed")

    def update(self, channel: str, info: dict[str, Any]) -> None:
        if channel in self.views:
            self.join(channel, info)

    def leave(self, channel: str) -> None:
        self.listen()
        self.tab.receive("pusher:unsubscribe", {"channel": channel})
        self.views.pop(channel, None)
        self.listen()

    def listen(self) -> None:
        for frame in self.tab.frames():
            event, channel = frame["event"], frame.get("channel", "")
            if event in ("pusher:connection_established", "pusher:error"):
                continue
            data = json.loads(frame["data"])
            if event == "pusher:subscription_error":
                assert data["type"] == "Removed"
                del self.views[channel]
            elif event == "pusher_internal:subscription_succeeded":
                assert list(data["presence"]["hash"]) == data["presence"]["ids"]
                self.views[channel] = data["presence"]["hash"]
            else:
                self._replay(event, self.views[channel], data)

    def _replay(self, event: str, view: dict[str, Any], data: dict[str, Any]) -> None:
        assert (data["user_id"] in view) == (event != "pusher_internal:member_added"), (event, data)
        if event == "pusher_internal:member_removed":
            del view[data["user_id"]]
        else:
            assert event in ("pusher_internal:member_added", "presence:member_updated")
            view[data["user_id"]] = data["user_info"]

    @property
    def is_open(self) -> bool:
        return self.tab.end is None

    def shown(self, members: list[Any]) -> dict[str, Any]:
        return {member.id: json.loads(json.dumps(member.user_info)) for member in members}

    def close(self, *, drop: bool) -> None:
        self.tab.close(1006 if drop else 1000, "", "lost" if drop else "closed")


Peer = NativePeer | PusherPeer


class BothDialects(RuleBasedStateMachine):
    """Users with connections of both dialects, in an app whose connections may come back within five seconds."""

    peers: Bundle[Peer] = Bundle("peers")

    @initialize()
    def start(self) -> None:
        self.presence, self.app = make_presence_app(PRESENCE_GRACE_ABRUPT=5, PRESENCE_RATE_LIMIT=None, **SETTINGS)
        self.presence.guard("*")(lambda: True)
        self.open: list[Peer] = []

    @rule(target=peers, user=st.sampled_from(USERS), is_native=st.booleans())
    def connect(self, user: str, *, is_native: bool) -> Peer:
        with self.app.app_context():
            peer: Peer = NativePeer(self.presence, user) if is_native else PusherPeer(self.app, user)
        self.open.append(peer)
        return peer

    @rule(peer=peers, channel=st.sampled_from(CHANNELS), info=INFOS)
    def join(self, peer: Peer, channel: str, info: dict[str, Any]) -> None:
        if peer.is_open:
            peer.join(channel, info)

    @rule(peer=peers, channel=st.sampled_from(CHANNELS), info=INFOS)
    def update(self, peer: Peer, channel: str, info: dict[str, Any]) -> None:
        if peer.is_open:
            peer.update(channel, info)

    @rule(peer=peers, channel=st.sampled_from(CHANNELS))
    def leave(self, peer: Peer, channel: str) -> None:
        if peer.is_open:
            peer.leave(channel)

    @rule(peer=consumes(peers), drop=st.booleans())
    def close(self, peer: Peer, *, drop: bool) -> None:
        if peer.is_open:
            peer.close(drop=drop)

    def call(self, call: Callable[[], int]) -> None:
        """Call a method of the extension, if the service has ever had a connection."""
        if self.app.extensions["presence.service"].hub.current_loop is not None:
            with self.app.app_context():
                call()

    @rule(user=st.sampled_from(USERS), channel=st.sampled_from(CHANNELS))
    def remove(self, user: str, channel: str) -> None:
        self.call(lambda: self.presence.remove(channel, user))

    @rule(user=st.sampled_from(USERS))
    def recheck(self, user: str) -> None:
        """Native connections stay; those of Pusher's clients come back, if they like."""
        self.call(lambda: self.presence.recheck(user_id=user))

    @rule(user=st.sampled_from(USERS))
    def disconnect(self, user: str) -> None:
        self.call(lambda: self.presence.disconnect(user_id=user))

    @rule(seconds=st.sampled_from([1, 6]))
    def wait(self, seconds: int) -> None:
        hub = self.app.extensions["presence.service"].hub
        if hub.current_loop is not None:
            hub.clock.advance(seconds)
            hub.tick()
            hub.current_loop.settle()

    @invariant()
    def every_view_equals_the_member_list(self) -> None:
        self.open = [peer for peer in getattr(self, "open", ()) if peer.is_open]
        for peer in self.open:
            peer.listen()
            for channel, view in peer.views.items():
                with self.app.app_context():
                    members = self.presence.get_channel_members(channel)
                assert view == peer.shown(members)
                assert peer.user in view

    def teardown(self) -> None:
        for peer in getattr(self, "open", ()):
            if peer.is_open:
                peer.close(drop=False)


TestBothDialects = BothDialects.TestCase
TestBothDialects.settings = settings(max_examples=at_effort(60), stateful_step_count=30)
