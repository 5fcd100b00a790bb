"""Run a chain once, from the fields of a request to the terminal event, as a worker does.

The `Runner` of the workers runs the attempt, with its writer. If a stage exceeds its time limit, a next
attempt retries it, as another worker would do. Parts that need a store are left out: competing claims,
leases, quotas.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gateway import protocol
from gateway.client import events as client_events
from gateway.client.events import Event, Refused, Stage
from gateway.protocol import ANONYMOUS, VERSION, Status, sse
from gateway.protocol.errors import HoldfastError, TooLarge
from gateway.protocol.fold import StageText
from gateway.settings import Settings
from gateway.store.record import Claim
from gateway.streams.input_schemas import Inputs
from gateway.streams.start import DEFAULT_CHAIN, Bounds, Start, parse_json, parse_start
from gateway.streams.status import fold_of
from gateway.writing.writer import Writer
from holdfast_gateway.testing.memory import MemoryLog
from workers.attempt.attempt import Attempt
from workers.chains.chat import answered_by
from workers.chains.registry import Chain, Registry
from workers.delivery.runner import Runner
from workers.each import Each

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

UNNAMED = "chain"  # the name of a chain that is given as an object
_NOT_GIVEN: Any = object()  # marks an argument that was not given: `input` may be None


@dataclass(frozen=True, slots=True)
class Result(client_events.Result):
    """The result of a client's `result()`, with additional fields for tests.

    `events`: every event, in order, as a client's `async for` yields them.

    `result`: the result of the chain's last stage, a text or a JSON value; if the last stage is an `Each`, a
    list. It is None if the stream failed.

    `error`: the data of the `failed` event (`code`, `message`, `retryable`, `detail`), or None.

    `attempts`: how many attempts there were.
    """

    events: Sequence[Event] = ()
    result: Any = None
    error: Mapping[str, Any] | None = None
    attempts: int = 1


async def run(
    chain: str | Runnable[Any, Any] | Mapping[str, Any] | Callable[..., Any] = DEFAULT_CHAIN,
    *,
    user: str | None = None,
    messages: Sequence[Mapping[str, Any]] | None = None,
    input: Any = _NOT_GIVEN,
    params: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    owner: str = ANONYMOUS,
    model: BaseChatModel | None = None,
) -> Result:
    """Run a chain to its end and return the result. If the chain fails, the result has an `error`.

    `chain` is one of these: the name of a chain that is marked in an imported module or in a module of
    GATEWAY_CHAINS; a marked factory; a Runnable; or a mapping from stages to Runnables. Give exactly one of
    `user`, `messages` and `input`. These, `params`, `context` and `metadata` are the fields of `POST
    /stream`, and are checked in the same way. `owner` is the name of the caller. `model` is the model that
    `model(settings)` returns in the chain. All other settings are those of the environment.

    Raises ValueError if there is no such chain, or a setting is wrong. Raises Refused, with the status and
    the problem, if a gateway would refuse the request. Raises TypeError for an object that is not a chain,
    and for input that is not JSON.
    """
    # So an error's `detail` contains the message of the chain's exception.
    settings = replace(Settings.from_env(), development="yes")
    registry, name = _registry(chain, settings)
    asked = {"user": user, "messages": messages, "params": params, "context": context, "metadata": metadata}
    body: dict[str, Any] = {"chain": name} | {key: value for key, value in asked.items() if value is not None}
    if input is not _NOT_GIVEN:
        body["input"] = input
    start = _start(body, registry, settings)
    log = MemoryLog(protocol.new_stream_id(), _fields(start, registry.catalogue()[name], owner))
    runner = _Runner(settings, log, registry)
    with answered_by(model) if model is not None else contextlib.nullcontext():
        try:
            result = await runner.to_the_end(name)
        finally:
            await registry.close()
    return await _told(log, result)


def run_sync(
    chain: str | Runnable[Any, Any] | Mapping[str, Any] | Callable[..., Any] = DEFAULT_CHAIN, **given: Any
) -> Result:
    """Do the same as `run`, for a test that is not async.

    It takes the same arguments and raises the same errors.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run(chain, **given))
    raise RuntimeError("an event loop is running here: use `await run(…)`")


