"""`rag`: answer from a folder's documents. The found documents are sent to readers first, as `sources`."""

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
    """Create an ordinary sequence: question → search → prompt → model."""
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    from workers.chains.documents import search

    prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("user", "{question}")])
    found = {"question": RunnablePassthrough(), "passages": search(settings) | RunnableLambda(passages)}
    return RunnableLambda(question) | found | prompt | model(settings)


def passages(documents: list[Document]) -> str:
    """Return the texts of the documents, each under the name of its source."""
    return "\n\n".join(f"[{document.metadata['source']}]\n{document.page_content}" for document in documents)
