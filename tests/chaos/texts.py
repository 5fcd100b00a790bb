"""Check that a stream has exactly the model's text: each run of a stage, in order, once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tests.chaos.parts import Part


def wrong(
    parts: Sequence[Part],
    folded: Mapping[str, Any],
    answers: Mapping[str, Sequence[str]],
    handed: Mapping[str, Collection[str]],
) -> list[str]:
    """Return the faults in the texts of a stream that is `done` or `cancelled`.

    `folded` is the log's fold. The other values come from the model, by a part's name: `answers` are all
    answers that it began, and `handed` are the texts of earlier stages that came with the questions.
    """
    texts = [stage["text"] for stage in folded["stages"]]
    done = folded["status"] == "done"
    if len(texts) > len(parts) or (done and len(texts) < len(parts)):
        return [f"it has {len(texts)} runs of stages, asked were {len(parts)}"]
    found = []
    for number, (part, text) in enumerate(zip(parts, texts, strict=False)):
        given = answers.get(part.name, ())
        known = [part.text] if part.vary_at is None else list(given)
        if done or number + 1 < len(texts):
            if text not in known:
                other = known[-1] if known else ""
                found.append(f"the text of {part.name} is not the model's: {difference(text, other)}")
        elif not any(answer.startswith(text) for answer in [*given, ""]):
            found.append(f"the cancelled text of {part.name} begins no answer of the model: {text[-200:]!r}")
    return found + _handed(parts, texts, handed)


def _handed(parts: Sequence[Part], texts: Sequence[str], handed: Mapping[str, Collection[str]]) -> list[str]:
    """Check that a stage got the text that is in the log. The first stage gets none."""
    found = []
    for number, part in enumerate(parts[1 : len(texts)], 1):
        last = number + 1 == len(parts)
        before = "".join(texts[1:number]) if last else texts[0]
        given = handed.get(part.name, ())
        if given and before not in given:
            found.append(f"{part.name} was handed another text: {difference(before, sorted(given)[-1])}")
    return found


def difference(ours: str, other: str) -> str:
    """Return the first byte that differs, with its context on both sides."""
    return byte_difference(ours.encode(), other.encode())


def byte_difference(ours: bytes, other: bytes) -> str:
    """Return the first difference of two byte strings."""
    same = next((n for n, (a, b) in enumerate(zip(ours, other, strict=False)) if a != b), None)
    at = min(len(ours), len(other)) if same is None else same
    begin = max(0, at - 200)
    return (
        f"{len(ours)} and {len(other)} bytes, first difference at {at}:\n"
        f"    {ours[begin : at + 200]!r}\n    {other[begin : at + 200]!r}"
    )
