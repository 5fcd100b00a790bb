"""The recorded text, calls, questions and value of an object, and the callback that records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Command

NOTHING = object()
# These errors are retried, as docs/chains.md says.
MAY_PASS = (
    "model_rate_limited",
    "model_timeout",
    "model_connection",
    "model_error",
)


@dataclass
class Wanted:
    """The output that the gateway must show."""

    texts: dict[str, list[list[str]]] = field(default_factory=dict)  # messages of the runs, by stage or node
    optional: list[tuple[str, str]] = field(
        default_factory=list
    )  # node and message: in a subgraph, not made by a model
    pieces: int = 0
    tools: list[dict] = field(default_factory=list)
    customs: list[tuple[str, Any]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    reasoning: str = ""
    interrupts: list[dict] = field(default_factory=list)
    usage: list[int] = field(default_factory=lambda: [0, 0])
    finish: str = "stop"
    error: str = ""
    said: str = ""  # text of the exception; only for the report
    given: Any = None
    final: Any = NOTHING
    values: dict[str, list] = field(default_factory=dict)  # for a chain of stages: the results of their runs


class Recorder(BaseCallbackHandler):
    """Record what happens inside, through LangChain's callbacks."""

    run_inline = True

    def __init__(self) -> None:
        self.parents: dict[Any, Any] = {}
        self.tools: dict[Any, dict] = {}
        self.customs: list[tuple[str, Any]] = []
        self.sources: list[str] = []
        self.usage = [0, 0]
        self.finish = "stop"
        self.of_tools: set[str] = set()  # ids of messages of models that a tool calls
        self.paths_of_tools: set[str] = set()
        self.of_models: set[str] = set()  # ids of all models' messages
        self.whole: list[str] = []  # complete messages of the models

    def within_tool(self, run_id: Any) -> bool:
        while run_id is not None:
            run_id = self.parents.get(run_id)
            if run_id in self.tools:
                return True
        return False

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, metadata=None, **kw):
        self.parents[run_id] = parent_run_id
        path = (metadata or {}).get("langgraph_checkpoint_ns")
        if path and self.within_tool(run_id):
            self.paths_of_tools.add(path)

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **kw):
        self.parents[run_id] = parent_run_id

    def on_llm_start(self, serialized, prompts, *, run_id, parent_run_id=None, **kw):
        self.parents[run_id] = parent_run_id

    def on_llm_new_token(self, token, *, run_id, chunk=None, **kw):
        if (message := getattr(chunk, "message", None)) is not None:
            self.of_models.add(message.id)
            if self.within_tool(run_id):
                self.of_tools.add(message.id)

    def on_llm_end(self, response, *, run_id, **kw):
        for generation in (response.generations or [[]])[0][:1]:
            message = getattr(generation, "message", None)
            if message is None:
                self.whole.append(generation.text)
                continue
            for at, name in enumerate(("input_tokens", "output_tokens")):
                self.usage[at] += (message.usage_metadata or {}).get(name, 0)
            self.of_models.add(message.id)
            if self.within_tool(run_id):
                self.of_tools.add(message.id)
            else:
                self.whole.append(str(message.text))
                self.finish = finish_of(message)

    def on_tool_start(self, serialized, input_str, *, run_id, parent_run_id=None, inputs=None, **kw):
        self.parents[run_id] = parent_run_id
        name = kw.get("name") or (serialized or {}).get("name")
        given = input_str if inputs is None else inputs
        call = kw.get("tool_call_id")
        self.tools[run_id] = {"name": name, "input": given, "state": "started", "call": call}

    def on_tool_end(self, output, *, run_id, **kw):
        call = self.tools[run_id]
        call["state"] = "failed" if getattr(output, "status", "") == "error" else "finished"
        call["output"] = output_of(output, call["call"])

    def on_tool_error(self, error, *, run_id, **kw):
        # an interrupt is no error
        if not any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__):
            self.tools[run_id]["state"] = "failed"

    def on_retriever_start(self, serialized, query, *, run_id, parent_run_id=None, **kw):
        self.parents[run_id] = parent_run_id

    def on_retriever_end(self, documents, *, run_id, **kw):
        self.sources += [document.page_content for document in documents]

    def on_custom_event(self, name, data, *, run_id, **kw):
        self.customs.append((name, data))


