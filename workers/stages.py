"""The stages of a chain in their order, and their results, which are the checkpoints of the chain.

In a chain with several stages, a stage gets `{"input": the chain's input, "<earlier stage>": its result,
...}`. If a chain has only one stage, this stage gets the input itself. An `Each` runs its stage once for each
item. Each of these runs has its own checkpoint. Invariant: a run counts as finished when its checkpoint is
stored and its `finished` event is in the log. Both are written in one append. So a store that has lost its
tail has lost both. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway import protocol
from gateway.protocol import Event, sse
from gateway.store.record import CHECKPOINT, Record
from gateway.writing.writer import TooLong
from workers.each import Each as Each
from workers.spending import added

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

MOST_RUNS = 100  # most runs of one stage
# This is in the checkpoint name of an unfinished run. The name of a stage never has a space.
_SPENT = " spent "
Put = Callable[[str, Sequence[Mapping[str, Any]]], Any]


def as_messages(stage: str, messages: Sequence[Mapping[str, Any]]) -> Any:
    """Return the messages of a question unchanged."""
    return messages


def as_input(asked: Mapping[str, Any], put: Callable[[Sequence[Mapping[str, Any]]], Any]) -> Any:
    """Return the chain's input from a record's input. `put` converts the messages of a question."""
    messages = asked.get("messages")
    return asked["input"] if messages is None else put(messages)


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one stage: what runs, its input, and whether the chain ends with it."""

    stage: str
    run: int  # from 1
    index: int  # the stage's place in the chain, from 0
    count: int  # number of stages
    runnable: Runnable[Any, Any] = field(repr=False)
    given: Any = field(repr=False)
    last: bool
    alone: bool  # the chain has only this stage, which is no `Each`
    several: bool = False  # this is one of the runs of an `Each`

    @property
    def name(self) -> str:
        """Stage and run, which name the checkpoint of this run."""
        return f"{self.stage} {self.run}"

    def event(self, *, finished: bool) -> Event:
        """Return the `stage` event that says that this run begins or is finished."""
        return protocol.stage(self.stage, run=self.run, index=self.index, count=self.count, finished=finished)


class Stages:
    """Which stages of a chain are finished. `most`: the largest sum of the checkpoints, in bytes."""

    def __init__(
        self,
        names: Sequence[str],
        made: Mapping[str, Any],
        record: Record,
        finished: set[tuple[str, int]],
        *,
        most: int,
        put: Put = as_messages,
    ) -> None:
        """`made` are the chain's parts by stage. `finished` are the runs whose end is in the log.

        `put` converts the messages of a question to the input of a stage.
        """
        self._parts = made
        self._alone = len(names) == 1 and not isinstance(made[names[0]], Each)
        self._asked = record.input
        self._put = put
        self._carried = frozenset(record.carried)
        known = {f"{name} {run}" for name, run in finished} | self._carried
        self._kept = {name: raw for name, raw in record.checkpoints.items() if name in known}
        self._size = sum(map(len, self._kept.values()))
        self._most = most
        self._results: dict[str, Any] = {}
        self._usage: list[Mapping[str, int]] = []
        self._spent = {name: json.loads(raw) for name, raw in record.checkpoints.items() if _SPENT in name}
        self._ended: tuple[Any] | None = None  # a tuple with the result of the step that was yielded last

    def steps(self) -> Iterator[Step]:
        """Yield the runs that are not finished, in order. Call `finish` for each one before the next one."""
        for index, (name, part) in enumerate(self._parts.items()):
            several = isinstance(part, Each)
            items = list(part.over(self._given(name))) if several else [None]
            if len(items) > MOST_RUNS:
                raise ValueError(f"a stage may run {MOST_RUNS} times")
            results = []
            for run, item in enumerate(items, 1):
                if (kept := self._kept.get(f"{name} {run}")) is not None:
                    results.append(self._read(kept, again=f"{name} {run}" in self._carried))
                    continue
                given = self._given(name) | {"item": item} if several else self._given(name)
                runnable = part.runnable if several else part
                last = index + 1 == len(self._parts) and run == len(items)
                yield Step(name, run, index, len(self._parts), runnable, given, last, self._alone, several)
                assert self._ended is not None
                results.append(self._ended[0])
            self._results[name] = results if several else results[0]

    def finish(self, step: Step, result: Any, usage: Mapping[str, int]) -> dict[str, bytes]:
        """Store a step's result. Return the record's fields to write with its `finished` event.

        Raises TooLong. Raises TypeError for a result that cannot be written as JSON.
        """
        usage = added([usage, self._spent.pop(_SPENT + step.name, {})])
        if step.last:  # the terminal event takes the place of a checkpoint
            self._ended = (result,)
            self._usage.append(usage)
            return {}
        raw = sse.dumps({"result": result, "usage": dict(usage)})
        self._size += len(raw)
        if self._size > self._most:
            raise TooLong
        self._ended = (self._read(raw),)  # the value that another worker would read
        return {CHECKPOINT + step.name: raw}

    def leave(self, step: Step, usage: Mapping[str, int]) -> dict[str, bytes]:
        """Return the record's fields for a run that another worker continues: the tokens spent so far."""
        name = _SPENT + step.name
        spent = added([usage, self._spent.get(name, {})])
        return {CHECKPOINT + name: sse.dumps(spent), "usage": sse.dumps(added([*self._usage, spent]))}

    @property
    def usage(self) -> dict[str, int]:
        """The tokens of all finished runs, including those that other workers ran."""
        return added(self._usage)

    def _given(self, stage: str) -> Any:
        asked = as_input(self._asked, partial(self._put, stage))
        return asked if self._alone else {"input": asked, **self._results}

    def _read(self, raw: bytes, *, again: bool = False) -> Any:
        """Return a stored result. `again`: an earlier stream has already reported its tokens."""
        kept = json.loads(raw)
        if not again:
            self._usage.append(kept["usage"])
        return kept["result"]
