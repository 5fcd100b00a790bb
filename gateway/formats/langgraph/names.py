"""The names of chains as LangGraph's clients know them: an assistant for each, and its id."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

_GRAPHS = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")  # LangGraph's name space of graphs


def assistant_id(chain: str) -> str:
    """The id of a chain's assistant, as LangGraph's server makes it."""
    return str(uuid.uuid5(_GRAPHS, chain))


def chain_of(chains: Iterable[str], given: str) -> str:
    """The chain that this names, by its name or its assistant's id; what names none is left as it is."""
    return next((name for name in chains if given in (name, assistant_id(name))), given)
