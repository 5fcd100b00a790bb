"""Try a failed stream again: what is kept of it, and what the client can change.

The new stream has its own id and log. It keeps the results of the stages (and of the runs of an `Each`)
before the one at which it begins. It runs that stage and all later ones. The outside effects of the failed
stage are not undone, and may happen again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import Cursor, EventType, Status, sse
from gateway.protocol.errors import (
    ChainChanged,
    CursorLost,
    Invalid,
    NotFailed,
    StreamGone,
    StreamRunning,
    TooLarge,
)
from gateway.runtime.off_loop import aside
from gateway.store.log import Log
from gateway.store.record import CHECKPOINT, Record
from gateway.streams import params as chain_params
from gateway.streams.again import Again
from gateway.streams.start import DEFAULT, Bounds, Start, parse_start
from gateway.streams.strict_json import shown
from gateway.webhooks import asked as hooks
from gateway.webhooks.asked import Webhook

_FIELDS = ("from", "params", "input_patch", hooks.FIELD)
_RULE = "must be a stage of the chain that has begun, or the id of the event with which one has begun"
Run = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The body of a retry: where to begin, and what to change in the failed stream's input and params."""

    # The name of a stage, or the id of an event. Empty: the run that failed.
    start: str = ""
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # A patch of the input (RFC 7396). None: there is none.
    patch: Any = field(default=None, repr=False)

    webhook: Webhook | None = None  # instead of that of the failed stream; None: the same

    @property
    def told(self) -> list[Any]:
        """All fields, as the client wrote them."""
        whole = [self.start, self.params, *([] if self.patch is None else [self.patch])]
        return whole if self.webhook is None else [whole, self.webhook.told()]


def parse_retry(value: Any, bounds: Bounds = DEFAULT) -> Wanted:
    """Parse the body of POST /stream/{id}/retry. Raises Invalid, which names the field and the rule."""
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    for name in value:
        if name not in _FIELDS:
            raise Invalid(shown(name), "is not a field of this request")
    start, params = value.get("from", ""), value.get("params", {})
    if not isinstance(start, str) or ("from" in value and not start):
        raise Invalid("from", _RULE)
    if not isinstance(params, dict):
        raise Invalid("params", "must be an object")
    patch = value.get("input_patch")
    if "input_patch" in value and patch is None:
        raise Invalid("input_patch", "must be a JSON merge patch, and not null")
    return Wanted(start, chain_params.own(params), patch, hooks.instead(value, bounds.webhooks))


async def again(
    log: Log,
    stream_id: str,
    wanted: Wanted,
    chains: Mapping[str, Sequence[str]],
    bounds: Bounds = DEFAULT,
) -> Start:
    """Return the start of a stream that tries this one again.

    Raises StreamGone, StreamRunning, NotFailed, ChainChanged or StoreUnavailable. Raises TooLarge if the
    input with its patch is too large. Raises Invalid if `from` does not name one of the stream's stages, or
    if the patch cannot be applied.
    """
    record, _ = await log.record(stream_id)
    if record is None:
        raise StreamGone
    if not record.ended:
        raise StreamRunning
    if record.status is not Status.FAILED:
        raise NotFailed
    if record.stages != list(chains.get(record.chain, ())):
        raise ChainChanged
    raw = await log.kept(stream_id)
    if "input" not in raw:
        raise StreamGone("what a retry needs is no longer kept")
    results = {name.removeprefix(CHECKPOINT): raw[name] for name in raw if name.startswith(CHECKPOINT)}
    at = _reached(record, results)
    start = await _from(log, record, wanted.start, at)
    kept = {name: result for name, result in results.items() if _comes_before(name, start, record.stages)}
    given = json.loads(raw["input"])
    if wanted.patch is not None:
        if record.thread or record.resumes:
            raise Invalid(
                "input_patch", "is not taken: the stream goes on from its thread, or with an answer"
            )
        size = len(raw["input"]) + len(sse.dumps(wanted.patch))
        given = await aside(size, lambda: _patched(given, wanted.patch, record.chain, bounds), record.owner)
    return Start(
        record.chain,
        given,
        {**json.loads(raw.get("params", b"{}")), **wanted.params},
        record.metadata,
        again=Again(
            *(record.id, start[0], wanted.told, kept),
            lost=_lost(record, results, kept),
            own=_own(record, raw, kept, inherits=wanted.webhook is None),
        ),
        webhook=wanted.webhook if wanted.webhook is not hooks.NONE else None,
    )