def output_of(output: Any, call_id: str | None) -> Any:
    """Return a tool's answer; for Commands the content of the call's ToolMessage."""
    if isinstance(output, ToolMessage):
        return output.content
    parts = output if isinstance(output, list) else [output]
    if not any(isinstance(part, Command) for part in parts):
        return output
    found = [message for part in parts for message in tool_messages(part)]
    own = [m for m in found if m.tool_call_id == call_id] or found[-1:]
    return own[-1].content if own else NOTHING


def tool_messages(part: Any) -> list[ToolMessage]:
    """Return the tool messages of a Command's update, in any notation."""
    if isinstance(part, ToolMessage):
        return [part]
    update = part.update if isinstance(part, Command) else None
    pairs = update.items() if isinstance(update, Mapping) else update if isinstance(update, list) else ()
    values = [value for _, value in pairs]
    return [
        m
        for value in values
        for m in (value if isinstance(value, list) else [value])
        if isinstance(m, ToolMessage)
    ]


def finish_of(message: Any) -> str:
    """Return why a model has stopped: stop, length, content_filter or refusal."""
    metadata = message.response_metadata or {}
    said = metadata.get("finish_reason") or metadata.get("stop_reason") or ""
    if metadata.get("status") == "incomplete":
        said = (metadata.get("incomplete_details") or {}).get("reason") or said
    blocks = message.content if isinstance(message.content, list) else []
    blocks = [
        b.get("value", b) if b.get("type") == "non_standard" else b for b in blocks if isinstance(b, dict)
    ]
    if message.additional_kwargs.get("refusal") or any(b.get("type") == "refusal" for b in blocks):
        said = "refusal"
    return finish_class(said)


def finish_class(said: str) -> str:
    """Map the words of all models and of the gateway to one of five words."""
    if said in ("length", "max_tokens", "max_output_tokens"):
        return "length"
    return said if said in ("content_filter", "refusal", "interrupted") else "stop"


def error_class(error: BaseException) -> str:
    """Return the code in docs/protocol.md for an exception of a chain."""
    import httpx
    import openai

    kinds = {kind.__name__ for kind in type(error).__mro__}
    table = (
        (openai.RateLimitError, "model_rate_limited"),
        (openai.AuthenticationError, "model_authentication"),
        (openai.PermissionDeniedError, "model_permission_denied"),
        (openai.NotFoundError, "model_not_found"),
        (openai.APITimeoutError, "model_timeout"),
        (openai.APIConnectionError, "model_connection"),
        (openai.BadRequestError, "model_invalid_request"),
        (openai.InternalServerError, "model_error"),
        (httpx.TimeoutException, "model_timeout"),
        (httpx.TransportError, "model_connection"),
        (TimeoutError, "timeout"),
    )
    if "ContextOverflowError" in kinds:
        return "context_overflow"
    for kind, code in table:
        if isinstance(error, kind):
            return code
    by_name = {
        "RateLimitError": "model_rate_limited", "AuthenticationError": "model_authentication",
        "PermissionDeniedError": "model_permission_denied", "NotFoundError": "model_not_found",
        "APITimeoutError": "model_timeout", "APIConnectionError": "model_connection",
        "BadRequestError": "model_invalid_request", "InternalServerError": "model_error",
        "ModelRateLimitError": "model_rate_limited", "ModelAuthenticationError": "model_authentication",
        "ModelPermissionDeniedError": "model_permission_denied", "ModelNotFoundError": "model_not_found",
        "ModelTimeoutError": "model_timeout", "ModelConnectionError": "model_connection",
        "ModelInvalidRequestError": "model_invalid_request", "ModelAPIError": "model_error",
    }  # fmt: skip
    return next((code for name, code in by_name.items() if name in kinds), "chain_error")


def text_in(value: Any) -> str:
    """Return the text of a string or an AI message."""
    if isinstance(value, str):
        return value
    return str(value.text) if isinstance(value, AIMessage) else ""