class _Runner(Runner):
    """The runner of a worker, for one stream in memory."""

    def __init__(self, settings: Settings, log: MemoryLog, registry: Registry) -> None:
        super().__init__(settings, log, registry)
        self._memory = log
        self._chains = registry
        self._last: Attempt | None = None

    def _made(self, claim: Claim, writer: Writer) -> Attempt:
        self._last = super()._made(claim, writer)
        return self._last

    async def to_the_end(self, name: str) -> Any:
        """Run attempts until one has ended the stream. Return the result of the chain.

        Each attempt has its own claim.
        """
        again = True
        while again:
            claim = (await self._memory.claim("", protocol.new_token(), 0)).claim
            assert claim is not None
            again = (await self._run(claim, True, "")).again_in_ms is not None
            task = asyncio.current_task()
            # The runner has handed the stream over, like a worker that stops.
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
        return await self._result(name)

    async def _result(self, name: str) -> Any:
        record = self._memory.stream
        if record.status is not Status.DONE:
            return None
        assert self._last is not None
        *_, (stage, part) = (await self._chains.load(name)).items()
        if not isinstance(part, Each):
            return self._last.result
        runs = [run for run in (await fold_of(self._memory, record.id)).stages if _is_run(run, stage)]
        kept = [record.checkpoints.get(f"{stage} {run.run}") for run in runs]
        return [self._last.result if raw is None else json.loads(raw)["result"] for raw in kept]


def _is_run(run: StageText, stage: str) -> bool:
    """Return whether this is a run of the chain's stage. A node of a graph may have the same name."""
    return run.name == stage and not run.parent


def _registry(chain: Any, settings: Settings) -> tuple[Registry, str]:
    """Return the registry of chains, which contains the given chain, and the name of the given chain."""
    registry = Registry(settings)
    if isinstance(chain, str):
        if registry.find(chain) is None:
            raise ValueError(f"there is no chain {chain}: import its module, or name it in GATEWAY_CHAINS")
        return registry, chain
    if (marked := registry.made_by(chain)) is not None:
        return registry, marked.name
    if isinstance(chain, Mapping) and chain:
        stages = tuple(map(protocol.name, chain))
    elif hasattr(chain, "astream") and not isinstance(chain, type):
        stages = (UNNAMED,)
    else:
        kind = type(chain).__name__
        raise TypeError(
            f"an object of the type {kind} is no chain: give a name, a factory that is marked by @chain, "
            "a Runnable of LangChain's, or a mapping from stages to Runnables"
        )
    return Registry(settings, also=[Chain(UNNAMED, stages, lambda _: chain)]), UNNAMED


def _start(body: Mapping[str, Any], registry: Registry, settings: Settings) -> Start:
    """Parse and check the request. Raises Refused, and TypeError for data that is not JSON."""
    raw, bounds = json.dumps(body).encode(), Bounds.of(settings)
    try:
        if len(raw) > bounds.bytes:
            raise TooLarge(f"the bound is {bounds.bytes} bytes")
        start = parse_start(parse_json(raw, bounds), registry.catalogue(), bounds)
        Inputs(registry.schemas(), registry.params()).check(start)
    except HoldfastError as error:
        raise Refused(error.status, error.problem(), None) from error
    return start


def _fields(start: Start, stages: Sequence[str], owner: str) -> dict[str, Any]:
    """Return the record of a new stream, without the fields that limit its life in a store."""
    fields: dict[str, Any] = {
        "version": VERSION,
        "owner": owner,
        "chain": start.chain,
        "stages": sse.dumps(list(stages)),
        "input": sse.dumps(start.input),
        "params": sse.dumps(start.params),
        "created_ms": time.time_ns() // 1_000_000,
    }
    return fields if start.metadata is None else fields | {"metadata": sse.dumps(start.metadata)}


async def _told(log: MemoryLog, result: Any) -> Result:
    """Return what a client would get from this log, and the result of the chain."""
    messages = sse.Decoder().feed(bytes(log.frames))
    events = [Event(message.id, message.type, json.loads(message.data)) for message in messages]
    fold, end = await fold_of(log, log.stream.id), events[-1].data
    return Result(
        text=fold.text,
        stages=[Stage(run.name, run.run, run.state, run.text) for run in fold.stages],
        usage=fold.usage or {},
        finish_reason=end.get("finish_reason", ""),
        interrupts=end.get("interrupts", ()),
        events=events,
        result=result,
        error=fold.error,
        attempts=log.stream.attempt,
    )
