"""The part of the OpenAPI document about a caller's threads. No I/O."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.web.openapi import parameters, responses
from gateway.web.openapi.basics import ref
from gateway.web.openapi.responses import Answer

ROWS, MOST_ROWS = 50, 100  # rows of one page of the list: default and limit


class Describe(Protocol):
    """A function that describes an operation by its name, summary, good answers, and problem codes."""

    def __call__(self, name: str, summary: str, told: dict[str, Answer], *codes: str) -> dict[str, Any]:
        """Return the operation, without its parameters."""


def paths(operation: Describe) -> dict[str, dict[str, Any]]:
    """Return the paths below `/threads` that are our own. LangGraph's clients also use the last two."""
    here = [parameters.thread()]
    listed = {"200": responses.json("the newest first", ref("Threads"))}
    state = {"200": responses.json("how it stands", ref("ThreadState"))}
    gone = {"204": responses.empty("nothing of it is left")}
    leave = {"204": responses.empty("whether a page of another origin may ask")}
    preflight = {
        "operationId": "preflight_thread_state",
        "summary": "May a page of another origin ask?",
        "parameters": [{**parameters.thread(), "schema": {"type": "string", "minLength": 1}}],
        "responses": leave | responses.problems(["no_route", "internal"]),
    }
    return {
        "/threads": {
            "get": {
                **operation("threads", "The caller's threads", listed),
                "parameters": parameters.page(MOST_ROWS, ROWS),
            }
        },
        "/threads/{thread}": {
            "delete": {
                **operation(
                    "thread_delete",
                    "End what runs in a thread, and delete it",
                    gone,
                    "thread_busy",
                    "no_route",
                ),
                "parameters": here,
            }
        },
        "/threads/{thread}/state": {
            "get": {
                **operation(
                    "thread_state",
                    "How a thread stands",
                    state,
                    *("gone", "too_many_readers", "no_route"),
                ),
                "parameters": here,
            },
            "options": preflight,
        },
    }
