"""`report`: outline, sections one by one, critique, final text. The long one: each result is a checkpoint.

A worker that dies while the third section is written costs that section, and nothing that was done before.
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
# What stands around a title. Each is matched once, at an end: a search for it would try at every sign.
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
    """Each stage is a prompt and the model, fed by the results of those before."""
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
    """The outline's lines, without their numbers and marks; the topic where the model has made none."""
    lines = filter(None, map(_title, given["outline"].splitlines()))
    return list(islice(lines, MOST_SECTIONS)) or [question(given["input"])]


def _title(line: str) -> str:
    """A line without its number and marks, in a time that grows as the line does."""
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
