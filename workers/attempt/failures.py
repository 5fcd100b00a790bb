"""The events that end a stream as `failed`, with a stable code, and the rule for what is retried.

A failure is retried only if its event says `retryable`. The message is written by this product. The
exception's text, which may quote a prompt or a key, is shown only in development (`explain.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway import protocol
from gateway.protocol import Event
from gateway.streams.doubt import REASON
from workers.langchain.doubts import ToolUnknown
from workers.langchain.model_errors import Verdict, verdict
from workers.langchain.stage import CheckpointLost

ATTEMPTS_EXHAUSTED = protocol.failed(
    "attempts_exhausted", "The job was tried too often without coming to an end.", retryable=True
)
UNKNOWN_CHAIN = protocol.failed("unknown_chain", "This release has no such chain.", retryable=False)
UNSUPPORTED_VERSION = protocol.failed(
    "unsupported_version",
    "The stream was made by a release that this one does not know.",
    retryable=True,
)
OUTPUT_LIMIT = protocol.failed(
    "output_limit", "The chain said more than this gateway allows.", retryable=False
)
# What an operator should check first. But a chain may have its own model, with its own settings.
_HINTS = {
    "model_authentication": "the key is wrong, or another server's: see OPENAI_API_KEY and OPENAI_BASE_URL "
    "(on Azure AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT)",
    "model_permission_denied": "the key in OPENAI_API_KEY may not use the model that GATEWAY_MODEL names",
    "model_not_found": "the server has no such model: see GATEWAY_MODEL (on Azure a deployment) and "
    "OPENAI_BASE_URL",
    "model_connection": "see OPENAI_BASE_URL (on Azure AZURE_OPENAI_ENDPOINT)",
}
_JUDGED = "holdfast_may_pass"  # the name of an attribute that `judge` sets on the exception
_CHAIN_ERROR = Verdict("chain_error", "The chain failed.")
_STEPS = Verdict("recursion_limit", "The graph took more steps than it may.")
_LOST = Verdict("checkpoint_lost", "What the graph was to go on from is not kept any more.")
_LOST_WITH_ITS_PROCESS = Verdict(
    "checkpoint_lost",
    "The graph keeps what it has asked in one process's memory (InMemorySaver), and this is another process.",
)
CHECKPOINT_LOST = protocol.failed(_LOST.code, _LOST.message, retryable=False)
_TOOL_UNKNOWN = Verdict(REASON, "A tool may have done its work already, and may not be called again.")
_TIMEOUT = Verdict("timeout", "The chain did not answer in time.", passes=True)


def over_time(stage: str, seconds: float) -> Event:
    """Return the terminal event for a stage that has passed its time limit."""
    told = f"The stage {stage} took longer than it may: {seconds:g} s."
    return protocol.failed("time_limit", told, retryable=False)


def judge(error: BaseException, by: Callable[[BaseException], bool | None] | None) -> None:
    """Let the chain's own rule say whether a failure is temporary. The result is stored on the exception."""
    said = by(error) if by is not None else None
    vars(error).pop(_JUDGED, None)  # the same exception object may be raised again, and by another chain
    if said is not None:
        vars(error)[_JUDGED] = bool(said)


def may_pass(error: BaseException) -> bool:
    """Return whether the failure is temporary: the same run may succeed later.

    `failure` uses it for `retryable`. The result of the chain's own rule (`judge`) has priority. A model's
    failure is temporary if its verdict says so and the exception's own `is_retryable` is not False. Any other
    exception is temporary if its `is_retryable` is True. If it has no `is_retryable`, it is temporary if it
    is a TimeoutError.
    """
    if _JUDGED in vars(error):
        return bool(vars(error)[_JUDGED])
    said = getattr(error, "is_retryable", None)
    judged = verdict(error)
    if judged is not None:
        return judged.passes and said is not False
    return said if isinstance(said, bool) else isinstance(error, TimeoutError)


def hint(error: BaseException) -> str:
    """Return which settings a model's failure is about, or an empty string if unknown.

    This is right only if the chain uses the gateway's own model.
    """
    judged = verdict(error)
    return _HINTS.get(judged.code, "") if judged is not None else ""


def failure(error: BaseException, detail: str = "") -> Event:
    """Return the terminal event for an exception of a chain.

    `detail`: in development, the explanation for the chain's author.
    """
    judged = verdict(error) or _of_a_chain(error)
    return protocol.failed(judged.code, judged.message, retryable=may_pass(error), detail=detail)


def _of_a_chain(error: BaseException) -> Verdict:
    # an exception of LangGraph
    if any(kind.__name__ == "GraphRecursionError" for kind in type(error).__mro__):
        return _STEPS
    if isinstance(error, ToolUnknown):
        return _TOOL_UNKNOWN
    if isinstance(error, CheckpointLost):
        return _LOST_WITH_ITS_PROCESS if error.in_memory else _LOST
    return _TIMEOUT if isinstance(error, TimeoutError) else _CHAIN_ERROR
