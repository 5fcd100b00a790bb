"""Which params a client may hand to a chain: the one rule for every API and format. No I/O.

Params become the `configurable` of the run, where LangChain, LangGraph and the chain's own code look for more
than wishes: whose state is read, who the caller is, which server is asked and with which key. So some names
are taken out, and some are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

# Set by the product alone, in every run (docs/chains.md). No client can set a name that begins so.
PRODUCT = "holdfast_"
OWNER = f"{PRODUCT}owner"
STREAM_ID = f"{PRODUCT}stream_id"
ATTEMPT = f"{PRODUCT}attempt"
METADATA = f"{PRODUCT}metadata"
CLAIMS = f"{PRODUCT}claims"
KEY = f"{PRODUCT}idempotency_key"
# What a chain that is declared `structured` is told of the form of its answer: {"name", "schema", "strict"}.
RESPONSE_FORMAT = "response_format"
# Names that say who the caller is. A chain may read them from an object within the params, too, so they are
# taken out at every depth. `langgraph_` is the namespace in which LangGraph's own server puts the caller.
_IDENTITY = (PRODUCT, "langgraph_")
# LangGraph's own names in `configurable` (langgraph/_internal/_constants.py, and `_build_server_info` in
# langgraph/pregel/main.py). It reads them from the params themselves, never from an object within them.
_LANGGRAPH = frozenset(
    (
        *("thread_id", "thread_ts", "checkpoint_id", "checkpoint_ns", "checkpoint_map"),
        *("assistant_id", "graph_id", "run_id"),
    )
)
_INTERNAL = "__"
STEPS = "recursion_limit"  # the product's own wish: how many steps a graph may take
# What a model's own fields are called when they name where it is asked and as whom: of ChatOpenAI
# `base_url`, `openai_api_base`, `openai_api_key`, `openai_proxy`, `default_headers`, `http_client`, of others
# `endpoint_url`, `aws_secret_access_key`, `client_kwargs`. A prefix may stand before them (`config_prefix` of
# `init_chat_model`). Matched against the words of a name, joined by underscores.
_SENSITIVE = re.compile(
    r"(?:^|_)(?:"
    r"endpoints?|prox(?:y|ies)|headers?|credentials?|passwords?|secrets?|apikeys?"  # anywhere in the name
    r"|(?:api|access|secret|private|signing|subscription|account)_keys?"
    r"|(?:api|ad|auth|access|session|bearer|refresh|security)_tokens?|token_provider"
    r"|api_base|client_(?:kwargs|args|options)"
    r"|(?:urls?|uris?|host|hostname)$|^token$"  # at its end; the whole of it
    r"|[a-z0-9]+_client$"
    r")(?:_|$)"
)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_WITHIN = re.compile(r"(?:^|_)(?:kwargs|args|options)$")  # objects whose members are handed on as fields


def own(params: Mapping[str, Any]) -> dict[str, Any]:
    """The client's params without the names that only the product or LangGraph may set."""
    return {
        name: _without_identity(value)
        for name, value in params.items()
        if name not in _LANGGRAPH and not name.startswith((_INTERNAL, *_IDENTITY))
    }


def sensitive(params: Mapping[str, Any], allowed: Collection[str] = ()) -> str:
    """The path of the first param that names a credential or an endpoint; empty where there is none.

    `allowed`: the names that the chain's author lets clients set, each with all that is within it.
    """
    for name, value in params.items():
        if name in allowed:
            continue
        words = _WORDS.sub("_", name).lower()
        if _SENSITIVE.search(words):
            return name
        if isinstance(value, Mapping) and _WITHIN.search(words) and (within := sensitive(value)):
            return f"{name}.{within}"
    return ""


def _without_identity(value: Any) -> Any:
    """The same value without names that say who the caller is. As deep as the body's bound lets it be."""
    if isinstance(value, Mapping):
        return {
            name: _without_identity(item) for name, item in value.items() if not name.startswith(_IDENTITY)
        }
    return [_without_identity(item) for item in value] if isinstance(value, list) else value
