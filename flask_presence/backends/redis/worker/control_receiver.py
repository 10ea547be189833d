"""The control messages that reach this worker, and the ones it missed.

Rule: a message is carried out once, whether it is heard, sent by this worker, or read again after the subscription was
lost.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from ....domain.errors import BackendUnavailable
from ....loops.pending import Outcome, Pending, then
from ...base import Listener
from ..client.pipeline import Pipeline
from ..client.subscriber import Subscriber
from ..store import control
from ..store.keys import Keys
from .heartbeat import Heartbeat

log = logging.getLogger("flask_presence")

MARGIN: Final = 2.0
"""Messages count as missed from this many seconds before a lost subscription's last sign of life."""


class ControlReceiver:
    """Carries out control messages on this worker's connections."""

    def __init__(
        self,
        keys: Keys,
        pipeline: Pipeline,
        subscriber: Subscriber,
        heartbeat: Heartbeat,
        listener: Listener,
    ) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._subscriber = subscriber
        self._heartbeat = heartbeat
        self._listener = listener
        self._carried_out: dict[str, float] = {}
        self._missed_since = 0
        self._waits_for_subscription = False

    @property
    def is_heard(self) -> bool:
        """Whether control messages are heard here now."""
        return self._subscriber.connected and self._subscriber.subscribe(self._keys.control).settled

    def begin(self) -> None:
        self._subscriber.subscribe(self._keys.control)

    def carry_out(self, message: control.ControlMessage) -> Pending[int]:
        """Carry out a message that this worker itself sends. Returns how many connections it concerned."""
        self._carried_out[message.id] = time.monotonic()
        done: Pending[int] = Pending()
        then(self._apply(message), done.settle)
        return done

    def hear(self, data: bytes) -> None:
        """Carry out a message, unless that has been done, and reply."""
        self._take(control.decode(data))

    def lost(self) -> None:
        """Note when the subscription was lost, and catch up when it is back."""
        if not self._missed_since:
            self._missed_since = self._heartbeat.redis_time_at(self._subscriber.heard_at - MARGIN)
        self._await_subscription()

    def _take(self, message: control.ControlMessage) -> None:
        now = time.monotonic()
        if message.id in self._carried_out:
            return
        while self._carried_out and now - next(iter(self._carried_out.values())) > 2 * control.KEPT_FOR:
            del self._carried_out[next(iter(self._carried_out))]
        if message.origin != self._heartbeat.worker_id:
            self.carry_out(message).when(lambda count: self._pipeline.run(control.reply(self._keys, message, count())))

    def _apply(self, message: control.ControlMessage) -> int | Pending[int]:
        if message.kind == "recheck":
            return self._listener.recheck(message.user, message.channel)
        if message.kind == "remove":
            return self._listener.remove_from(message.channel or "", message.user or "", message.text)
        return self._listener.close_matching(message.user, message.client, message.text)

    def _await_subscription(self) -> None:
        if not self._waits_for_subscription:
            self._waits_for_subscription = True
            self._subscriber.subscribe(self._keys.control).when(self._catch_up)

    def _catch_up(self, subscribed: Outcome[None]) -> None:
        """Carry out the messages that were sent while nothing was heard."""
        self._waits_for_subscription = False
        try:
            subscribed()
        except BackendUnavailable:
            self._await_subscription()  # waiting was given up, but the subscriber goes on trying
            return
        if self._missed_since:
            self._pipeline.run(control.sent_since(self._keys, self._missed_since)).when(self._take_missed)

    def _take_missed(self, outcome: Outcome[list[control.ControlMessage]]) -> None:
        try:
            missed = outcome()
        except BackendUnavailable:
            self._subscriber.reset()  # after which this is done again
            return
        since, self._missed_since = self._missed_since, 0
        for message in missed:
            self._take(message)
        if self._heartbeat.redis_time_at(time.monotonic()) - since > control.KEPT_FOR * 1000:
            log.warning("this worker was cut off from Redis for so long that it rechecks all of its connections")
            self._listener.recheck(None, None)
