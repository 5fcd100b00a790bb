"""Each program in the documents is run by a test as it is printed, or is called a fragment in its fence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"^[ ]*```(sh|bash|console|python|jsx?|tsx?)\b([^\n]*)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL
)
# What tells a program from the others of its page, and the test that runs it as it is printed.
RUN = {
    ("README.md", "curl -sN --max-time"): "tests/test_readme.py",
    ("README.md", "Last-Event-ID: $cursor"): "tests/test_readme.py",
    ("README.md", "gateway.stream(user="): "tests/test_readme.py",
    ("docs/chains.md", '@chain("clerk")'): "tests/test_own_chains.py",
    ("docs/chains.md", "Saver.from_settings"): "tests/test_checkpoints_graphs.py",
    ("docs/chains.md", '@chain("weather"'): "tests/test_chain_testing.py",
    ("docs/chains.md", "Take a hat."): "tests/test_chain_testing.py",
    ("docs/chains.md", "history_factory_config"): "tests/test_auth_params.py",
    ("docs/formats.md", "DefaultChatTransport"): "tests/test_format_ai_sdk.py",
    ("docs/formats.md", "resuming = (fetch"): "tests/test_format_agui.py",
    ("docs/formats.md", '"/plain/'): "tests/test_format_documented.py",
}
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_each_program_is_run_or_is_called_a_fragment(page: str) -> None:
    words = [word for name, word in RUN if name == page]
    met = []
    for _, info, code in FENCE.findall((ROOT / page).read_text()):
        if info.split() == ["fragment"]:
            continue
        found = [word for word in words if word in code]
        assert len(found) == 1, f"no test of {page} runs, and no fence calls a fragment:\n{code}"
        met += found
    assert sorted(met) == sorted(words)


@pytest.mark.parametrize(("page", "test"), sorted({(page, test) for (page, _), test in RUN.items()}))
def test_who_runs_it_reads_the_page(page: str, test: str) -> None:
    text = (ROOT / test).read_text()
    assert Path(page).name in text or f'glob("{Path(page).stem}*.md")' in text
