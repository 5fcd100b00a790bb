"""Makes the events of the agent streaming protocol from a run's log.

Every protocol event has a number and an id, even if the reader did not ask for it. So both are the same in
every connection. The number consists of the number of the thread's turn, the offset of the event in the log,
and the place of the protocol event among all that are made of this event of the log. So the numbers grow
within a run, and from one run of the thread to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from gateway.formats.base.projection import Frame, Projection
from gateway.formats.langgraph import protocol_messages, protocol_values
from gateway.formats.langgraph.projection import CANCELLED, Run
from gateway.formats.langgraph.protocol_filter import EventFilter, Namespace, first_of_turn
from gateway.formats.langgraph.protocol_messages import Message
from gateway.formats.langgraph.protocol_tree import Tree
from gateway.protocol import Cursor, Event, EventType, steps
from gateway.protocol.fold import StageText
from gateway.protocol.sse import dumps

ROOT: Namespace = ()
_WRITTEN, _RESULT, _REASONING = "custom", "result", "reasoning"  # names of custom events
_AGAIN = "said again in another attempt"
_OVER = "the run is over"
# At most this many protocol events are made of one event of the log; the log's last event has no such limit.
# An offset counts bytes, and the shortest frame of the log has more bytes than this, so numbers always grow.
MOST_OF_EVENT = 40


class ThreadRun(Projection):
    """Makes one run's events, with frames for the events that the reader wants.

    `given` is the state at the run's start.
    """

    def __init__(
        self, run_id: str, thread: str, given: Mapping[str, Any], turn: int, at_ms: int, wanted: EventFilter
    ) -> None:
        super().__init__()
        self._run_id = run_id
        self._base = first_of_turn(turn)
        self._at_ms = at_ms
        self._wanted = wanted
        self._plain = Run(run_id, thread, given)  # has the state of a chain without graph steps
        self._chain = ""
        self._event = Event(EventType.START, {})
        self._offset = self._count = 0
        self._made: list[bytes] = []
        self._open: dict[Any, Message] = {}  # key: the graph's number of the message, or the stage's run
        self._book: steps.Book | None = None  # set if the log contains a graph's steps
        self._called_in: dict[str, Namespace] = {}  # by tool call's id: the namespace of the message
        self.tree = Tree()

    def take(self, event_id: str, event: Event) -> list[bytes]:
        """Return the frames of the next event of the log."""
        self._made, self._count, self._event = [], 0, event
        self._offset = Cursor.parse(event_id).offset
        if self._book is None:
            self._plain.feed(event_id, event)
        self.feed(event_id, event)
        if self._book is not None and event.type is EventType.NESTED:
            self._piece(event.data)
        elif self._book is not None and event.type is EventType.TOOL and "within" in event.data:
            self.tool(event.data)
        return self._made

    def start(self, data: Any) -> Iterable[Frame]:
        """Send that the run is running."""
        self._chain = self.tree.graph_name = data["chain"]
        self._life("running")
        return ()

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Send a piece of the message of the graph or, without a graph, of the stage."""
        if self._book is not None:
            self._piece(self._event.data)
            return ()
        self._all(message := self._message(stage), message.text(delta))
        return ()

    def stage(self, data: Any) -> Iterable[Frame]:
        """Send the state when the first stage starts; finish a stage's messages when the stage ends."""
        named = data["name"], data["run"], data.get("parent", "")
        if data.get("graph") and self._book is None:
            self._book = steps.Book()
        if self._book is not None:
            return ()  # the `graph` events have the graph's state and messages
        if data["state"] == "finished":
            for key in [key for key in self._open if key[:3] == named]:
                self._finish(key)
        elif not data.get("parent") and not data.get("index") and data["run"] == 1:
            self._values()
        return ()

    def graph(self, data: Any) -> Iterable[Frame]:
        """Send a step of the graph, or the start or end of a message of the graph."""
        assert self._book is not None
        step = self._book.feed(data)
        if step is None:
            return ()
        namespace = _namespace(step.ns)
        self._enter(namespace)
        if step.kind == steps.VALUES:
            self._tell("values", namespace, lambda: protocol_values.state(step.data))
        elif step.kind == steps.UPDATES:
            self._updates(namespace, step.data)
        elif step.about["state"] == "started":
            self._begin(step.number)
        else:
            for call in step.data.get("tool_calls") or ():
                self._called_in[call.get("id")] = namespace
            if step.about.get("shown"):
                self._whole(step.number, step.data)
        return ()

    def tool(self, data: Any) -> Iterable[Frame]:
        """Send the start or the end of a tool call."""
        call_id, name = data["call_id"], data["name"]
        here = self._called_in.get(call_id, ROOT)
        if data["state"] == "started":
            said = data["input"]
            self._tell("tools", here, _tool("started", call_id, tool_name=name, input=said))
        elif data["state"] == "finished":
            said = data["output"]
            whole = {"type": "tool", "name": name, "tool_call_id": call_id, "status": "success"}
            whole |= {"id": f"tool-{call_id}", "content": _spelled(said), "artifact": None}
            self._tell("tools", here, _tool("finished", call_id, output=whole))
            for part in protocol_messages.of_tool(call_id, whole["id"], whole["content"]):
                self._tell("messages", (*here, f"tools:{call_id}"), part)
        else:
            why = _spelled(data["output"])
            self._tell("tools", here, _tool("error", call_id, message=why))
        return ()

    def custom(self, data: Any) -> Iterable[Frame]:
        """Send a `custom` event of the chain, with its name, except what the graph's stream writer wrote.

        Reasoning is sent as part of a message. A stage's JSON result is not sent.
        """
        name, told = data["name"], data["data"]
        here = _namespace(data.get("ns", ""))
        self._enter(here)
        if name == _REASONING and self._book is not None:
            self._piece({"number": data.get("number"), _REASONING: told.get("delta")})
        elif name == _REASONING:
            stage = self.stage_of(data)
            if stage is not None and isinstance(told, Mapping) and isinstance(told.get("delta"), str):
                self._all(message := self._message(stage), message.text(told["delta"], _REASONING))
        elif name == _WRITTEN:
            self._tell("custom", here, {"payload": told})
        elif name != _RESULT:
            self._tell("custom", here, {"name": name, "payload": told}, name=name)
        return ()

    def citations(self, data: Any) -> Iterable[Frame]:
        """Send a model's citations as a custom event named `citations`."""
        told = {"name": "citations", "payload": data["citations"]}
        self._tell("custom", ROOT, told, name="citations")
        return ()

    def reset(self, data: Any) -> Iterable[Frame]:
        """End open messages with an error, because the stage's output is void, and send the state again."""
        self._break_off(_AGAIN)
        if self._book is None:
            self._values()
            return ()
        for namespace, told in self.tree.close():  # the graph's next event is its first state again
            self._tell("lifecycle", namespace, told)
        self.tree.forget()
        self._book.forget()
        self._called_in.clear()
        return ()

    def done(self, data: Any) -> Iterable[Frame]:
        """Send the run's end.

        End the open messages, then send the final state if the chain has no graph steps. Then send the
        graph's questions, and that the run is interrupted (by questions) or completed.
        """
        for key in list(self._open):
            self._finish(key)
        if self._book is None:
            self._values()
        asked = data.get("interrupts") or ()
        for one in asked:
            self._ask(one)
        self._end("interrupted" if asked else "completed")
        return ()

    def failed(self, data: Any) -> Iterable[Frame]:
        """Send that the run failed, with the error's message."""
        self._break_off(_OVER)
        self._end("failed", error=data["message"])
        return ()

    def cancelled(self) -> Iterable[Frame]:
        """Send that the run was interrupted, as LangGraph's server does for a cancelled run."""
        self._break_off(CANCELLED["message"])
        self._end("interrupted")
        return ()

    def _enter(self, namespace: Namespace) -> None:
        for here, told in self.tree.enter(namespace):
            self._tell("lifecycle", here, told)

    def _updates(self, namespace: Namespace, data: Any) -> None:
        """Send one event for each node's update. If the node is a subgraph, this subgraph has ended."""
        for node, update in data.items() if isinstance(data, Mapping) else ():
            for here, told in self.tree.leave(namespace, node):
                self._tell("lifecycle", here, told)
            value = update if isinstance(update, Mapping) else {"value": update}
            made = partial(protocol_values.state, value)
            self._tell("updates", namespace, made, node=node)

    def _begin(self, number: int, role: str = "ai") -> Message:
        """Send the start of a message of the graph."""
        assert self._book is not None
        said = self._book.messages[number]
        node, namespace = said.about.get("node", ""), _namespace(said.about.get("ns", ""))
        made = self._open[number] = Message(said.id, namespace, node)
        self._tell("messages", namespace, made.start(role), node=node)
        return made

    def _piece(self, data: Mapping[str, Any]) -> None:
        """Send a piece of a message's text or reasoning; nothing if the message is not open."""
        message = self._open.get(data.get("number"))
        kind = _REASONING if isinstance(data.get(_REASONING), str) else "text"
        delta = data.get(_REASONING) or data.get("delta_content") or data.get("delta")
        if message is not None and isinstance(delta, str):
            self._all(message, message.text(delta, kind))

    def _whole(self, number: int, whole: Mapping[str, Any]) -> None:
        """Send the end of a message of the graph; the whole message if no piece of it was sent before."""
        message = self._open.get(number)
        if message is None:
            role = protocol_messages.role_of(whole)
            if role in ("", "tool"):
                return  # a tool's answer is sent by `tool`
            message = self._begin(number, role)
        if not message.has_text and (text := protocol_messages.text_of(whole)):
            self._all(message, message.text(text))
        del self._open[number]
        self._all(message, message.finish(whole))

    def _all(self, message: Message, parts: Iterable[Mapping[str, Any]]) -> None:
        for part in parts:
            self._tell("messages", message.namespace, part, node=message.node)

    def _message(self, stage: StageText) -> Message:
        """Return the stage's open message. If there is none, send the start of a new one."""
        key = stage.name, stage.run, stage.parent, stage.started_id
        if key not in self._open:
            made = self._open[key] = Message(f"{self._run_id}:{self.cursor}", ROOT, stage.name)
            self._tell("messages", ROOT, made.start(), node=stage.name)
        return self._open[key]

    def _finish(self, key: Any) -> None:
        message = self._open.pop(key)
        self._all(message, message.finish())

    def _break_off(self, why: str) -> None:
        for message in self._open.values():
            self._tell("messages", message.namespace, message.broken(why), node=message.node)
        self._open.clear()

    def _values(self) -> None:
        self._tell("values", ROOT, lambda: protocol_values.state(self._plain.values()))

    def _ask(self, one: Mapping[str, Any]) -> None:
        told = {"interrupt_id": one["id"], "payload": one.get("value")}
        self._tell("input", ROOT, told, event_id=f"input||{one['id']}")

    def _end(self, how: str, **more: Any) -> None:
        for namespace, data in self.tree.close(how):
            self._tell("lifecycle", namespace, data)
        self._life(how, **more)

    def _life(self, how: str, **more: Any) -> None:
        self.tree.status = how
        told = {"event": how, "graph_name": self._chain, **more}
        self._tell("lifecycle", ROOT, told, event_id=f"lc||{how}")

    def _tell(
        self,
        channel: str,
        namespace: Namespace,
        data: Any,
        *,
        node: str = "",
        name: str = "",
        event_id: str = "",
    ) -> None:
        """Add one protocol event, and make its frame if the reader wants the event.

        If `data` is a function, it is called only if the reader wants the event.
        """
        place, number = self._count, self._base + self._offset + self._count + 1
        if place >= MOST_OF_EVENT and self.fold.ended is None:
            return
        self._count += 1
        if number <= self._wanted.since or not self._wanted.wants(channel, namespace, name):
            return
        # An id that begins with `synth:` has LangGraph's form: LangGraph's clients read the run's id from it.
        own = f"synth:{self._run_id}:{event_id}" if event_id else f"{self._run_id}.{self.cursor}.{place}"
        method = "input.requested" if channel == "input" else channel
        params = {
            "namespace": list(namespace),
            "timestamp": self._at_ms,
            "data": data() if callable(data) else data,
        }
        params |= {"node": node} if node else {}
        told = {"type": "event", "event_id": own, "seq": number, "method": method, "params": params}
        self._made.append(Frame(told, method).encode(str(number)))


def _tool(event: str, call_id: str, **told: Any) -> dict[str, Any]:
    return {"event": f"tool-{event}", "tool_call_id": call_id, **told}


def _spelled(said: Any) -> str:
    if isinstance(said, Mapping) and isinstance(said.get("content"), str):
        return str(said["content"])
    return said if isinstance(said, str) else dumps(said).decode()


def _namespace(ns: str) -> Namespace:
    return tuple(ns.split("|")) if ns else ROOT
