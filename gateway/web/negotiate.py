"""What a client would rather have: `Accept` as RFC 9110, 12.5.1 reads it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RANGE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
_WEIGHT = re.compile(r"0?\.[0-9]{1,9}|0\.?|1(\.0{0,9})?")  # Java sends `.2`
_MOST_RANGES = 100
_NAMED, _KIND, _ANY = 2, 1, 0


def negotiate(accept: Sequence[str], offers: Sequence[str], unasked: str) -> str | None:
    """The best of the media types in `offers`, or None where the client refuses all of them.

    `accept` holds the values of all Accept fields; none, or only empty ones, accept anything. The most exact
    range that matches an offer gives its weight, and weight 0 refuses it. Among equal weights an offer that
    is named goes before one that only a wildcard matches. Among equal ones that are named, the earlier offer
    wins; among those that only wildcards match, `unasked`, and then the earlier offer. A range that is not of
    the right form is passed over, and so are parameters beside the weight.
    """
    ranges = _ranges(",".join(accept)) or {"*/*": 1.0}

    def rank(offer: str) -> tuple[float, int, bool, int]:
        weight, exactness = _weight(offer, ranges)
        return weight, exactness, exactness < _NAMED and offer == unasked, -offers.index(offer)

    best = max(offers, key=rank)
    return best if rank(best)[0] > 0 else None


def _weight(offer: str, ranges: dict[str, float]) -> tuple[float, int]:
    """Its weight, and how exactly it is named."""
    kind = offer.partition("/")[0]
    for exactness, name in ((_NAMED, offer), (_KIND, f"{kind}/*"), (_ANY, "*/*")):
        if name in ranges:
            return ranges[name], exactness
    return 0.0, _ANY


def _ranges(accept: str) -> dict[str, float]:
    """Weights by media range; of one that is given twice the higher weight."""
    found: dict[str, float] = {}
    for item in accept.split(",", _MOST_RANGES)[:_MOST_RANGES]:
        name, *parameters = (part.strip(" \t").lower() for part in item.split(";"))
        name = "*/*" if name == "*" else name
        if not _RANGE.fullmatch(name):
            continue
        weights = [p.partition("=")[2].strip(" \t") for p in parameters if p.startswith("q=")]
        if all(_WEIGHT.fullmatch(weight) for weight in weights):
            found[name] = max(found.get(name, 0.0), float(weights[0]) if weights else 1.0)
    return found
