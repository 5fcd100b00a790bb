"""Search the documents of a folder. LangChain's own classes split, embed and store them.

With `GATEWAY_EMBEDDING_MODEL` the documents are embedded by that model. Otherwise they are embedded by their
words, which needs no model and no network. The packaged model's own embeddings cannot tell texts apart
(cosines of 0.74 to 0.76 for any texts). The documents are read once per process. The numbers of files and
pieces are bounded.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter
from pydantic import PrivateAttr

from gateway.azure import credentials
from gateway.runtime.files import shipped
from gateway.settings import Settings
from workers.chains.chat import has_key, uses_v1, v1

OURS = shipped("docs")
SUFFIXES = (".md", ".txt", ".rst")
MOST_FILES, MOST_FILE_BYTES, MOST_PIECES = 1000, 1024 * 1024, 20_000
PIECE_CHARACTERS, OVERLAP_CHARACTERS = 800, 100
FOUND = 4
DIMENSIONS = 2048
_SUFFIX = re.compile(r"(?<=[a-z]{3})(?:ing|ed|es|s|ly)$")


class Words(Embeddings):
    """Embeds a text as the weighted counts of its words (TF-IDF: a rare word has a greater weight).

    The hash of a word gives its index in the vector.
    """

    def __init__(self) -> None:
        self._texts = 0
        self._in_texts: Counter[int] = Counter()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Compute the weights of the words from these texts, then embed the texts."""
        places = [self._places(text) for text in texts]
        self._texts += len(texts)
        for counts in places:
            self._in_texts.update(counts.keys())
        return [self._vector(counts) for counts in places]

    def embed_query(self, text: str) -> list[float]:
        """Embed a query with the weights of the documents."""
        return self._vector(self._places(text))

    def _places(self, text: str) -> Counter[int]:
        words = re.findall(r"[^\W_]+", text.lower())
        return Counter(crc32(_SUFFIX.sub("", word).encode()) % DIMENSIONS for word in words)

    def _vector(self, counts: Counter[int]) -> list[float]:
        vector = [0.0] * DIMENSIONS
        for place, count in counts.items():
            weight = math.log((1 + self._texts) / (1 + self._in_texts[place])) + 0.01
            vector[place] = (1 + math.log(count)) * weight
        return vector


class Search(BaseRetriever):
    """Finds the pieces nearest to a question, best first, each with its score.

    The pieces are embedded before the first search.
    """

    store: InMemoryVectorStore
    pieces: list[Document]
    _turn: asyncio.Lock = PrivateAttr(default_factory=asyncio.Lock)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        async with self._turn:
            if self.pieces:
                await self.store.aadd_documents(self.pieces)
                self.pieces.clear()
        found = await self.store.asimilarity_search_with_score(query, k=FOUND)
        return [_scored(*each) for each in found]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        raise TypeError("this search is async: ainvoke it")


@functools.lru_cache(maxsize=4)
def search(settings: Settings) -> Search:
    """Return the search of the folder `GATEWAY_DOCUMENTS`. Raises ValueError for no text, or for too much."""
    folder = Path(settings.documents) if settings.documents else OURS
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=PIECE_CHARACTERS, chunk_overlap=OVERLAP_CHARACTERS, add_start_index=True
    )
    pieces = splitter.split_documents(list(_documents(folder)))
    if not pieces or len(pieces) > MOST_PIECES:
        raise ValueError(f"GATEWAY_DOCUMENTS must hold text, and at most {MOST_PIECES} pieces of it")
    for piece in pieces:
        piece.id = f"{piece.metadata['source']}:{piece.metadata['start_index']}"
    return Search(store=InMemoryVectorStore(_embeddings(settings)), pieces=pieces)


def _documents(folder: Path) -> Iterator[Document]:
    files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if len(files) > MOST_FILES or any(file.stat().st_size > MOST_FILE_BYTES for file in files):
        raise ValueError(f"GATEWAY_DOCUMENTS: at most {MOST_FILES} files of {MOST_FILE_BYTES} bytes")
    for file in files:
        text = file.read_text(errors="replace")
        first = text.lstrip().partition("\n")[0].strip("# ")
        source = file.relative_to(folder).as_posix()
        yield Document(text, metadata={"source": source, "title": first or source})


def _embeddings(settings: Settings) -> Embeddings:
    if not settings.embedding_model:
        return Words()
    from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings

    given: dict[str, Any] = {"model": settings.embedding_model, "max_retries": 0}
    if uses_v1(settings):
        return OpenAIEmbeddings(**v1(settings), **given)
    if settings.azure_openai_endpoint:
        if not has_key():
            given["azure_ad_async_token_provider"] = credentials.openai_token_provider(settings)
        return AzureOpenAIEmbeddings(azure_endpoint=settings.azure_openai_endpoint, **given)
    if settings.openai_base_url:  # other servers accept texts, but not OpenAI's token numbers
        given |= {"base_url": settings.openai_base_url, "check_embedding_ctx_length": False}
    if settings.openai_api_key:
        given["api_key"] = settings.openai_api_key
    return OpenAIEmbeddings(**given)


def _scored(document: Document, score: float) -> Document:
    metadata = {**document.metadata, "score": round(float(score), 4)}
    return Document(document.page_content, id=document.id, metadata=metadata)
