"""Normalize what may differ between two equal runs: ids, times, versions, and the split of a text into
chunks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

ID, TIME = "<id>", "<time>"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IDS = re.compile(rf"(?:lc_run--|run-+|msg[_-]|lc-)?(?:{_UUID}|\b[0-9a-f]{{32}}\b)(?:-\d+\b)?")
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?")
_TAGS = re.compile(r"\bcase-[0-9a-f]{12}\b")
_KNOWN = re.compile(r"(?:m-|call_|sent-|given-|case-)")  # ids chosen by a case or a graph
_ID_KEYS = {
    "assistant_id", "checkpoint_id", "event_id", "id", "interrupt_id", "message_id", "parent_run_id", "run_id",
    "task_id", "thread_id", "trigger_call_id",
}  # fmt: skip
_NS_KEYS = {"checkpoint_ns", "langgraph_checkpoint_ns", "ns"}
_EMPTY = ({}, [], None)
# Members of a message that are ignored when empty, and members that only the case `whole_messages` compares.
_OF_MESSAGES = (
    "additional_kwargs",
    "name",
    "tool_calls",
    "invalid_tool_calls",
    "usage_metadata",
    "tool_call_chunks",
    "artifact",
)
_ELSEWHERE = ("response_metadata", "usage_metadata", "chunk_position", "example", "status")


def normal(value: Any, key: str = "") -> Any:
    """Return a record in the form for the comparison."""
    if isinstance(value, Mapping):
        return {_text(str(k)): normal(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [normal(one, key) for one in value]
    if isinstance(value, str):
        if key in _ID_KEYS and value and not _KNOWN.match(value):
            return ID
        if key in _NS_KEYS and value:
            return namespace(value)
        return _text(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, bool | int | float) else _text(str(value))


def _text(value: str) -> str:
    return _TAGS.sub("<case>", _TIMES.sub(TIME, _IDS.sub(ID, value)))


def namespace(value: str) -> str:
    """Normalize a namespace `inner:<id>|deeper:<id>`."""
    return "|".join(
        f"{name}:{ID}" if found else name
        for name, found, _ in (part.partition(":") for part in value.split("|"))
    )


def message(one: Any) -> Any:
    """Return a message without its meaningless members."""
    if not isinstance(one, Mapping) or "content" not in one:
        return one
    kind = str(one.get("type") or one.get("role") or "").removesuffix("MessageChunk").lower()
    kept = {
        k: v
        for k, v in one.items()
        if k not in _ELSEWHERE and not (k in _OF_MESSAGES and v in _EMPTY) and k not in ("type", "id", "role")
    }
    if one.get("additional_kwargs"):
        kept.pop("additional_kwargs")
    if calls := kept.get("tool_calls"):
        kept["tool_calls"] = [{k: c.get(k) for k in ("name", "args", "id")} for c in calls]
    kept["content"] = text_of(one["content"])
    if kind == "ai":
        kept.pop("name", None)  # only the case `message_names` compares it
    chosen = {"id": one["id"]} if _KNOWN.match(str(one.get("id"))) else {"has_id": bool(one.get("id"))}
    return {"type": {"human": "human", "user": "human", "assistant": "ai"}.get(kind, kind)} | chosen | kept


def state(values: Any) -> Any:
    """Return a state's values. Its messages, at any depth, are without their meaningless members."""
    if isinstance(values, Mapping):
        if "content" in values and ("type" in values or "role" in values):
            return message(values)
        return {k: state(v) for k, v in values.items() if not (k == "response_schema" and v is None)}
    return [state(one) for one in values] if isinstance(values, list) else values


_TEXTS = ("text", "tool_call", "tool_call_chunk")  # tool calls are also in `tool_calls`


def text_of(content: Any) -> Any:
    """Return the content as plain text, for every notation."""
    if isinstance(content, list) and all(isinstance(b, str) or b.get("type") in _TEXTS for b in content):
        return "".join(b if isinstance(b, str) else b.get("text", "") for b in content)
    return content


