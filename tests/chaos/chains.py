"""A chain of several stages, which the gateway's processes import (GATEWAY_CHAINS).

The question is a list of parts (`tests.chaos.parts.Part`). The stage `first` asks the first part, the stage
`last` asks the last part, and one run of the stage `several` asks each part between them. A stage sends the
model the text that it got from the earlier stages: the judge compares this text with the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from tests.chaos.parts import content
from workers.chains.asked import question
from workers.chains.chat import model
from workers.chains.registry import chain
from workers.stages import Each

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

NAME = "chaos-stages"
STAGES = ("first", "several", "last")


def parts(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all parts of the question."""
    found: list[dict[str, Any]] = json.loads(question(given["input"]))
    return found


def _first(given: Mapping[str, Any]) -> str:
    return content(parts(given)[0])


def _middle(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return parts(given)[1:-1]


def _one(given: Mapping[str, Any]) -> str:
    return content(given["item"], given["first"])


def _last(given: Mapping[str, Any]) -> str:
    return content(parts(given)[-1], "".join(given["several"]))


@chain(NAME, stages=STAGES)
def stages(settings: Settings) -> Mapping[str, Runnable[Any, Any] | Each]:
    """Return the stages. Each stage is a question to the model."""
    from langchain_core.runnables import RunnableLambda

    def asks(part: Any) -> Runnable[Any, Any]:
        return RunnableLambda(part) | model(settings)

    return {"first": asks(_first), "several": Each(asks(_one), _middle), "last": asks(_last)}
