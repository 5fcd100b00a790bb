"""`report`: write an outline, the sections one by one, a critique and the final text.

This is the long chain. Each result is a checkpoint. If a worker dies while it writes the third section, only
that section is written again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from workers.chains.asked import ASKED, question
from workers.chains.chat import model
from workers.chains.registry import chain
from workers.stages import Each

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

MOST_SECTIONS = 6
# The marks before and after a title. Each pattern is matched once, at an end of the line: a search would try
# it at every character.
_MARKS = re.compile(r"[\s\d.)#*•-]*")
_MARKS_REVERSED = re.compile(r"[\s*:]*")
OUTLINE = "Name three to five sections of a short report on this topic, each on its own line:\n\n{topic}"
SECTION = (
    "Topic: {topic}\n\nOutline:\n{outline}\n\nWrite the section “{item}”, one paragraph, without a title."
)
CRITIQUE = "Topic: {topic}\n\nDraft:\n{draft}\n\nSay in a few sentences what is wrong or missing."
FINAL = "Topic: {topic}\n\nDraft:\n{draft}\n\nCritique:\n{critique}\n\nWrite the final report."


@chain("report", stages=("outline", "sections", "critique", "final"), input=ASKED)
def report(settings: Settings) -> Mapping[str, Runnable[Any, Any] | Each]:
    """Create the stages. Each is a prompt and the model, and gets the results of the stages before it."""
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda

    def step(template: str) -> Runnable[Any, Any]:
        return RunnableLambda(_filled) | ChatPromptTemplate.from_template(template) | model(settings)

    return {
        "outline": step(OUTLINE),
        "sections": Each(step(SECTION), titles),
        "critique": step(CRITIQUE),
        "final": step(FINAL),
    }


def titles(given: Mapping[str, Any]) -> Sequence[str]:
    """Return the outline's lines without numbers and marks. If there are none, return the topic."""
    lines = filter(None, map(_title, given["outline"].splitlines()))
    return list(islice(lines, MOST_SECTIONS)) or [question(given["input"])]


def _title(line: str) -> str:
    """Return a line without its number and marks. The time is linear in the length of the line."""
    before = _MARKS.match(line)
    turned = line[before.end() if before else 0 :][::-1]
    after = _MARKS_REVERSED.match(turned)
    return turned[after.end() if after else 0 :][::-1]


def _filled(given: Mapping[str, Any]) -> dict[str, Any]:
    written = given.get("sections", [])
    draft = "\n\n".join(
        f"{title}\n{text}" for title, text in zip(titles(given) if written else [], written, strict=True)
    )
    return {**given, "topic": question(given["input"]), "draft": draft}