def messages(pairs: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the messages of mode `messages-tuple`, each complete: chunks are joined by the message's id."""
    found: dict[str, dict[str, Any]] = {}
    for chunk, meta in pairs:
        if not isinstance(chunk, Mapping):
            found[str(len(found))] = {"odd": chunk}
            continue
        one = found.setdefault(
            str(chunk.get("id")),
            {
                "type": message(chunk)["type"],
                "content": "",
                "calls": {},
                "pieces": 0,
                "node": (meta or {}).get("langgraph_node"),
            },
        )
        if chunk.get("id") and _KNOWN.match(chunk["id"]):
            one["id"] = chunk["id"]
        text = text_of(chunk.get("content") or "")
        one["content"] += text if isinstance(text, str) else str(text)
        one["pieces"] += bool(text)
        for call in chunk.get("tool_call_chunks") or chunk.get("tool_calls") or ():
            known = one["calls"].setdefault(
                call.get("index") if "index" in call else call.get("id"), {"name": "", "args": "", "id": ""}
            )
            args = call.get("args") or ""
            known["args"] = args if isinstance(args, Mapping) else f"{known['args']}{args}"
            known["name"] += call.get("name") or ""
            known["id"] = call.get("id") or known["id"]
        for name in ("tool_call_id", "name"):
            if chunk.get(name) and one["type"] == "tool":
                one[name] = chunk[name]
    for one in found.values():
        pieces = one.pop("pieces")
        if one["type"] == "ai" and " " in str(one["content"]).strip():
            one["streams"] = pieces > 1
        calls = one.pop("calls")
        if calls:
            one["calls"] = [{**c, "args": _args(c["args"])} for c in calls.values()]
    return list(found.values())


def _args(text: Any) -> Any:
    import json

    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def run(parts: Iterable[tuple[str, Any]], *, whole: bool = False, first: bool = False) -> dict[str, Any]:
    """Return the content of a run's parts, by mode. For `values` the last part, or also the first, or all of
    them.

    `end` is ignored: the gateway sends it and LangGraph does not, as docs/formats.md says.
    """
    said: dict[str, Any] = {}
    tuples: dict[str, list] = {}
    for event, data in parts:
        name = namespace(event)
        if name == "end":
            continue
        if name == "metadata":
            said["metadata"] = sorted(data)
        elif name.partition("|")[0] == "messages":
            tuples.setdefault(name, []).append(data)
        elif name.startswith("messages/"):
            said.setdefault(name, []).append(data)
        else:
            said.setdefault(name, []).append(state(data))
    for name, pairs in tuples.items():
        said[name] = messages(pairs)
    for name in [n for n in said if n.partition("|")[0] == "values"]:
        if not whole:
            every = said.pop(name)
            said |= {f"{name} first": every[0]} if first else {}
            said[f"{name} last"] = every[-1]
    if "messages/partial" in said:
        said |= _partials(said)
    return said


def _partials(said: dict[str, Any]) -> dict[str, Any]:
    """Return for mode `messages` each message's last partial, and whether each partial is the beginning of
    the next."""
    last: dict[str, Any] = {}
    grows, count = True, {}
    for (one,) in (p for p in said["messages/partial"] if len(p) == 1):
        known = last.get(one.get("id"))
        if known is not None:
            grows = grows and str(text_of(one["content"])).startswith(str(text_of(known["content"])))
        last[one.get("id")] = one
        count[one.get("id")] = count.get(one.get("id"), 0) + 1
    complete = [state(m) for p in said.get("messages/complete", ()) for m in p]
    told = {i: m for p in said.get("messages/metadata", ()) for i, m in p.items()}
    return {
        "messages/partial": [message(m) for m in last.values()],
        "messages/complete": complete,
        "messages/metadata": [(m.get("metadata") or {}).get("langgraph_node") for m in told.values()],
        "partials grow": grows,
        "partials": any(n > 1 for n in count.values()),
    }


def snapshot(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a thread's state in normal form."""
    checkpoint = found.get("checkpoint") or {}
    return {
        "values": state(found.get("values")),
        "next": found.get("next"),
        "tasks": [
            {
                "name": t.get("name"),
                "error": t.get("error"),
                "interrupts": [state(i) for i in t.get("interrupts") or ()],
            }
            for t in found.get("tasks") or ()
        ],
        "has checkpoint": bool(checkpoint.get("checkpoint_id")),
        "has time": bool(found.get("created_at")),
    }


_OWN = ("case", "who", "graph_id", "label", "tag")


def thread(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return those members of a thread that clients use."""
    metadata = found.get("metadata") or {}
    return {
        "status": found.get("status"),
        "values": state(found.get("values")),
        "metadata": {k: metadata[k] for k in _OWN if k in metadata},
        "interrupts": [state(one) for many in (found.get("interrupts") or {}).values() for one in many],
        "has times": bool(found.get("created_at") and found.get("updated_at")),
    }


def one_run(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's document in normal form."""
    metadata = found.get("metadata") or {}
    return {
        "status": found.get("status"),
        "metadata": {k: metadata[k] for k in ("case", "who", "label") if k in metadata},
        "has ids": all(bool(found.get(k)) for k in ("run_id", "thread_id", "assistant_id")),
        "has times": bool(found.get("created_at") and found.get("updated_at")),
    }


def lineage(history: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each message of the newest state the last message of the parent of its first state.
    `regenerate` uses this parent."""
    by_id = {(s.get("checkpoint") or {}).get("checkpoint_id"): s for s in history}
    told = []
    for one in (history[0].get("values") or {}).get("messages", ()) if history else ():
        first = [
            s
            for s in reversed(history)
            if any(m.get("id") == one.get("id") for m in (s.get("values") or {}).get("messages", ()))
        ]
        parent = by_id.get(((first[0].get("parent_checkpoint") or {}) if first else {}).get("checkpoint_id"))
        before = (parent or {}).get("values") or {}
        ends = [text_of(m.get("content")) for m in before.get("messages", ())][-1:]
        told.append(
            {
                "type": message(one)["type"],
                "content": text_of(one.get("content")),
                "parent ends with": ends[0] if ends else None,
            }
        )
    return told


_SHOWN = ("values", "messages", "tools", "lifecycle", "input.requested")
_LIFE = ("event", "graph_name")


def protocol(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the events of the agent streaming protocol, by channel and namespace; messages are joined and in
    order."""
    said: dict[str, Any] = {}
    open_: dict[tuple, dict] = {}
    seqs, ids = [], []
    for event in events:
        method, params = event.get("method"), event.get("params") or {}
        seqs.append(event.get("seq"))
        ids.append(event.get("event_id"))
        if method not in _SHOWN:
            # LangGraph's own server omits `updates`, `custom` and `tasks` of a plain graph; sending them is
            # allowed
            continue
        where = [namespace(part) for part in params.get("namespace") or ()]
        name = "|".join([str(method), *where])
        data = params.get("data")
        if method == "messages" and isinstance(data, Mapping):
            _block(said.setdefault(name, []), open_, name, data, params)
        elif method == "lifecycle":
            said.setdefault(name, []).append({k: data[k] for k in _LIFE if k in data})
        elif method == "tools":
            said.setdefault(name, []).append(_tool(data))
        elif method == "input.requested":
            said.setdefault(name, []).append(
                {"payload": data.get("payload"), "has id": bool(data.get("interrupt_id"))}
            )
        else:
            said.setdefault(name, []).append(state(data))
    for name in [n for n in said if n.partition("|")[0] == "values"]:
        said[f"{name} last"] = said.pop(name)[-1]
    said["seq grows"] = all(isinstance(s, int) for s in seqs) and seqs == sorted(set(seqs))
    said["event ids"] = all(ids) and len(set(ids)) == len(ids)
    return said


def _tool(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    told = {
        k: v
        for k, v in data.items()
        if k in ("event", "tool_name", "tool_call_id", "input", "error", "message")
    }
    if "output" in data:
        output = data["output"]
        told["output"] = (
            message(output)["content"] if isinstance(output, Mapping) and "content" in output else output
        )
    return told


def _block(said: list, open_: dict, name: str, data: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    kind = data.get("event")
    if kind == "message-start":
        made = {
            "role": data.get("role"),
            "has_id": bool(data.get("id")),
            "text": "",
            "blocks": [],
            "pieces": 0,
        }
        if data.get("id") and _KNOWN.match(str(data["id"])):
            made["id"] = data["id"]
        open_[name, params.get("node")] = made
        said.append(made)
        return
    one = open_.get((name, params.get("node")))
    if one is None:
        said.append({"without a start": kind})
        return
    if kind == "content-block-start":
        one["blocks"].append((data.get("content") or {}).get("type"))
        one["text"] += (data.get("content") or {}).get("text") or ""
    elif kind == "content-block-delta":
        delta = data.get("delta") or {}
        text = delta.get("text") or (data.get("content") or {}).get("text") or ""
        one["text"] += text
        one["pieces"] += bool(text)
    elif kind == "content-block-finish":
        content = data.get("content") or {}
        if content.get("type") == "tool_call":
            one.setdefault("calls", []).append({k: content.get(k) for k in ("name", "args", "id")})
        elif content.get("text"):
            one["finished text"] = one.get("finished text", "") + content["text"]
    elif kind == "message-finish":
        one["finished"] = True
        pieces = one.pop("pieces", 0)
        if " " in one["text"].strip():
            one["streams"] = pieces > 1
    elif kind == "error":
        one["error"] = data.get("message")
