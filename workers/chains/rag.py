"""`rag`: an answer from a folder's documents. What was found goes to readers first, as `sources`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from workers.chains.asked import ASKED, question
from workers.chains.chat import model
from workers.chains.registry import chain

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.runnables import Runnable

SYSTEM = "Answer from these passages alone; where they do not say, say so.\n\n{passages}"


@chain("rag", input=ASKED)
def rag(settings: Settings) -> Runnable[Any, Any]:
    """Question → search → prompt → model, an ordinary sequence."""
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    from workers.chains.documents import search

    prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("user", "{question}")])
    found = {"question": RunnablePassthrough(), "passages": search(settings) | RunnableLambda(passages)}
    return RunnableLambda(question) | found | prompt | model(settings)


def passages(documents: list[Document]) -> str:
    """What was found, each under its source."""
    return "\n\n".join(f"[{document.metadata['source']}]\n{document.page_content}" for document in documents)
