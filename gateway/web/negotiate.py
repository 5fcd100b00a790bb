"""Choose the media type that a client prefers, by its `Accept` (RFC 9110, 12.5.1). No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RANGE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
_WEIGHT = re.compile(r"0?\.[0-9]{1,9}|0\.?|1(\.0{0,9})?")  # Java sends `.2`
_MOST_RANGES = 100
_NAMED, _KIND, _ANY = 2, 1, 0


def negotiate(accept: Sequence[str], offers: Sequence[str], unasked: str) -> str | None:
    """Return the best of the media types in `offers`, or None if the client refuses all of them.

    `accept` contains the values of all Accept fields. If there are no values, or only empty ones, everything
    is accepted. The most exact range that matches an offer gives the weight of the offer; weight 0 refuses
    the offer. If weights are equal, an offer that is named wins over an offer that only a wildcard matches.
    Among named offers with equal weight, the earlier one wins. Among offers that only wildcards match,
    `unasked` wins, and after it the earlier offer. A range with a wrong form is ignored, and so are all
    parameters except the weight.
    """
    ranges = _ranges(",".join(accept)) or {"*/*": 1.0}

    def rank(offer: str) -> tuple[float, int, bool, int]:
        weight, exactness = _weight(offer, ranges)
        return weight, exactness, exactness < _NAMED and offer == unasked, -offers.index(offer)

    best = max(offers, key=rank)
    return best if rank(best)[0] > 0 else None


def _weight(offer: str, ranges: dict[str, float]) -> tuple[float, int]:
    """Return the weight of an offer, and how exactly a range names the offer."""
    kind = offer.partition("/")[0]
    for exactness, name in ((_NAMED, offer), (_KIND, f"{kind}/*"), (_ANY, "*/*")):
        if name in ranges:
            return ranges[name], exactness
    return 0.0, _ANY


def _ranges(accept: str) -> dict[str, float]:
    """Return the weights by media range. A range that is given twice gets the higher weight."""
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
