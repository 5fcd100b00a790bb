"""Define cases: `case`, `talk` and `check`, and the parts of their chains.

    @case("story", "plain", user="#story please")
    def story(settings):
        return llm() | StrOutputParser()

registers the chain with the gateway and the case with the runner. The client sends one of `user`, `messages`,
`input`. The object itself is given the same value, in the form in which docs/chains.md says it reaches the
chain, or the value of `given`.
"""

from __future__ import annotations

import contextvars
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workers.chains.registry import chain
from workers.stages import Each

CASES: dict[str, Case | Talk | Check] = {}
run_of_model = contextvars.ContextVar("run_of_model", default="gateway")
_each: dict[int, tuple[Any, Callable]] = {}


@dataclass(frozen=True)
class Case:
    """One question to one chain, sent with `POST /stream` and also given to the object itself."""

    name: str
    about: str  # the subject in a word or two; the report groups by it
    make: Callable  # the factory: plain, async, or an async context manager
    body: dict  # the body of the POST
    given: Any  # the input of the object itself; None: the same as the body's
    params: dict
    context: bool = False  # give the params to the object as LangGraph's context
    stages: tuple = ()
    oracle: str = "astream"  # the reference: "astream", or "ainvoke" if only that works
    times: int = 1  # number of requests; the last one counts
    allow: tuple = ()  # names in compare.ALLOWED
    note: str = ""
    needs: str = ""  # a package that the project does not have


@dataclass(frozen=True)
class Talk:
    """Several turns in one LangGraph thread: with the LangGraph SDK, and with the graph and its
    checkpointer."""

    name: str
    about: str
    make: Callable
    turns: tuple  # made with say(...) and resume(...)
    params: dict = field(default_factory=dict)
    context: bool = False
    note: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Check:
    """A special check: `run(kit)` returns the expected values and the observed values, in two similar
    mappings.

    `env`: settings for a separate gateway. Checks with the same settings share a gateway, unless they are
    `alone`.
    """

    name: str
    about: str
    run: Callable
    env: dict
    alone: bool = False
    note: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Turn:
    """The client's input of a turn: `input`, or `command`, which may be a function of the questions."""

    input: Any = None
    command: Any = None


def say(text: str, **more: Any) -> Turn:
    """Return a turn with a user message, and other keys of the state."""
    return Turn(input={"messages": [{"role": "user", "content": text}], **more})


def given(**state: Any) -> Turn:
    """Return a turn with a state without messages."""
    return Turn(input=state)


def go_on() -> Turn:
    """Return a turn without new input: continue from a breakpoint."""
    return Turn()


def resume(value: Any) -> Turn:
    """Return a turn that answers the graph's question. A function gets the interrupts, as [{"id",
    "value"}]."""
    return Turn(command=value)


def case(
    name: str, about: str, *, user: Any = None, messages: Any = None, input: Any = None, given: Any = None,
    params: dict | None = None, context: bool = False, stages: tuple = (), oracle: str = "astream",
    times: int = 1, allow: tuple = (), schema: Any = None, note: str = "", needs: str = "",
):  # fmt: skip
    """Mark a factory as a case."""
    asked = {k: v for k, v in (("user", user), ("messages", messages), ("input", input)) if v is not None}
    if len(asked) != 1:
        raise ValueError(f"{name}: exactly one of user, messages, input")
    if params:
        asked["params"] = params

    def mark(make):
        _register(name, make, stages, schema)
        known = Case(
            name, about, make, asked, given, params or {}, context, stages, oracle, times, allow, note, needs
        )
        _keep(known)
        return make

    return mark


def talk(
    name: str,
    about: str,
    *turns: Turn,
    params: dict | None = None,
    context: bool = False,
    note: str = "",
    needs: str = "",
):
    """Mark a factory of a graph with a checkpointer as a conversation.

    With `context` its params are passed as LangGraph's context."""

    def mark(make):
        _register(name, make, (), None)
        _keep(Talk(name, about, make, turns, params or {}, context, note, needs))
        return make

    return mark


