"""`agent`: a model with two tools, a calculator and the document search (LangChain's `create_agent`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from workers.chains.asked import ASKED
from workers.chains.calculator import calculate
from workers.chains.chat import model
from workers.chains.registry import chain

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

SYSTEM = "Use the calculator for sums, and the search for questions about the documents. Answer briefly."


@chain("agent", input=ASKED)
def agent(settings: Settings) -> Runnable[Any, Any]:
    """Create a compiled graph. Its nodes are stages, and calls of its tools are `tool` events."""
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    from workers.chains.documents import search
    from workers.chains.rag import passages

    documents = search(settings)

    @tool
    async def calculator(expression: str) -> str:
        """Work out an arithmetic expression, such as (2 + 3) * 4 ** 2."""
        try:
            return calculate(expression)
        except ValueError as error:
            return f"That cannot be worked out: {error}"

    @tool
    async def search_documents(query: str) -> str:
        """Search the documents; answers the passages nearest to the query."""
        return passages(await documents.ainvoke(query))

    return create_agent(model(settings), [calculator, search_documents], system_prompt=SYSTEM)
