"""A scripted model: OpenAI's chat completions (and Azure's), Responses and embeddings, Anthropic's messages.

`tests.chains.mock_server` serves it. The directive `#name` selects the answer: SCRIPTS[name], from
scripts.py. The directive is in the system prompt, else in the newest user message that has one. The first
part of the path, `/<run>/v1/...`, separates the counters of failing scripts: a run never sees the counts of
another run.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

PACE = 0.002
SCRIPTS: dict[str, Any] = {}
TIMES: dict[tuple[str, str], int] = {}


@dataclass
class Step:
    """The model's action for one call."""

    say: str = ""
    reason: str = ""
    calls: list = field(default_factory=list)  # [(tool, arguments)]
    refusal: str = ""
    finish: str = ""  # length, content_filter, refusal
    status: int = 0  # an HTTP error at once
    cut: int = 0  # cut the connection after this number of words
    pace: float = PACE
    body: dict | None = None  # body of the HTTP error


@dataclass
class Call:
    """The request to the model."""

    messages: list
    tools: list
    request: dict
    run: str
    script: str  # the message with the directive, starting at the directive

    @property
    def user(self) -> str:
        for m in reversed(self.messages):
            if m["role"] == "user":
                return text(m["content"])
        return ""

    @property
    def turn(self) -> int:
        """Return the number of assistant messages after the newest user message."""
        n = 0
        for m in reversed(self.messages):
            if m["role"] == "user":
                break
            n += m["role"] == "assistant"
        return n

    @property
    def last_tool(self) -> str:
        for m in reversed(self.messages):
            if m["role"] == "tool":
                return text(m["content"])
        return ""

    @property
    def called(self) -> list[str]:
        """Return the tools that were called before, in order."""
        found = []
        for m in self.messages:
            if m["role"] == "assistant":
                found += [call["function"]["name"] for call in m.get("tool_calls") or ()]
        return found

    def times(self) -> int:
        """Return how many times this was requested in this run, including this time."""
        key = (self.run, self.user)
        TIMES[key] = TIMES.get(key, 0) + 1
        return TIMES[key]


def script(f):
    """Mark the function of a directive: it takes a Call and returns a Step."""
    SCRIPTS[f.__name__] = f
    return f


def text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(x if isinstance(x, str) else (x.get("text") or "") for x in content)


def words(s: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", s)


def choose(messages: list, tools: list, request: dict, run: str) -> Step:
    system = " ".join(text(m["content"]) for m in messages if m["role"] in ("system", "developer"))
    users = [text(m["content"]) for m in reversed(messages) if m["role"] == "user"]
    for said in [system, *users]:
        for found in re.finditer(r"#(\w+)", said):
            if found[1] in SCRIPTS:
                return SCRIPTS[found[1]](Call(messages, tools, request, run, said[found.end() :].strip()))
    return SCRIPTS["echo"](Call(messages, tools, request, run, ""))


def usage_of(messages: list, step: Step) -> tuple[int, int]:
    given = sum(len(text(m.get("content")).split()) for m in messages) + 1
    said = len(words(step.say)) + 3 * len(step.calls) + len(words(step.reason)) + len(words(step.refusal))
    return given, said


def named(*what: Any) -> str:
    return hashlib.sha1(json.dumps(what, default=str).encode()).hexdigest()[:12]


class Cut(Exception):
    pass
