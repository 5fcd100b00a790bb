"""Count the tokens of a stream's model calls: those of the valid runs, and those of lost tries. No I/O.

A try is lost when its stage runs again: its calls were paid, and are paid again. If a graph continues from a
checkpoint, its finished nodes stay valid, and so do their tokens. The record stores both sums. The fields are
written with the next event after a call ends. So after a worker's death, the sums are known up to its last
write.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Any

from gateway.protocol import sse
from gateway.store.record import Record

Usage = Mapping[str, int]


def added(usages: Sequence[Usage]) -> dict[str, int]:
    """Return the sums by name."""
    sums: dict[str, int] = {}
    for usage in usages:
        for name, tokens in usage.items():
            sums[name] = sums.get(name, 0) + tokens
    return sums


class Bill:
    """The tokens that the model calls of one try of a stage used, by node.

    Calls may end in several threads.
    """

    def __init__(self) -> None:
        # Node's name and run -> tokens; the key is empty for a call outside any node. `add` replaces this
        # mapping and never changes it.
        self.paid: Mapping[str, Mapping[str, int]] = {}
        self._lock = Lock()

    def add(self, node: str, usage: Mapping[str, int]) -> None:
        """Add the tokens of a call that has ended."""
        with self._lock:
            before = self.paid.get(node, {})
            both = {
                name: before.get(name, 0) + usage.get(name, 0) for name in dict.fromkeys((*before, *usage))
            }
            self.paid = {**self.paid, node: both}


class Spending:
    """The tokens of one claim.

    For each try: call `begin`, then fill the try's bill, then call `lose` or `settle`.
    """

    def __init__(self, record: Record) -> None:
        self.lost: dict[str, int] = dict(record.lost)
        # tokens used before this try, by node
        self._used = {node: dict(usage) for node, usage in record.used.items()}
        self._noted: Mapping[str, Usage] | None = None
        self._is_new = False  # True: the record does not have all of this yet

    def begin(self, standing: Collection[str]) -> None:
        """Begin a try that continues after these nodes, each named with its run.

        Other tokens used before are lost.
        """
        void = [usage for node, usage in self._used.items() if node not in standing]
        self._used = {node: usage for node, usage in self._used.items() if node in standing}
        self.lost = added([self.lost, *void])
        self._noted, self._is_new = None, bool(void)

    def news(self, bill: Bill) -> dict[str, Any]:
        """Return the record's fields if the record lacks a part of this try's bill; otherwise nothing."""
        paid = bill.paid
        if not self._is_new and (paid is self._noted or not paid):
            return {}
        self._noted, self._is_new = paid, False
        return {"used": sse.dumps(self._with(paid)), "lost": sse.dumps(self.lost)}

    def lose(self, bill: Bill) -> None:
        """Note that the try has failed. The next call of `begin` says which of its tokens stay valid."""
        self._used, self._noted = self._with(bill.paid), None

    def settle(self, bill: Bill) -> dict[str, int]:
        """Return all tokens of a run that has ended, or that another worker continues.

        None of them are lost.
        """
        used = self._with(bill.paid)
        self._is_new = self._is_new or bool(used)
        self._used, self._noted = {}, None
        return added(list(used.values()))

    def settled(self) -> dict[str, Any]:
        """Return the record's fields for the end of a run; nothing if the record already has them."""
        return self.news(Bill())

    def _with(self, paid: Mapping[str, Usage]) -> dict[str, dict[str, int]]:
        return {
            node: added([self._used.get(node, {}), paid.get(node, {})])
            for node in dict.fromkeys((*self._used, *paid))
        }
