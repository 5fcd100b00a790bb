"""What a stream's model calls have cost: what stands, and what lost tries and attempts have used. No I/O.

A try is lost when its stage is run anew: what its calls used was paid, and is paid again. Of a graph that
goes on from a checkpoint the nodes that have finished stand, and so does what they used.
The record keeps both sums, so what a dead worker has used is known as far as the store had heard of it:
the fields travel with the next event after a call's end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Any

from gateway.protocol import sse
from gateway.store.record import Record

Usage = Mapping[str, int]


def added(usages: Sequence[Usage]) -> dict[str, int]:
    """The sums by name."""
    sums: dict[str, int] = {}
    for usage in usages:
        for name, tokens in usage.items():
            sums[name] = sums.get(name, 0) + tokens
    return sums


class Bill:
    """What the model calls of one try of a stage have used, by node; calls end in several threads."""

    def __init__(self) -> None:
        # By a node's name and run; empty for a call that belongs to none. Replaced, and never changed.
        self.paid: Mapping[str, Mapping[str, int]] = {}
        self._lock = Lock()

    def add(self, node: str, usage: Mapping[str, int]) -> None:
        """A call has ended."""
        with self._lock:
            before = self.paid.get(node, {})
            both = {
                name: before.get(name, 0) + usage.get(name, 0) for name in dict.fromkeys((*before, *usage))
            }
            self.paid = {**self.paid, node: both}


class Spending:
    """Of one claim. `begin`, then the try's own bill, then `lose` or `settle`, for each try."""

    def __init__(self, record: Record) -> None:
        self.lost: dict[str, int] = dict(record.lost)
        self._used = {node: dict(usage) for node, usage in record.used.items()}  # before this try, by node
        self._noted: Mapping[str, Usage] | None = None
        self._is_new = False  # the record does not have all of this yet

    def begin(self, standing: Collection[str]) -> None:
        """A try begins, behind these nodes, each named with its run; what else was used before is lost."""
        void = [usage for node, usage in self._used.items() if node not in standing]
        self._used = {node: usage for node, usage in self._used.items() if node in standing}
        self.lost = added([self.lost, *void])
        self._noted, self._is_new = None, bool(void)

    def news(self, bill: Bill) -> dict[str, Any]:
        """The record's fields, where it has not all of this try's bill yet; else nothing."""
        paid = bill.paid
        if not self._is_new and (paid is self._noted or not paid):
            return {}
        self._noted, self._is_new = paid, False
        return {"used": sse.dumps(self._with(paid)), "lost": sse.dumps(self.lost)}

    def lose(self, bill: Bill) -> None:
        """The try has failed. The next one's `begin` says what of it stands."""
        self._used, self._noted = self._with(bill.paid), None

    def settle(self, bill: Bill) -> dict[str, int]:
        """The run is at its end, or left to another worker: what it used in all, of which nothing is lost."""
        used = self._with(bill.paid)
        self._is_new = self._is_new or bool(used)
        self._used, self._noted = {}, None
        return added(list(used.values()))

    def settled(self) -> dict[str, Any]:
        """The record's fields that belong to the end of a run; nothing where the record has them already."""
        return self.news(Bill())

    def _with(self, paid: Mapping[str, Usage]) -> dict[str, dict[str, int]]:
        return {
            node: added([self._used.get(node, {}), paid.get(node, {})])
            for node in dict.fromkeys((*self._used, *paid))
        }
