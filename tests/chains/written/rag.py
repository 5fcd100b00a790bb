"""Answers from documents."""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableParallel, RunnablePassthrough

from tests.chains.cases import case, llm, retriever


def joined(found):
    return "\n\n".join(document.page_content for document in found)


def answer(context=joined):
    prompt = ChatPromptTemplate.from_template("Context: {context}\n\nQuestion: {question}")
    return (
        RunnablePassthrough.assign(context=lambda x: context(x["context"]))
        | prompt
        | llm()
        | StrOutputParser()
    )


@case("rag_plain", "plain", input="#story how to resume?")
def rag_plain(settings):
    prompt = ChatPromptTemplate.from_template("C: {context} Q: {question}")
    return (
        {"context": retriever() | joined, "question": RunnablePassthrough()}
        | prompt
        | llm()
        | StrOutputParser()
    )


@case(
    "rag_with_sources",
    "mapping",
    input="#story how to resume?",
    note="RunnableParallel(...).assign(answer=...)",
)
def rag_with_sources(settings):
    return RunnableParallel({"context": retriever(), "question": RunnablePassthrough()}).assign(
        answer=answer()
    )


@case("rag_picked", "plain", input="#story how?")
def rag_picked(settings):
    given = RunnableParallel({"context": retriever(), "question": RunnablePassthrough()})
    return given.assign(answer=answer()).pick("answer")


@case("retrieval_chain", "mapping", input={"input": "#story how to resume?"}, needs="langchain_classic")
def retrieval_chain(settings):
    from langchain_classic.chains import create_retrieval_chain
    from langchain_classic.chains.combine_documents import create_stuff_documents_chain

    prompt = ChatPromptTemplate.from_messages([("system", "Answer from: {context}"), ("human", "{input}")])
    return create_retrieval_chain(retriever(), create_stuff_documents_chain(llm(), prompt))


class Large(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return [Document("z " * 150_000, metadata={"source": f"s{i}"}) for i in range(4)]


@case("rag_large_documents", "mapping", input="#story q", note="1.2 MB of documents beside a short answer")
def rag_large_documents(settings):
    given = RunnableParallel({"context": Large(), "question": RunnablePassthrough()})
    return given.assign(answer=answer(lambda found: "short"))
