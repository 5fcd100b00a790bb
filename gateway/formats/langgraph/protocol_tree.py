"""Keeps the namespaces of a run, and which of the graph's subgraphs are running or ended. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Namespace = tuple[str, ...]
# A namespace, and the data of its event on the `lifecycle` channel.
Told = tuple[Namespace, Mapping[str, Any]]


@dataclass(slots=True)
class Tree:
    """All namespaces that a run has used so far. The root's status is the run's status."""

    graph_name: str = ""
    status: str = "running"
    _of: dict[Namespace, str] = field(default_factory=dict)  # statuses, in the order of start

    def enter(self, namespace: Namespace) -> Iterator[Told]:
        """Record an event in a namespace. Yield a `started` event for it and each parent not yet known."""
        for length in range(1, len(namespace) + 1):
            here = namespace[:length]
            if here in self._of:
                continue
            self._of[here] = "started"
            name, _, task = here[-1].partition(":")
            told = {"event": "started", "namespace": list(here), "graph_name": name}
            yield here, told | ({"trigger_call_id": task} if task else {})

    def leave(self, parent: Namespace, node: str) -> Iterator[Told]:
        """Record that a node of a graph is done: end the node's oldest namespace that is still running."""
        for here, status in self._of.items():
            is_of_node = here[:-1] == parent and here[-1].partition(":")[0] == node
            if is_of_node and status == "started":
                yield self._over(here)
                return

    def close(self, status: str = "completed") -> list[Told]:
        """Record the run's end with this status, and end all running namespaces, the deepest first."""
        left = [here for here, status in self._of.items() if status == "started"]
        return [self._over(here, status) for here in sorted(left, key=len, reverse=True)]

    def forget(self) -> None:
        """Forget all namespaces: they are void."""
        self._of.clear()

    def told(self, namespace: Namespace = ()) -> dict[str, Any]:
        """Return the tree in the form of the answer to `agent.getTree`."""
        name = namespace[-1].partition(":")[0] if namespace else self.graph_name
        status = self._of[namespace] if namespace else self.status
        told: dict[str, Any] = {"namespace": list(namespace), "status": status, "graph_name": name}
        below = [here for here in self._of if here[:-1] == namespace]
        return told | ({"children": [self.told(here) for here in sorted(below)]} if below else {})

    def _over(self, here: Namespace, status: str = "completed") -> Told:
        self._of[here] = status
        return here, {"event": status, "graph_name": here[-1].partition(":")[0]}
