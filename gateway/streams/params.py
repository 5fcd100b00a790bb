"""The params that a client may pass to a chain: the one rule for every API and format. No I/O.

Params become the `configurable` of the run. LangChain, LangGraph and the chain's own code read more there
than a client's wishes: whose state is read, who the caller is, which server is called and with which key. So
some names are removed, and some are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

# Only the product sets these names, in every run (docs/chains.md). A client cannot set a name with this
# prefix.
PRODUCT = "holdfast_"
OWNER = f"{PRODUCT}owner"
STREAM_ID = f"{PRODUCT}stream_id"
ATTEMPT = f"{PRODUCT}attempt"
METADATA = f"{PRODUCT}metadata"
CLAIMS = f"{PRODUCT}claims"
KEY = f"{PRODUCT}idempotency_key"
# The param with which a chain that is declared `structured` learns the requested form of its answer: {"name",
# "schema", "strict"}.
RESPONSE_FORMAT = "response_format"
# Prefixes of names that say who the caller is. A chain may also read such names from an object within the
# params, so they are removed at every depth. `langgraph_` is the namespace in which LangGraph's own server
# puts the caller.
_IDENTITY = (PRODUCT, "langgraph_")
# LangGraph's own names in `configurable` (langgraph/_internal/_constants.py, and `_build_server_info` in
# langgraph/pregel/main.py). LangGraph reads them from the params themselves, never from an object within the
# params.
_LANGGRAPH = frozenset(
    (
        *("thread_id", "thread_ts", "checkpoint_id", "checkpoint_ns", "checkpoint_map"),
        *("assistant_id", "graph_id", "run_id"),
    )
)
_INTERNAL = "__"
STEPS = "recursion_limit"  # the product's own param: how many steps a graph may take
# Matches fields of a model that name its server or its credentials. Examples of ChatOpenAI are `base_url`,
# `openai_api_base`, `openai_api_key`, `openai_proxy`, `default_headers`, `http_client`. Examples of other
# models are `endpoint_url`, `aws_secret_access_key`, `client_kwargs`. The name may have a prefix
# (`config_prefix` of `init_chat_model`). The pattern is matched against the words of a name, joined by
# underscores.
_SENSITIVE = re.compile(
    r"(?:^|_)(?:"
    # These words match anywhere in the name.
    r"endpoints?|prox(?:y|ies)|headers?|credentials?|passwords?|secrets?|apikeys?"
    r"|(?:api|access|secret|private|signing|subscription|account)_keys?"
    r"|(?:api|ad|auth|access|session|bearer|refresh|security)_tokens?|token_provider"
    r"|api_base|client_(?:kwargs|args|options)"
    # These match at the end of the name; `token` matches only the whole name.
    r"|(?:urls?|uris?|host|hostname)$|^token$"
    r"|[a-z0-9]+_client$"
    r")(?:_|$)"
)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
# Objects whose members are passed on as fields.
_WITHIN = re.compile(r"(?:^|_)(?:kwargs|args|options)$")


def own(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the client's params without the names that only the product or LangGraph may set."""
    return {
        name: _without_identity(value)
        for name, value in params.items()
        if name not in _LANGGRAPH and not name.startswith((_INTERNAL, *_IDENTITY))
    }


def sensitive(params: Mapping[str, Any], allowed: Collection[str] = ()) -> str:
    """Return the path of the first param that names a credential or an endpoint; empty if there is none.

    `allowed`: the names that the chain's author lets clients set. Everything within them is allowed, too.
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
    """Return the same value without names that say who the caller is.

    The depth of the recursion is limited by the bound on the body's depth.
    """
    if isinstance(value, Mapping):
        return {
            name: _without_identity(item) for name, item in value.items() if not name.startswith(_IDENTITY)
        }
    return [_without_identity(item) for item in value] if isinstance(value, list) else value
