"""Chat models alone: their providers, tools for the client, reasoning, refusals, limits."""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser

from tests.chains.cases import azure, case, claude, llm, responses

REASONING = {"effort": "low", "summary": "auto"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def get_weather(city: str) -> str:
    """Weather."""
    return "sunny"


@case("azure_model", "models", user="#story x")
def azure_model(settings):
    return azure()


@case("azure_filtered", "models", user="#filtered x")
def azure_filtered(settings):
    return azure()


@case("azure_prompt_blocked", "failures", user="#prompt_blocked x")
def azure_prompt_blocked(settings):
    return azure()


@case(
    "image",
    "models",
    messages=[{"role": "user", "content": [{"type": "text", "text": "#picture what is it?"}, IMAGE]}],
)
def image(settings):
    return llm()


@case("reasoning", "models", user="#reason x")
def reasoning(settings):
    return responses(reasoning=REASONING, output_version="v1")


@case("reasoning_parsed", "models", user="#reason x")
def reasoning_parsed(settings):
    return responses(reasoning=REASONING) | StrOutputParser()


@case("thinking", "models", user="#reason x", needs="langchain_anthropic")
def thinking(settings):
    return claude(thinking={"type": "enabled", "budget_tokens": 2000})


@case("tools_for_client", "models", user="#weather now", note="two calls at once, which nobody here runs")
def tools_for_client(settings):
    return llm().bind_tools([get_weather])


@case("tools_for_client_claude", "models", user="#oneweather x", needs="langchain_anthropic")
def tools_for_client_claude(settings):
    return claude().bind_tools([get_weather])


CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
ANSWERED = [
    {"role": "user", "content": "#roles please"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]  # fmt: skip


@case(
    "client_answers_tool",
    "client tools",
    messages=ANSWERED,
    note="the client sends back what its tool has answered",
)
def client_answers_tool(settings):
    return llm().bind_tools([get_weather])


@case("cut_short", "models", user="#cut_short x", note="the limit on tokens is reached")
def cut_short(settings):
    return llm()


@case("cut_short_claude", "finish reason", user="#cut_short x", needs="langchain_anthropic")
def cut_short_claude(settings):
    return claude()


@case("refusal", "refusal", user="#refuse x")
def refusal(settings):
    return llm()


@case("refusal_responses", "refusal", user="#refuse x")
def refusal_responses(settings):
    return responses(output_version="v1")


@case("azure_tools", "models", user="#weather x")
def azure_tools(settings):
    def get_weather(city: str) -> str:
        """Weather."""
        return "sunny"

    return azure().bind_tools([get_weather])


@case("blocks_v1", "models", user="#story x")
def blocks_v1(settings):
    return llm(output_version="v1")


FILES = [
    {"type": "text", "text": "#picture what is it?"},
    {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"},
    {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf", "filename": "a.pdf"},
]  # fmt: skip


@case("image_and_file", "models", messages=[{"role": "user", "content": FILES}])
def image_and_file(settings):
    return llm()
