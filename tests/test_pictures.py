"""The documentation's pictures of the page: of the windows that `make pictures` takes, and none else."""

from __future__ import annotations

import struct

from tests.pictures import IMAGES, WINDOWS

MOST_BYTES = 400_000


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the header (PNG specification, 11.2.2)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_each_window_has_its_picture() -> None:
    assert {path.name for path in IMAGES.glob("page-*")} == {f"page-{name}.png" for name in WINDOWS}
    for name, (width, _, height, scale) in WINDOWS.items():
        png = (IMAGES / f"page-{name}.png").read_bytes()
        assert size(png) == (width * scale, height * scale), name
        assert len(png) < MOST_BYTES, name
