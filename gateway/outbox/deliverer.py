"""Send the webhooks that are due. Each one is claimed with a lease, sent, and settled with the result.

One process at a time reads the due webhooks from the outbox of each bucket, so no search is needed. If a
process dies, its claim on a webhook ends with the lease. The next process sends the same bytes with the same
id. The run of a stream does not depend on this module.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from contextlib import suppress

from gateway import protocol
from gateway.observe import loglines, telemetry
from gateway.outbox.body import body_of
from gateway.protocol.errors import HoldfastError, StoreUnavailable, stack_of
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.outbox import Outbox, Outgoing
from gateway.webhooks.sender import Poster
from gateway.webhooks.signature import Secrets
from gateway.webhooks.urls import Rules

TURN_SECONDS = 1.0
PLACES = 16  # webhooks that one process sends at once
OWNER_PLACES = 4  # most webhooks sent at once for one owner: a slow receiver delays no other owner
MOST_OF_A_BUCKET = 20  # most due webhooks that one turn handles
MOST_AFTER_A_JUMP = 10_000
MOST_CLAIMS = 10  # most claims for one try: each earlier sender has died
BACK_SECONDS = 1.0  # seconds until a webhook is tried again whose owner has no free place
_log = logging.getLogger("holdfast.webhooks")


class Deliverer:
    """Sends webhooks: call `run` until it is cancelled, or `sweep` regularly.

    Without configured keys it does nothing.
    """

    def __init__(self, settings: Settings, log: Log, outbox: Outbox, sender: Poster | None = None) -> None:
        self._log = log
        self._outbox = outbox
        self._is_on = bool(settings.webhook_keys.split())
        self._secrets = Secrets(settings.webhook_keys.split())
        self._sender = sender or Poster(Rules.of(settings))
        self._pauses = settings.webhook_pauses
        self._lease = settings.lease
        self._places = asyncio.Semaphore(PLACES)
        self._owners: Counter[str] = Counter()
        self._sending: set[asyncio.Task[None]] = set()
        # True: Redis's clock went back, and no read of due webhooks has succeeded since
        self._went_back = False

    async def run(self) -> None:
        """Send due webhooks in each turn. After an error the next turn tries again."""
        if not self._is_on:
            return
        put_off = ""
        try:
            while True:
                await asyncio.sleep(TURN_SECONDS)
                try:
                    await self._turn()
                    put_off = ""
                except StoreUnavailable as error:
                    if error.code != put_off:
                        put_off = error.code
                        _log.warning("webhooks put off: %s", error.code)
                except Exception as error:  # if this task ended, this process would send no webhooks
                    _log.error("webhooks failed:\n%s", stack_of(error))
        finally:
            await self.close()

    async def sweep(self) -> None:
        """Send what is due now, unless another process does it.

        Wait until all are sent. Raises StoreUnavailable.
        """
        if self._is_on:
            await self._turn()
            if self._sending:
                await asyncio.wait(set(self._sending))

    async def close(self) -> None:
        """Stop.

        A webhook that is being sent is sent again after its lease, because its result is not known.
        """
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _turn(self) -> None:
        turn = await self._log.take_turn("webhooks", round(TURN_SECONDS * 900))
        self._went_back |= turn == "back"
        if turn == "no":
            return
        most = MOST_AFTER_A_JUMP if self._went_back else MOST_OF_A_BUCKET
        due = await self._outbox.due(most, all_of_them=self._went_back)
        self._went_back = False
        random.shuffle(due)  # another process may send the same webhooks
        for name in due:
            await self._places.acquire()
            task = asyncio.create_task(self._deliver(name), name="webhook")
            self._sending.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._places.release()

    async def _deliver(self, name: str) -> None:
        """Try to send one webhook, if this process gets the lease.

        After a failure here it is tried again when the lease is over.
        """
        token = protocol.new_token()
        try:
            entry = await self._outbox.take(name, token, self._lease_ms)
            if entry is None:
                return
            if self._owners[entry.owner] >= OWNER_PLACES:
                await self._outbox.settle(name, token, "back", pause_ms=round(BACK_SECONDS * 1000))
                return
            self._owners[entry.owner] += 1
            renewing = asyncio.create_task(self._renew(name, token), name="webhook-lease")
            try:
                await self._try(entry, token)
            finally:
                renewing.cancel()
                self._owners[entry.owner] -= 1
                self._owners += Counter()  # removes owners whose count is zero
        except HoldfastError as error:
            _log.warning("webhook msg_%s is put off: %s", name, error.code)
        except Exception as error:
            _log.error("webhook msg_%s failed:\n%s", name, stack_of(error))

    async def _try(self, entry: Outgoing, token: str) -> None:
        if entry.claims > MOST_CLAIMS:
            await self._settle(entry, token, "lost")
            return
        body = entry.body or await body_of(self._log, entry)
        if body is None:  # the stream was deleted, or its record has expired
            await self._outbox.settle(entry.name, token, "sent")
            return
        kept = entry.body or await self._outbox.fill(entry.name, token, body)
        if kept is None:
            return
        headers = self._secrets.headers(entry.owner, entry.webhook_id, int(time.time()), kept)
        await self._settle(entry, token, await self._sender.send(entry.url, headers, kept))

    async def _settle(self, entry: Outgoing, token: str, outcome: str) -> None:
        """Store the result: a 2xx status means delivered.

        Otherwise it is tried again after the next pause. When no pause is left, the webhook is given up.
        """
        word, pause = "dead", 0.0
        if outcome.startswith("2"):
            word = "sent"
        elif entry.tries < len(self._pauses):
            word, pause = "again", self._pauses[entry.tries]
        if await self._outbox.settle(entry.name, token, word, outcome, round(pause * 1000)) != "settled":
            return
        telemetry.webhooks.add(1, {"outcome": word})
        level = logging.INFO if word == "sent" else logging.WARNING
        told = {"webhook": entry.webhook_id, "tries": entry.tries + 1, "outcome": outcome, "word": word}
        loglines.tell(_log, level, "webhook", **told, **({"pause": pause} if word == "again" else {}))

    async def _renew(self, name: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            # otherwise another process may send it too; the receiver recognizes the id
            with suppress(StoreUnavailable):
                await self._outbox.take(name, token, self._lease_ms)

    @property
    def _lease_ms(self) -> int:
        return round(self._lease * 1000)
