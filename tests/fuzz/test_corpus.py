"""Run the stored corpus and some random inputs, so that no fixed fault returns. `make fuzz` runs longer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, TARGETS

MOST_FILES = 200
MOST_BYTES = 200_000
EXAMPLES = 60


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def test_every_target_has_a_corpus_and_all_of_it_is_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    kept = [data for name in TARGETS for data in corpus(name)]
    assert all(corpus(name) for name in TARGETS)
    assert len(kept) <= MOST_FILES
    assert sum(map(len, kept)) <= MOST_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_still_holds(name: str) -> None:
    for data in corpus(name):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_close_to_it_holds_too(name: str) -> None:
    kept = st.sampled_from(corpus(name))
    cut = st.tuples(kept, st.integers(0, 64), st.binary(max_size=8), st.integers(0, 64), kept)
    joined = cut.map(lambda parts: parts[0][: parts[1]] + parts[2] + parts[4][parts[3] :])

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(joined)
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()
