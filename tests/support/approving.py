"""Agents that ask a person before they call a tool. They use LangChain's own middleware.

GATEWAY_CHAINS names this module in a gateway process of a test.
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from tests.support import asking
from tests.support.adapted import Scripted, calls
from workers.chains.registry import chain


@tool
def burn(what: str) -> str:
    """Burn something."""
    return f"burned {what}"


def _agent(mode: Any) -> Any:
    """Make an agent that says something, calls two tools and says something more. Each call needs an
    approval."""
    asked = [
        {"name": "send", "args": {"to": "Ann"}, "id": "c1", "type": "tool_call"},
        {"name": "burn", "args": {"what": "it"}, "id": "c2", "type": "tool_call"},
    ]
    answers = [AIMessage("let me see", tool_calls=asked), AIMessage("so be it")]
    asks: Any = HumanInTheLoopMiddleware(
        interrupt_on={"send": True, "burn": {"allowed_decisions": ["approve", "reject"]}}, interrupt_mode=mode
    )
    return create_agent(Scripted(answers=answers), [asking.send, burn], middleware=[asks])


@chain("approves-all")
def approves_all(_: Any) -> Any:
    """Make an agent that asks one question for both calls."""
    return _agent("batched")


@chain("approves-each")
def approves_each(_: Any) -> Any:
    """Make an agent that asks two questions, one for each call."""
    return _agent("per_call")


@chain("approves-no-refusal")
def approves_no_refusal(_: Any) -> Any:
    """Make an agent whose question does not allow a refusal."""
    asks: Any = HumanInTheLoopMiddleware(interrupt_on={"send": {"allowed_decisions": ["approve"]}})
    answers = [calls("send", to="Ann"), AIMessage("it is sent")]
    return create_agent(Scripted(answers=answers), [asking.send], middleware=[asks])


asking.register()
