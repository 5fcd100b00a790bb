"""The namespaces of a run: which of its graph's subgraphs run, and which are over. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Namespace = tuple[str, ...]
Told = tuple[Namespace, Mapping[str, Any]]  # where, and what the `lifecycle` channel says


@dataclass(slots=True)
class Tree:
    """All namespaces that a run has had. The root's status is the run's."""

    graph_name: str = ""
    status: str = "running"
    _of: dict[Namespace, str] = field(default_factory=dict)  # statuses, in the order of their beginnings

    def enter(self, namespace: Namespace) -> Iterator[Told]:
        """Something happens there: it and those above it run, if they did not."""
        for length in range(1, len(namespace) + 1):
            here = namespace[:length]
            if here in self._of:
                continue
            self._of[here] = "started"
            name, _, task = here[-1].partition(":")
            told = {"event": "started", "namespace": list(here), "graph_name": name}
            yield here, told | ({"trigger_call_id": task} if task else {})

    def leave(self, parent: Namespace, node: str) -> Iterator[Told]:
        """A node of a graph is done: the oldest of its namespaces that runs is over."""
        for here, status in self._of.items():
            is_of_node = here[:-1] == parent and here[-1].partition(":")[0] == node
            if is_of_node and status == "started":
                yield self._over(here)
                return

    def close(self, status: str = "completed") -> list[Told]:
        """The run is over in this way, and with it all that runs, the deepest first."""
        left = [here for here, status in self._of.items() if status == "started"]
        return [self._over(here, status) for here in sorted(left, key=len, reverse=True)]

    def forget(self) -> None:
        """All of it is void."""
        self._of.clear()

    def told(self, namespace: Namespace = ()) -> dict[str, Any]:
        """The tree as `agent.getTree` answers it."""
        name = namespace[-1].partition(":")[0] if namespace else self.graph_name
        status = self._of[namespace] if namespace else self.status
        told: dict[str, Any] = {"namespace": list(namespace), "status": status, "graph_name": name}
        below = [here for here in self._of if here[:-1] == namespace]
        return told | ({"children": [self.told(here) for here in sorted(below)]} if below else {})

    def _over(self, here: Namespace, status: str = "completed") -> Told:
        self._of[here] = status
        return here, {"event": status, "graph_name": here[-1].partition(":")[0]}
