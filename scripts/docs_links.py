"""mkdocs' hook of `make docs`: a link that leaves `docs/` becomes its words, since the site has only `docs/`.

A link to a file that the repository lacks ends the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_OUTSIDE = re.compile(r"!?\[([^]]*)\]\((\.\./[^)#\s]*)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text, with links into the rest of the repository as words."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def word(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found[2]))
        if path.startswith("docs/"):
            return found[0]
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"docs/{page.file.src_uri} links to {path}, which is not there")
        return f"{found[1]} (`{path}` in the repository)"

    return _OUTSIDE.sub(word, markdown)
