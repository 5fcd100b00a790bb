"""Converts between chains and ids of assistants: LangGraph's clients see each chain as one assistant."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

_GRAPHS = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")  # LangGraph's name space of graphs


def assistant_id(chain: str) -> str:
    """Return the id of a chain's assistant, computed as in LangGraph's server."""
    return str(uuid.uuid5(_GRAPHS, chain))


def chain_of(chains: Iterable[str], given: str) -> str:
    """Return the chain that `given` names: `given` is the chain's name or its assistant's id.

    If there is no such chain, return `given` unchanged.
    """
    return next((name for name in chains if given in (name, assistant_id(name))), given)
