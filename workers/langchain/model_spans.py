"""Create spans for the model's calls, from LangChain's own callbacks (OpenTelemetry's GenAI conventions).

A chain gets this callback only if there is an exporter, because a callback costs time for each token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from opentelemetry.trace import Span, SpanKind

from gateway.observe import telemetry

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult


class ModelSpans(AsyncCallbackHandler):
    """Creates one client span for each call of a model. Prompts and answers are not read."""

    run_inline = True  # later callbacks may end the call by an error

    def __init__(self) -> None:
        self._open: dict[UUID, Span] = {}

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: Any, *, run_id: UUID, **given: Any
    ) -> None:
        """Begin the span of a chat model's call."""
        self._begin(run_id, given)

    async def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **given: Any
    ) -> None:
        """Begin the span of a text model's call."""
        self._begin(run_id, given)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """End the span, with the call's usage."""
        span = self._open.pop(run_id)
        for generation in (response.generations or [[]])[0][:1]:
            usage = getattr(getattr(generation, "message", None), "usage_metadata", None) or {}
            for name in ("input_tokens", "output_tokens"):
                if name in usage:
                    span.set_attribute(f"gen_ai.usage.{name}", usage[name])
        span.end()

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """End the span of a call that has failed or was cancelled."""
        span = self._open.pop(run_id)
        telemetry.failed(span, type(error).__name__)
        span.end()

    def _begin(self, run_id: UUID, given: dict[str, Any]) -> None:
        known = given.get("metadata") or {}
        model = str(known.get("ls_model_name", ""))
        span = telemetry.tracer.start_span(f"chat {model}".rstrip(), kind=SpanKind.CLIENT)
        span.set_attribute("gen_ai.operation.name", "chat")
        span.set_attribute("gen_ai.request.model", model)
        span.set_attribute("gen_ai.provider.name", str(known.get("ls_provider", "")))
        self._open[run_id] = span
