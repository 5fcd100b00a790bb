"""Compare the gateway's output with that of the object itself. ALLOWED lists documented differences."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import datetime
from itertools import permutations
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage

from tests.chains.asked import Seen
from tests.chains.recorder import MAY_PASS, NOTHING, Wanted, text_in

# Every allowed difference: its name, and the words of the project's documentation that allow it. The general
# differences hold for every case; the others only for a case that names them.
ALLOWED = {
    "a tool's words": "docs/chains.md: A tool's error is told as `failed` without its words.",
    "a tool's model": "docs/chains.md: a sub-agent's or a model's words below a tool: no text of the answer.",
    "tried again": "docs/chains.md: The model fails in a way that may pass: the stage is tried again.",
    "excerpts": "docs/protocol.md: `text` is an excerpt (of a document among the sources).",
    "no usage": "docs/protocol.md: `failed` has a code and a message, and no usage.",
    "bounds": "docs/chains.md: What is gathered for it, or for a tool call, is bounded; beyond, "
    "`failed: too_long`.",
    "in a sequence": "docs/chains.md: Within a sequence a graph shows no nodes. It is given no thread, so it "
    "can have no checkpointer of its own.",
}
EXCERPT = 500
MOST_DOCUMENTS = 50
Difference = tuple[str, str, str]  # the subject, the expected value, the observed value


def differences(want: Wanted, see: Seen, allow: tuple[str, ...] = ()) -> tuple[list[Difference], list[str]]:
    """Return the differences, and the names of ALLOWED that were needed."""
    used: list[str] = []
    if unknown := set(allow) - set(ALLOWED):
        raise ValueError(f"not in ALLOWED: {unknown}")
    if want.error != see.error:
        if want.error in MAY_PASS and not see.error:
            return value(want, see), ["tried again"]
        if see.error == "too_long" and "bounds" in allow:
            return [], ["bounds"]
        if see.error and "in a sequence" in allow:
            return [], ["in a sequence"]
        return [("end", want.error or "done", see.error or "done")], used
    found: list[Difference] = []
    if not same_texts(want, see):
        found.append(("text", shown(want.texts), shown(see.texts)))
    elif want.pieces >= 4 and see.pieces < 2:
        found.append(("streaming", f"{want.pieces} pieces", f"{see.pieces} pieces"))
    found += tools(want, see, used)
    found += customs(want, see)
    cut = [text[:EXCERPT] for text in want.sources][:MOST_DOCUMENTS]
    if cut != want.sources:
        used.append("excerpts")
    if sorted(cut) != sorted(see.sources):
        found.append(("sources", shown(cut), shown(see.sources)))
    if squeezed(want.reasoning) != squeezed(see.reasoning):
        found.append(("reasoning", shown(want.reasoning), shown(see.reasoning)))
    if want.error:
        used.append("no usage")
        return found, used
    found += interrupts(want, see)
    if want.usage != see.usage:
        found.append(("usage", shown(want.usage), shown(see.usage)))
    if want.finish != see.finish:
        found.append(("finish reason", want.finish, see.finish))
    found += value(want, see)
    if see.unfinished and see.finish != "interrupted":
        found.append(("stages", "each finished", f"never finished: {', '.join(see.unfinished)}"))
    return found, used


def turn_differences(want: Wanted, see: Seen) -> list[Difference]:
    """Compare a turn in a LangGraph thread: text, interrupts, custom events, the rest of the state."""
    if want.error != see.error:
        return [("end", want.error or "done", f"{see.error} {see.said}".strip() or "done")]
    found: list[Difference] = []
    if not same_texts(want, see):
        found.append(("text", shown(want.texts), shown(see.texts)))
    found += interrupts(want, see)
    found += customs(want, see)
    if want.final is not NOTHING and isinstance(want.final, Mapping):
        state = see.result if isinstance(see.result, Mapping) else {}
        for key, known in want.final.items():
            if (
                key != "messages"
                and known not in (None, "", [], {})
                and not same(known, state.get(key, NOTHING))
            ):
                found.append(("state", f"{key}={shown(known)}", shown(state.get(key, NOTHING))))
    return found


def same_texts(want: Wanted, see: Seen) -> bool:
    """Return whether the same stages and nodes have text, and each has the same messages.

    The text of a node's run may come as one text, with its messages one after the other, or as one text for
    each message, distinguished by other data in its events; but messages may never be mixed. A message that a
    subgraph's node makes without a model may be missing: LangGraph's own mode shows it only on request.
    """
    without = {
        node: [[m for m in run if (node, m) not in want.optional] for run in runs]
        for node, runs in want.texts.items()
    }
    return any(
        set(texts) == set(see.texts) and all(_same_node(runs, see, node) for node, runs in texts.items())
        for texts in (want.texts, {node: runs for node, runs in without.items() if any(runs)})
    )


def _same_node(runs: list[list[str]], see: Seen, node: str) -> bool:
    return any(
        sorted(groups) == sorted("".join(run) for run in runs if run)
        or _made_of(sorted(groups), [m for run in runs for m in run])
        for groups in (see.texts[node], see.by_run.get(node, ()))
    )


def _made_of(groups: list[str], messages: list[str]) -> bool:
    """Return whether each group is a sequence of messages, in any order, and each message is used once."""
    if not groups:
        return not messages
    first, rest = groups[0], groups[1:]
    for n in range(1, min(len(messages), 4) + 1):
        for row in permutations(range(len(messages)), n):
            if "".join(messages[i] for i in row) == first:
                left = [m for i, m in enumerate(messages) if i not in row]
                if _made_of(rest, left):
                    return True
    return False


def tools(want: Wanted, see: Seen, used: list[str]) -> list[Difference]:
    """Compare the tool calls, each with its whole input and output, in any order."""
    left, missing = list(see.tools), []
    for call in want.tools:
        match = next((one for one in left if same_call(call, one)), None)
        if match is None:
            missing.append(call)
        else:
            left.remove(match)
            if call["state"] == "failed" and "output" not in call:
                used.append("a tool's words")
    return (
        [("tool calls", shown(missing) or "no others", shown(left) or "missing")] if missing or left else []
    )


def same_call(want: Mapping[str, Any], see: Mapping[str, Any]) -> bool:
    if want["name"] != see["name"] or want["state"] != see["state"] or not same(want["input"], see["input"]):
        return False
    if want["state"] == "started" or "output" not in want or want["output"] is NOTHING:
        return True
    return same(want["output"], see.get("output", NOTHING))


def customs(want: Wanted, see: Seen) -> list[Difference]:
    """Compare the custom data that the chain has dispatched or written, in any order."""
    left, missing = list(see.customs), []
    for name, data in want.customs:
        match = next(
            (at for at, (other, said) in enumerate(left) if name == other and same(data, said)), None
        )
        if match is None:
            missing.append((name, data))
        else:
            del left[match]
    return (
        [("custom events", shown(missing) or "no others", shown(left) or "missing")]
        if missing or left
        else []
    )


def interrupts(want: Wanted, see: Seen) -> list[Difference]:
    """Compare the questions, in any order. A breakpoint asks nothing, so its description is not compared."""
    left = list(see.interrupts)
    if not want.interrupts and want.finish == see.finish == "interrupted":
        return []
    for one in want.interrupts:
        match = next((at for at, other in enumerate(left) if same(one["value"], other.get("value"))), None)
        if match is None:
            break
        del left[match]
    else:
        if not left:
            return []
    return [
        (
            "interrupts",
            shown([i["value"] for i in want.interrupts]),
            shown([i.get("value") for i in see.interrupts]),
        )
    ]


def value(want: Wanted, see: Seen) -> list[Difference]:
    """Compare the final value, as text or as `result`; for a mapping all members, and no others."""
    final, found = want.final, []
    if final is NOTHING:
        return []
    result = see.result
    for stage, values in list(want.values.items())[:-1]:
        said = see.results.get(stage, [])
        lost = [v for v in values if not any(covered("", v, one, want, see) for one in [*said, NOTHING])]
        if lost:
            found.append((f"value of {stage}", shown(lost), shown(said) or "nowhere"))
    if isinstance(final, Mapping):
        known = result if isinstance(result, Mapping) else {}
        missing = {k: v for k, v in final.items() if not covered(k, v, known.get(k, NOTHING), want, see)}
        if "structured_response" in final and "structured_response" not in missing:
            missing.pop("messages", None)  # that is the answer, and the last message repeats its words
        if missing:
            found.append(("value", shown(missing), "nowhere"))
        if more := sorted(set(known) - set(final)):
            found.append(
                (
                    "value",
                    f"only {', '.join(map(str, final))}",
                    f"also {', '.join(more)}: {shown({k: known[k] for k in more})}",
                )
            )
    elif not covered("", final, result, want, see):
        found.append(("value", shown(final), "nowhere" if result is NOTHING else shown(result)))
    return found


def covered(key: str, final: Any, result: Any, want: Wanted, see: Seen) -> bool:
    """Return whether a value was shown (in `result`, as text, as sources) or came from the client itself."""
    if final is None or (isinstance(final, str | list | tuple | Mapping) and not final):
        return True
    if result is not NOTHING and same(final, result):
        return True
    if isinstance(want.given, Mapping) and key in want.given and same(final, want.given[key]):
        return True
    if key == "messages" and isinstance(final, list | tuple) and isinstance(final[-1], BaseMessage):
        return covered("", final[-1], see.result if isinstance(see.result, str) else NOTHING, want, see)
    if isinstance(final, BaseMessage):
        said = str(final.text)
        if isinstance(final, AIMessage) and not said:
            return True  # its tool calls are compared separately
        return covered("", said, result, want, see)
    if isinstance(final, Document):
        return final.page_content[:EXCERPT] in see.sources
    if isinstance(final, list | tuple):
        return all(covered("", one, NOTHING, want, see) for one in final)
    texts = [t for group in (*see.texts.values(), *see.by_run.values()) for t in group]
    if isinstance(final, str):
        is_message = any(final == message for runs in want.texts.values() for run in runs for message in run)
        if is_message and not same_texts(want, see):
            return True  # the different text is reported already
        return final in (*texts, *map("".join, see.texts.values())) or (
            is_message and any(final in t for t in texts)
        )
    return any(same(final, read) for read in map(_read, texts))


def _read(text: str) -> Any:
    """Parse a text that is JSON, such as a structured answer of a model."""
    try:
        return json.loads(text)
    except ValueError:
        return NOTHING


def same(own: Any, said: Any) -> bool:
    """Return whether JSON represents a value: messages, documents and classes by their fields, other objects
    as text."""
    if said is NOTHING:
        return False
    if own is None or isinstance(own, bool):
        return own is said
    if isinstance(own, str):
        return isinstance(said, str) and (own == said or _same_moment(own, said))
    if isinstance(own, float) and not math.isfinite(own):
        return said is None or str(said).lower().strip("+") in ("nan", "infinity", "-infinity", "inf", "-inf")
    if isinstance(own, int | float) and type(own) in (int, float):
        return (not isinstance(said, bool) and own == said) or said == str(own)
    if isinstance(own, BaseMessage):
        return same_message(own, said)
    if isinstance(own, Mapping):
        return (
            isinstance(said, Mapping)
            and set(map(str, own)) == set(said)
            and all(same(v, said[str(k)]) for k, v in own.items())
        )
    if isinstance(own, list | tuple):
        return isinstance(said, list) and len(own) == len(said) and all(map(same, own, said))
    if isinstance(own, Document):
        return (
            isinstance(said, Mapping)
            and said.get("page_content") == own.page_content
            and same(own.metadata, said.get("metadata", {}))
        )
    if hasattr(own, "model_dump") and not isinstance(own, type):
        fields = {name: getattr(own, name) for name in type(own).model_fields}
        return isinstance(said, Mapping) and all(same(v, said.get(k, NOTHING)) for k, v in fields.items())
    if dataclasses.is_dataclass(own) and not isinstance(own, type):
        fields = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
        return said in (str(own), repr(own)) or (
            isinstance(said, Mapping) and all(same(v, said.get(k, NOTHING)) for k, v in fields.items())
        )
    return _is_text_of(own, said)


def _same_moment(one: str, other: str) -> bool:
    """Return whether both are times, made by two concurrent runs."""
    try:
        return abs((datetime.fromisoformat(one) - datetime.fromisoformat(other)).total_seconds()) < 600
    except (TypeError, ValueError):
        return False


def _read_python(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return NOTHING


def _is_text_of(own: Any, said: Any) -> bool:
    ways = [str(own), repr(own)]
    for name in ("isoformat", "tolist", "item", "hex"):
        if hasattr(own, name):
            try:
                ways.append(getattr(own, name)())
            except (TypeError, ValueError):
                continue
    if isinstance(own, set | frozenset):
        said = _read_python(said) if isinstance(said, str) else said
        return (
            isinstance(said, list | set)
            and len(own) == len(said)
            and all(any(same(x, y) for y in said) for x in own)
        )
    if isinstance(own, bytes) and isinstance(said, str):
        import base64

        ways += [own.decode("utf-8", "replace"), base64.b64encode(own).decode()]
    if isinstance(said, str) and hasattr(own, "isoformat"):
        return said.replace("Z", "+00:00") in ways
    try:
        return said in ways or (
            isinstance(said, int | float) and not isinstance(said, bool) and float(own) == float(said)
        )
    except (TypeError, ValueError):
        return False


def same_message(own: BaseMessage, said: Any) -> bool:
    if not isinstance(said, Mapping):
        return said == own.text
    content = said.get("content")
    text = (
        content
        if isinstance(content, str)
        else "".join(b.get("text", "") for b in content or () if isinstance(b, Mapping))
    )
    calls = [(c["name"], c["args"]) for c in getattr(own, "tool_calls", None) or ()]
    return text == own.text and calls == [(c["name"], c["args"]) for c in said.get("tool_calls") or ()]


def squeezed(text: str) -> str:
    return " ".join(text.split())


def shown(what: Any, most: int = 160) -> str:
    """Return a value in short form, for the report."""
    if what is NOTHING:
        return "nowhere"
    if what in ({}, []):
        return ""
    if isinstance(what, Mapping) and what and all(isinstance(v, list) for v in what.values()):
        text = "; ".join(f"{k}: {shown(v, most)}" for k, v in what.items())
    else:
        try:
            text = json.dumps(what, ensure_ascii=False, default=lambda o: text_in(o) or repr(o))
        except (TypeError, ValueError):
            text = repr(what)
    return text if len(text) <= most else text[: most - 1] + "…"
