"""A model that says what the last question tells it to, word by word: the same on every server.

The directives of a question, each run in its turn (a turn is one call of the model since the question):

    say a b c             these words
    slow 40 0.05          forty words, a pause of so many seconds before each
    call add {"a": 1}     a tool call; several are joined by `and`
    break                 raises
    echo                  how many messages it was given, and the text of the last

Turns are joined by ` then `. A question without a directive is answered by `You said: <question>`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

_CALL = re.compile(r"call (\w+) (\{.*?\})(?= and call | then |$)")


class Broken(Exception):
    """What the model raises when it is told to break."""


class Scripted(BaseChatModel):
    """The model."""

    tools: list = []

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Scripted:
        return self.model_copy(update={"tools": list(tools)})

    def _turn(self, messages: list[BaseMessage]) -> str:
        asked = max((i for i, m in enumerate(messages) if m.type == "human"), default=-1)
        if asked < 0:
            return "say Nobody asked."
        text = messages[asked].text
        turns = re.split(r" then ", text)
        done = sum(m.type == "ai" for m in messages[asked + 1 :])
        turn = turns[min(done, len(turns) - 1)]
        return turn.replace("$last", messages[-1].text).replace("$count", str(len(messages)))

    def _parts(self, messages: list[BaseMessage]) -> tuple[list[str], float, list[dict]]:
        turn = self._turn(messages)
        if turn.startswith("break"):
            raise Broken("the model broke")
        if turn.startswith("say "):
            return re.findall(r"\S+\s*", turn[4:]), 0, []
        if turn.startswith("slow "):
            _, count, gap = turn.split()[:3]
            return [f"w{i} " for i in range(int(count))], float(gap), []
        if turn.startswith("call "):
            seed = hashlib.sha256("".join(m.text for m in messages).encode()).hexdigest()[:8]
            found = _CALL.findall(turn)
            calls = [
                {"name": name, "args": args, "id": f"call_{seed}_{i}", "index": i, "type": "tool_call_chunk"}
                for i, (name, args) in enumerate(found)
            ]
            return [], 0, calls
        if turn.startswith("echo"):
            return [f"{len(messages)} ", "messages; ", f"last: {messages[-1].text}"], 0, []
        return re.findall(r"\S+\s*", f"You said: {turn}"), 0, []

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        words, _, calls = self._parts(messages)
        full = [{"name": c["name"], "args": json.loads(c["args"]), "id": c["id"]} for c in calls]
        usage = _usage(messages, words)
        told = AIMessage(content="".join(words), tool_calls=full, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=told)])

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        words, gap, calls = self._parts(messages)
        for word in words:
            if gap:
                await asyncio.sleep(gap)
            yield await _chunk(run_manager, AIMessageChunk(content=word))
        for call in calls:
            half = len(call["args"]) // 2
            first, rest = call | {"args": call["args"][:half]}, call | {"args": call["args"][half:]}
            yield await _chunk(run_manager, AIMessageChunk(content="", tool_call_chunks=[first]))
            yield await _chunk(
                run_manager, AIMessageChunk(content="", tool_call_chunks=[rest | {"name": None, "id": None}])
            )
        end = AIMessageChunk(content="", usage_metadata=_usage(messages, words))
        end.response_metadata = {"finish_reason": "tool_calls" if calls else "stop"}
        yield await _chunk(run_manager, end)


def _usage(messages: list[BaseMessage], words: list[str]) -> dict[str, int]:
    given, said = len(messages), max(1, len(words))
    return {"input_tokens": given, "output_tokens": said, "total_tokens": given + said}


async def _chunk(run_manager: Any, message: AIMessageChunk) -> ChatGenerationChunk:
    chunk = ChatGenerationChunk(message=message)
    if run_manager:
        await run_manager.on_llm_new_token(message.text, chunk=chunk)
    return chunk