def _patched(given: Mapping[str, Any], patch: Any, chain: str, bounds: Bounds) -> Mapping[str, Any]:
    """Apply the patch to the input, and check the result by the rules of POST /stream.

    Raises Invalid or TooLarge.
    """
    [kind] = given
    asked = merged(given, patch if kind == "messages" else {kind: patch})
    if not isinstance(asked, dict) or list(asked) != [kind]:
        raise Invalid("input_patch", f"must leave an input with {kind} alone")
    if len(sse.dumps(asked)) > bounds.bytes:
        raise TooLarge(f"the bound of an input with its patch is {bounds.bytes} bytes")
    try:
        return parse_start({**asked, "chain": chain}, {chain: ()}, bounds).input
    except Invalid as error:
        told = f"makes an input whose {error.extensions['field']} {error.extensions['rule']}"
        raise Invalid("input_patch", told) from None


def merged(value: Any, patch: Any) -> Any:
    """Apply a merge patch to JSON (RFC 7396). Neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    made = dict(value) if isinstance(value, dict) else {}
    for name, one in patch.items():
        if one is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), one)
    return made


def _reached(record: Record, results: Mapping[str, bytes]) -> Run:
    """Return the run that began last. If the stream never began, return the first run."""
    if record.at:
        stage, _, run = record.at.rpartition(" ")
        return stage, int(run)
    done = {name.rpartition(" ")[0] for name in results}
    return next((stage for stage in record.stages if stage not in done), record.stages[-1]), 1


async def _from(log: Log, record: Record, asked: str, at: Run) -> Run:
    """Return the run at which the new stream begins. Raises Invalid."""
    if not asked:
        return at
    run = (asked, 1)
    if asked not in record.stages:
        run = await _run_at(log, record, asked)
    places = {stage: number for number, stage in enumerate(record.stages)}
    if (places[run[0]], run[1]) > (places[at[0]], at[1]):
        raise Invalid("from", _RULE)
    return run


async def _run_at(log: Log, record: Record, asked: str) -> Run:
    """Return the run that began with the event of this id. Raises Invalid."""
    try:
        message = await log.event(record.id, Cursor.parse(asked))
    except (ValueError, CursorLost):
        raise Invalid("from", _RULE) from None
    data = message.event().data
    is_stage = message.type == EventType.STAGE and "parent" not in data and data["state"] == "started"
    if not is_stage or data["name"] not in record.stages:
        raise Invalid("from", _RULE)
    return data["name"], data["run"]


def _comes_before(name: str, start: Run, stages: Sequence[str]) -> bool:
    """Whether this is the result of a run before the given run."""
    stage, _, run = name.rpartition(" ")
    if not run.isdigit() or stage not in stages:
        # Not a result, but the usage of a run that was handed over.
        return False
    places = {stage: number for number, stage in enumerate(stages)}
    return (places[stage], int(run)) < (places[start[0]], start[1])


def _own(
    record: Record, raw: Mapping[str, bytes], kept: Mapping[str, bytes], *, inherits: bool
) -> dict[str, Any]:
    """Return further fields of the new stream.

    These are its thread, its answer to a waiting stream, and the stream whose keys it uses. `inherits`: also
    the webhook of the failed stream.
    """
    names = {"thread": record.thread, "first": record.first, "resumes": record.resumes}
    names |= {"stopped_at": record.stopped_at} if record.resumes else {}
    fields: dict[str, Any] = {name: value for name, value in names.items() if value}
    fields |= {name: raw[name] for name in ("turn", "answer", "doubted") if name in raw}
    if carried := [name for name in json.loads(raw.get("carried", b"[]")) if name in kept]:
        fields["carried"] = json.dumps(carried)
    fields |= record.webhook if inherits else {}
    return fields | {"keyed": record.keyed or record.first or record.id}


def _lost(record: Record, results: Mapping[str, bytes], kept: Mapping[str, bytes]) -> dict[str, int]:
    """Return the failed stream's usage whose results are not kept."""
    void = [record.lost, *record.used.values()]
    for name, raw in results.items():
        if name not in kept:
            told = json.loads(raw)
            void.append(told["usage"] if "result" in told else told)
    names = dict.fromkeys(name for usage in void for name in usage)
    return {name: sum(usage.get(name, 0) for usage in void) for name in names}
