"""Whether a model's answer is complete, why it ended, and its usage. Real clients use a scripted server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from gateway.protocol import Event
from gateway.protocol.fold import Fold
from tests.support.jobs import Jobs, body
from tests.support.model_server import ModelServer, script
from workers.attempt import retry
from workers.chains.registry import chain
from workers.langchain.calls import UNMARKED, added_usage, finish_of

CUT = {"name": "add", "pieces": ['{"a": 1', ', "b": 10']}
WHOLE = {"name": "add", "pieces": ['{"a": 1', ', "b": 100}']}
added: list[tuple[int, int]] = []


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.02)
    added.clear()


@tool
async def add(a: int, b: int) -> str:
    """Add."""
    added.append((a, b))
    return str(a + b)


def client(model: ModelServer, kind: str = "openai", **options: Any) -> BaseChatModel:
    """Return a real client of the scripted server. The client does not retry by itself."""
    given: dict[str, Any] = {"max_retries": 0, "api_key": "k", "stream_usage": True, **options}
    if kind == "azure":
        return AzureChatOpenAI(
            azure_endpoint=model.url, azure_deployment="d", api_version="2024-10-21", **given
        )
    if kind == "responses":
        given["use_responses_api"] = True
    return ChatOpenAI(model="m", base_url=f"{model.url}/v1", **given)


async def ask(
    redis_url: str, made: Runnable[Any, Any], asked: str, **settings: Any
) -> tuple[Fold, list[Event]]:
    """Run a stream with this question. Return the state that a reader has at the end, and all events."""
    chain("ends")(lambda _: made)
    async with Jobs(redis_url, **settings) as jobs:
        stream_id = await jobs.stream([{"role": "user", "content": asked}], chain="ends")
        await jobs.runner.run(body(stream_id))
        return await jobs.fold(stream_id), [message.event() for message in await jobs.messages(stream_id)]


def agent(model: BaseChatModel) -> Runnable[Any, Any]:
    from langchain.agents import create_agent

    return create_agent(model, [add])


def in_a_sequence(model: BaseChatModel) -> Runnable[Any, Any]:
    return RunnableLambda(lambda given: given) | model


def awaited(model: BaseChatModel) -> Runnable[Any, Any]:
    """Return a graph whose node is not a coroutine function, so its model is called from another thread."""
    from langgraph.graph import START, MessagesState, StateGraph

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph.compile()


@pytest.mark.parametrize("shape", [lambda model: model, in_a_sequence, agent, awaited])
@pytest.mark.parametrize("kind", ["openai", "azure", "responses"])
async def test_fault_100_an_answer_without_its_end_is_a_cut_connection(
    redis_url: str, kind: str, shape: Any
) -> None:
    async with ModelServer() as model:
        fold, _ = await ask(
            redis_url, shape(client(model, kind)), script(["kept ", "text"], unended=True), stage_tries=2
        )
        assert fold.error is not None
        assert (fold.error["code"], fold.error["retryable"]) == ("model_connection", True)
        assert (fold.text, len(model.requests)) == ("kept text", 2)


@pytest.mark.parametrize("shape", [lambda model: model, agent])
async def test_fault_100_an_answer_that_is_whole_at_the_next_try_goes_on_without_a_seam(
    redis_url: str, shape: Any
) -> None:
    async with ModelServer() as model:
        asked = script(["a", "b"], unended=True, cut_times=1)
        fold, events = await ask(redis_url, shape(client(model)), asked)
        assert (fold.ended, fold.text, len(model.requests)) == ("done", "ab", 2)
        assert [event for event in events if event.type == "reset"] == []


async def test_fault_100_a_server_that_never_marks_its_end_is_taken_at_its_word(redis_url: str) -> None:
    async with ModelServer() as model:
        fold, _ = await ask(redis_url, client(model, tags=[UNMARKED]), script(["a"], unended=True))
        assert (fold.ended, fold.text) == ("done", "a")
        fold, _ = await ask(redis_url, agent(client(model, tags=[UNMARKED])), script(["b"], unended=True))
        assert (fold.ended, fold.text) == ("done", "b")


@pytest.mark.parametrize("kind", ["openai", "responses"])
async def test_fault_101_arguments_that_were_cut_are_never_run_nor_shown(redis_url: str, kind: str) -> None:
    async with ModelServer() as model:
        asked = script([], tool_calls=[CUT], unended=True)
        fold, events = await ask(redis_url, agent(client(model, kind)), asked, stage_tries=2)
        assert fold.error is not None
        assert (fold.error["code"], len(model.requests), added) == ("model_connection", 2, [])
        assert [event for event in events if event.type == "tool"] == []


async def test_fault_101_the_call_is_run_once_when_it_came_whole(redis_url: str) -> None:
    class Mended(ModelServer):
        def told(self, body: Any) -> dict[str, Any]:
            if any(message["role"] == "tool" for message in body["messages"]):
                return {"chunks": ["It is 101."]}
            first = len(self.requests) == 1
            return {"chunks": [], "tool_calls": [CUT if first else WHOLE], "unended": first}

    async with Mended() as model:
        fold, _ = await ask(redis_url, agent(client(model)), "q")
        assert (fold.ended, fold.text, added) == ("done", "It is 101.", [(1, 100)])


async def test_fault_101_the_limit_on_tokens_that_cuts_arguments_is_told_and_nothing_runs(
    redis_url: str,
) -> None:
    async with ModelServer() as model:
        asked = script(["Well"], tool_calls=[CUT], finish="length")
        for made in (agent(client(model)), client(model), client(model).bind_tools([add])):
            fold, events = await ask(redis_url, made, asked)
            assert (fold.ended, fold.text, added) == ("done", "Well", [])
            assert events[-1].data["finish_reason"] == "length"
            assert [event for event in events if event.type == "tool"] == []


async def test_fault_101_a_call_that_is_no_json_at_the_answers_end_is_the_servers_fault(
    redis_url: str,
) -> None:
    async with ModelServer() as model:
        asked = script([], tool_calls=[CUT])
        fold, _ = await ask(redis_url, agent(client(model)), asked, stage_tries=2)
        assert fold.error is not None
        assert (fold.error["code"], len(model.requests), added) == ("model_error", 2, [])


class Custom(BaseChatModel):
    """A custom model that yields these chunks. LangChain does not know its provider."""

    chunks: list[AIMessageChunk]
    provider: str = "custom"

    @property
    def _llm_type(self) -> str:
        return self.provider

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(stop, **kwargs), "ls_provider": self.provider}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(**kwargs)

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk.model_copy(deep=True))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk.model_copy(deep=True))


def said(text: str, **metadata: Any) -> AIMessageChunk:
    return AIMessageChunk(content=text, response_metadata=metadata)


# Provider, metadata of the last chunk as LangChain's integration yields it, and the expected finish reason.
LAST: Sequence[tuple[str, dict[str, Any], str]] = [
    ("anthropic", {"stop_reason": "end_turn", "stop_sequence": None}, "stop"),
    ("anthropic", {"stop_reason": "max_tokens"}, "length"),
    ("anthropic", {"stop_reason": "refusal"}, "refusal"),
    ("google_genai", {"finish_reason": "STOP"}, "stop"),
    ("google_genai", {"finish_reason": "MAX_TOKENS"}, "length"),
    ("google_genai", {"finish_reason": "SAFETY"}, "content_filter"),
    ("ollama", {"done": True, "done_reason": "stop"}, "stop"),
    ("ollama", {"done": True, "done_reason": "length"}, "length"),
]


@pytest.mark.parametrize(("provider", "last", "finish"), LAST)
async def test_fault_100_each_providers_end_is_known(
    redis_url: str, provider: str, last: dict[str, Any], finish: str
) -> None:
    for shape in (in_a_sequence, agent, lambda model: model):
        whole = Custom(chunks=[said("a"), said("b", **last)], provider=provider)
        fold, events = await ask(redis_url, shape(whole), "q")
        assert (fold.ended, fold.text) == ("done", "ab")
        assert events[-1].data["finish_reason"] == finish
    fold, _ = await ask(
        redis_url, Custom(chunks=[said("a"), said("b")], provider=provider), "q", stage_tries=1
    )
    assert fold.error is not None
    assert fold.error["code"] == "model_connection"


async def test_fault_100_a_model_of_no_known_provider_need_not_mark_its_end(redis_url: str) -> None:
    for shape in (in_a_sequence, agent, lambda model: model):
        fold, _ = await ask(redis_url, shape(Custom(chunks=[said("a"), said("b")])), "q")
        assert (fold.ended, fold.text) == ("done", "ab")


async def test_fault_101_and_yet_its_cut_call_is_not_run(redis_url: str) -> None:
    call = AIMessageChunk(
        content="", tool_call_chunks=[tool_call_chunk(name="add", args='{"a": 1, "b": 2', id="1", index=0)]
    )
    for shape in (agent, lambda model: model):
        fold, _ = await ask(redis_url, shape(Custom(chunks=[call])), "q", stage_tries=1)
        assert fold.error is not None
        assert (fold.error["code"], added) == ("model_connection", [])


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "stop")],
)
async def test_fault_102_an_incomplete_response_says_why(
    redis_url: str, reason: str | None, finish: str
) -> None:
    async with ModelServer() as model:
        for shape in (lambda made: made, agent):
            asked = script(["a"], **({"finish": reason} if reason else {}))
            fold, events = await ask(redis_url, shape(client(model, "responses")), asked)
            assert (fold.ended, fold.text) == ("done", "a")
            assert events[-1].data["finish_reason"] == finish


def test_fault_102_a_reason_that_is_not_known_is_told_as_it_is() -> None:
    assert finish_of({"finish_reason": "Something\nNEW"}) == "something new"
    assert finish_of({"done": True}) == ""
    assert finish_of({"stopReason": "guardrail_intervened"}) == "content_filter"  # Bedrock sends this.


@pytest.mark.parametrize("shape", [lambda model: model, in_a_sequence, agent, awaited])
@pytest.mark.parametrize("usage", ["each", "twice"])
async def test_fault_106_the_last_word_on_usage_counts(redis_url: str, usage: str, shape: Any) -> None:
    async with ModelServer() as model:
        _, events = await ask(redis_url, shape(client(model)), script(["a", "b", "c"], usage=usage))
        counted = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        assert events[-1].data["usage"] == counted


def test_fault_106_parts_of_usage_are_added() -> None:
    """LangChain's integrations for Gemini and Anthropic send usage in parts: the prompt first, then more."""
    whole: dict[str, int] = {}
    for given, spoken in ((10, 2), (0, 3), (2, 4), (0, 1)):
        whole = added_usage(
            whole, {"input_tokens": given, "output_tokens": spoken, "total_tokens": given + spoken}
        )
    assert whole == {"input_tokens": 12, "output_tokens": 10, "total_tokens": 22}


async def test_fault_107_a_server_that_refuses_stream_options_is_asked_without(redis_url: str) -> None:
    async with ModelServer() as model:
        settings: dict[str, Any] = {
            "openai_base_url": f"{model.url}/v1",
            "openai_api_key": "k",
            "model": "scripted",
        }
        for lacks, asked in (("", True), ("stream_options", False), ("finish_reason stream_options", False)):
            async with Jobs(redis_url, model_lacks=lacks, **settings) as jobs:
                stream_id = await jobs.stream([{"role": "user", "content": script(["a"])}], chain="chat")
                await jobs.runner.run(body(stream_id))
                assert (await jobs.fold(stream_id)).text == "a"
            assert ("stream_options" in model.requests[-1]) is asked
        async with Jobs(redis_url, model_lacks="finish_reason", **settings) as jobs:
            stream_id = await jobs.stream(
                [{"role": "user", "content": script(["a"], unended=True)}], chain="chat"
            )
            await jobs.runner.run(body(stream_id))
            assert (await jobs.fold(stream_id)).ended == "done"
