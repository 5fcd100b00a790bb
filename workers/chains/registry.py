"""Find chains by name. A chain is any LangChain Runnable.

Its factory makes it at its first use (`making.py`).
`@chain("name")` marks a factory, which receives the settings. With `stages=("a", "b")` the factory returns a
mapping from these names to Runnables (`docs/chains.md`). The modules named in `GATEWAY_CHAINS` are imported
so that their marks run. Keep LangChain's imports inside the factory, so that a web process does not need
them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import name as checked_name
from gateway.settings import Settings
from gateway.streams.params import RESPONSE_FORMAT, own
from workers.chains.explain import explained
from workers.chains.making import Maker, checked
from workers.chains.own import imported, modules_of, tell_of_empty
from workers.chains.retries import Judge, judges_of

_log = logging.getLogger("holdfast.registry")
SHIPPED = tuple(f"workers.chains.{name}" for name in ("chat", "report", "rag", "agent", "demo"))
MOST_WARMED = 20
Schema = Mapping[str, Any]
Put = Callable[[str, Sequence[Mapping[str, Any]]], Any]
# The type of a plain factory. A factory may also be async, or yield its chain (`making.py`).
Factory = Callable[[Settings], Any]


@dataclass(frozen=True, slots=True)
class Chain:
    """A registered chain: its name, the stages it goes through, and its factory."""

    name: str
    stages: tuple[str, ...]
    factory: Factory
    input: Schema | None = None
    params: tuple[str, ...] | Schema = ()  # a schema: callers may set only its params
    # Stage -> how many tries it has in all. A stage that is not in it has the gateway's number.
    tries: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)  # stage -> how many seconds it may run
    # stage -> which of its failures are temporary
    retry_on: Mapping[str, Judge] = field(default_factory=dict)
    deployment: str = ""  # the model name in its text events; empty: GATEWAY_MODEL


_marked: dict[str, Chain] = {}


def chain(
    name: str,
    *,
    stages: Sequence[str] = (),
    input: Any = None,
    params: Any = (),
    tries: int | Mapping[str, int] | None = None,
    limits: float | Mapping[str, float] | None = None,
    retry_on: Any = None,
    structured: bool = False,
    deployment: str = "",
) -> Callable[[Factory], Factory]:
    """Register a factory under a name. Raises ValueError for a name that is already used or malformed.

    `stages`: the names in the factory's mapping, in the order in which they run. Empty: one stage, named as
    the chain.
    `input`: a JSON Schema, or a type that pydantic knows (a model, a TypedDict). None: any JSON is accepted.
    `params`: the only params that callers may set: a mapping from their names to JSON Schemas, or a type that
    pydantic knows. A list of names instead lets callers set all params, and also the listed ones that name a
    credential or an endpoint (`gateway/streams/params.py`).
    `tries`: how often a stage is tried in all while its failures are temporary, by the stage's name or for
    all stages. None: GATEWAY_STAGE_TRIES.
    `limits`: after how many seconds a stage, or one node of a graph, is stopped, by the stage's name or for
    all stages. 0: never. None: GATEWAY_STAGE_LIMIT_SECONDS.
    `retry_on`: exceptions that are temporary in addition to the known ones. It is a class, several classes,
    or a function of the exception that returns True, False, or None (use the general rule); by the stage's
    name or for all stages.
    `structured`: the chain obeys the param `response_format`, with which OpenAI's clients ask for structured
    output: `{"name", "schema", "strict"}`. Every other chain refuses such a request.
    `deployment`: the model name in its text events. Empty: GATEWAY_MODEL.
    """
    if isinstance(stages, str) or len(set(stages)) < len(stages):
        raise ValueError(f"the stages of {name} must be names, each once")
    allowed = _with_format(_allowed(name, params)) if structured else _allowed(name, params)
    named = tuple(map(checked_name, stages)) or (name,)
    told = dict.fromkeys(named, tries) if isinstance(tries, int) else dict(tries or {})
    if not set(told) <= set(named) or any(type(most) is not int or most < 1 for most in told.values()):
        raise ValueError(f"the tries of {name} must be whole numbers, at least 1, for stages that it has")
    longest = dict.fromkeys(named, limits) if isinstance(limits, int | float) else dict(limits or {})
    if not set(longest) <= set(named) or any(not _is_limit(seconds) for seconds in longest.values()):
        raise ValueError(f"the limits of {name} must be seconds, 0 or more, for stages that it has")
    judges = judges_of(name, named, retry_on)
    schema = input if input is None or isinstance(input, Mapping) else _schema_of(input)

    def mark(factory: Factory) -> Factory:
        known = _marked.get(checked_name(name))
        if known is not None and _definition(known.factory) != _definition(factory):
            raise ValueError(f"two chains are named {name}")
        _marked[name] = Chain(name, named, factory, schema, allowed, told, longest, judges, deployment)
        return factory

    return mark


def _is_limit(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < float("inf")


def _definition(factory: Factory) -> tuple[Any, ...]:
    """Return where a factory is written. This stays the same when its module is imported again."""
    code = getattr(inspect.unwrap(factory), "__code__", None)
    return factory.__module__, getattr(factory, "__qualname__", ""), getattr(code, "co_firstlineno", 0)


def _allowed(name: str, params: Any) -> tuple[str, ...] | Schema:
    """Return the params that a mark allows: names, or the JSON Schema of all params that callers may set."""
    if isinstance(params, list | tuple | set | frozenset):
        return tuple(params)
    if isinstance(params, Mapping):
        schema: Schema = {"type": "object", "properties": dict(params)}
    elif isinstance(params, type):
        schema = _schema_of(params)
    else:
        raise ValueError(f"the params of {name} must be a list of names, a mapping of schemas, or a type")
    members = schema.get("properties", {})
    wrong = [param for param, one in members.items() if not isinstance(one, Mapping | bool)]
    if wrong or schema.get("type") != "object":
        raise ValueError(
            f"the params of {name} must be a mapping from each param's name to its JSON Schema, as "
            '{"tone": {"type": "string"}}'
        )
    if nobodys := [param for param in members if not own({param: None})]:
        raise ValueError(f"no caller can set the param {nobodys[0]} of {name}: its name is taken")
    return schema


def _with_format(allowed: tuple[str, ...] | Schema) -> tuple[str, ...] | Schema:
    """Return the params that callers may set, with `response_format` added."""
    if not isinstance(allowed, Mapping):
        return (*allowed, RESPONSE_FORMAT)
    members = allowed.get("properties", {}) | {RESPONSE_FORMAT: {"type": "object"}}
    return {**allowed, "properties": members}


def _schema_of(kind: Any) -> Schema:
    from pydantic import TypeAdapter

    return TypeAdapter(kind).json_schema()


def forget(modules: Collection[str]) -> Callable[[], None]:
    """Forget the chains that these modules have marked, before the modules are imported again.

    Return a function that undoes this.
    """
    before = dict(_marked)
    for name, one in before.items():
        if one.factory.__module__ in modules:
            del _marked[name]

    def bring_back() -> None:
        _marked.clear()
        _marked.update(before)

    return bring_back


def _forms_of(chain: Chain, parts: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    from workers.chains.taking import forms_of  # imports LangChain

    return forms_of(chain.name, chain.input, parts, development=settings.is_development)


class Registry:
    """The chains of one process. Each chain is created once, when it is first run.

    `loaded` is called each time a chain was created. `also`: chains for this registry only, which have no
    mark.
    Raises ValueError for a module that does not exist, or for a chain name that is already used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        loaded: Callable[[], object] = lambda: None,
        also: Sequence[Chain] = (),
    ) -> None:
        self.settings = settings
        self._loaded = loaded
        for module in (*SHIPPED, *modules_of(settings)):
            imported(module)
        self._chains = _marked | {one.name: one for one in also}
        if settings.default_chain not in self._chains:
            known = ", ".join(sorted(self._chains))
            raise ValueError(
                f"GATEWAY_DEFAULT_CHAIN: there is no chain {settings.default_chain}; there are {known}"
            )
        tell_of_empty(modules_of(settings), (one.factory.__module__ for one in self._chains.values()))
        self._made: dict[str, Any] = {}
        self._forms: dict[str, Mapping[str, Any]] = {}  # chain -> stage -> form; only chains that are created
        self._maker = Maker()
        # one lock per chain, so that a slow factory delays no other chain
        self._making: dict[str, asyncio.Lock] = {}

    def places(self) -> Mapping[str, str]:
        """Return the modules of the chains, by the chains' names."""
        return {name: one.factory.__module__ for name, one in self._chains.items()}

    def catalogue(self) -> Mapping[str, Sequence[str]]:
        """Return the chains' names and their stages, as plain data for the handlers."""
        return {name: chain.stages for name, chain in self._chains.items()}

    def schemas(self) -> Mapping[str, Schema | None]:
        """Return the chains' names and the JSON Schemas of their inputs, as plain data for the handlers."""
        return {name: chain.input for name, chain in self._chains.items()}

    def params(self) -> Mapping[str, Sequence[str] | Schema]:
        """Return the chains' names and the params that callers may set, as plain data for the handlers.

        A JSON Schema: callers may set only these params. Names: callers may set any params, and also the
        named ones that name a credential or an endpoint.
        """
        return {name: chain.params for name, chain in self._chains.items()}

    def find(self, name: str) -> Chain | None:
        """Return the chain of this name, or None if this release does not have it."""
        return self._chains.get(name)

    def made_by(self, factory: Factory) -> Chain | None:
        """Return the chain whose mark is on this factory, or None."""
        return next((one for one in self._chains.values() if one.factory is factory), None)

    async def load(self, name: str) -> Any:
        """Return the chain's parts by stage, in order. Each part is a Runnable or an Each.

        The factory is called only once. Raises KeyError for an unknown name, WrongChain, and whatever the
        factory raises.
        """
        async with self._making.setdefault(name, asyncio.Lock()):
            if name not in self._made:
                chain = self._chains[name]
                made = await self._maker.make(name, chain.factory, self.settings)
                parts = checked(name, chain.stages, made, chain.factory)
                self._forms[name] = await asyncio.to_thread(_forms_of, chain, parts, self.settings)
                self._made[name] = parts
                self._loaded()
        return self._made[name]

    def put(self, name: str) -> Put:
        """Return a function that converts a question by `user` or `messages` to the input of a stage.

        The chain must be loaded. The function receives a stage and the messages. It raises WrongChain when no
        rule says how to convert them.
        """
        from workers.chains.taking import asked

        forms = self._forms[name]
        return lambda stage, messages: asked(name, forms[stage], messages)

    async def close(self, seconds: float | None = None) -> None:
        """Close the resources of the factories. Call it in the event loop that has loaded the chains.

        It returns after at most this many seconds. None: after at most five.
        """
        await self._maker.close(seconds)

    async def warm(self, name: str) -> None:
        """Load a chain before its first job.

        If it cannot be created, the error is logged and its jobs fail.
        """
        try:
            await self.load(name)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # a factory may call sys.exit()
            told = explained(error, development=self.settings.is_development)
            _log.error("the chain %s cannot be made: %s", name, told)

    async def warm_own(self) -> None:
        """Load the chains of GATEWAY_CHAINS, so that their author sees errors at once.

        At most MOST_WARMED chains are loaded, because loading takes time from requests.
        """
        own = [name for name, chain in self._chains.items() if chain.factory.__module__ not in SHIPPED]
        for name in own[:MOST_WARMED]:
            await self.warm(name)