def check(
    name: str, about: str, *, env: dict | None = None, alone: bool = False, note: str = "", needs: str = ""
):
    """Mark `async def f(kit)` as a special check; register its chains with `plain_chain`."""

    def mark(run):
        _keep(Check(name, about, run, env or {}, alone, note, needs))
        return run

    return mark


def plain_chain(name: str, stages: tuple = ()):
    """Register a chain that only a check uses."""

    def mark(make):
        _register(name, make, stages, None)
        return make

    return mark


def _register(name, make, stages, schema):
    chain(name, stages=stages, input=schema)(make)


def _keep(known):
    if known.name in CASES and CASES[known.name] != known:
        raise ValueError(f"two cases are named {known.name}")
    CASES[known.name] = known


def each(runnable: Any, over: Callable) -> Each:
    """Make an Each whose parts the runner can read."""
    made = Each(runnable, over=over)
    _each[id(made)] = (runnable, over)
    return made


def parts_of(part: Any) -> tuple[Any, Callable | None]:
    """Return the Runnable of a stage, and the function that lists its items if it is an Each."""
    return _each.get(id(part), (part, None)) if isinstance(part, Each) else (part, None)


def model_url() -> str:
    """Return the URL of the scripted model of this run."""
    return f"{os.environ['CHAINS_MODEL']}/{run_of_model.get()}"


def llm(**kw: Any):
    """Return ChatOpenAI with the scripted model."""
    from langchain_openai import ChatOpenAI

    own: dict[str, Any] = {
        "model": "stub",
        "base_url": model_url() + "/v1",
        "api_key": "x",
        "stream_usage": True,
        "max_retries": 0,
    }
    return ChatOpenAI(**own | kw)


def azure(**kw: Any):
    """Return AzureChatOpenAI with the scripted model."""
    from langchain_openai import AzureChatOpenAI

    own: dict[str, Any] = {
        "azure_endpoint": model_url(),
        "azure_deployment": "dep",
        "api_version": "2024-10-21",
        "api_key": "k",
    }
    return AzureChatOpenAI(**own | {"stream_usage": True, "max_retries": 0} | kw)


def responses(**kw: Any):
    """Return ChatOpenAI with the Responses API."""
    return llm(use_responses_api=True, **kw)


def claude(**kw: Any):
    """Return ChatAnthropic with the scripted model."""
    from langchain_anthropic import ChatAnthropic  # type: ignore[import-not-found]

    own: dict[str, Any] = {
        "model": "claude-stub",
        "base_url": model_url(),
        "api_key": "x",
        "max_retries": 0,
        "max_tokens": 4000,
    }
    return ChatAnthropic(**own | kw)


def unreachable():
    """Return a model whose server does not exist."""
    return llm(base_url="http://127.0.0.1:9/v1")


def documents():
    """Return three documents."""
    from langchain_core.documents import Document

    return [
        Document("The gateway resumes by Last-Event-ID.", metadata={"source": "a.md", "page": 1}, id="a"),
        Document("Workers hold jobs by a lease.", metadata={"source": "b.md"}, id="b"),
        Document("Cats sleep all day.", metadata={"source": "c.md"}, id="c"),
    ]


def retriever(k: int = 2):
    """Return a retriever on a vector store of these documents."""
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_openai import OpenAIEmbeddings

    own: dict[str, Any] = {"model": "emb", "base_url": model_url() + "/v1", "api_key": "x"}
    embed = OpenAIEmbeddings(check_embedding_ctx_length=False, **own)
    store = InMemoryVectorStore(embed)
    store.add_documents(documents())
    return store.as_retriever(search_kwargs={"k": k})


def scratch(name: str) -> str:
    """Return a file path in this run's folder; the gateway and the object itself get different paths."""
    folder = os.environ.get("CHAINS_SCRATCH") or tempfile.gettempdir()
    return os.path.join(folder, f"{run_of_model.get()}-{name}")
