"""Extract Bicep's own types for Azure from the executable of the Azure MCP server.

The executable is a .NET single-file bundle. One assembly in it contains, as resources, the files from which
Bicep's compiler reads its types: deflated JSON, one after the other, each after its length.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

BUNDLE_SIGNATURE = bytes.fromhex("8b1202b96a612038727b930214d7a03213f5b9e6efae3318ee3b2dce24b36aae")
ASSEMBLY = "Microsoft.Azure.Mcp.AzTypes.Internal.Compact.dll"

Raw = list[dict[str, Any]]


def assembly(executable: bytes) -> bytes:
    """Return the assembly with the types. The bundle's manifest has its position: .NET's
    design/features/bundler."""
    mark = executable.index(BUNDLE_SIGNATURE)
    (at,) = struct.unpack_from("<q", executable, mark - 8)
    _major, _minor, count = struct.unpack_from("<IIi", executable, at)
    _identity, at = _text(executable, at + 12)
    at += 4 * 8 + 8  # skip the positions of two more files, and flags
    for _ in range(count):
        offset, size, packed = struct.unpack_from("<qqq", executable, at)
        name, at = _text(executable, at + 25)
        if name == ASSEMBLY:
            found = executable[offset : offset + (packed or size)]
            return zlib.decompress(found, -15) if packed else found
    raise LookupError(f"{ASSEMBLY} is not in the bundle")


def files(dll: bytes) -> Iterator[Raw]:
    """Yield every types.json of the assembly."""
    at, end = _resources(dll)
    while at < end:
        (length,) = struct.unpack_from("<I", dll, at)
        content = json.loads(zlib.decompress(dll[at + 4 : at + 4 + length], -15))
        if isinstance(content, list):
            yield content
        at += 4 + length


def _text(data: bytes, at: int) -> tuple[str, int]:
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return data[at : at + length].decode(), at + length


def _resources(dll: bytes) -> tuple[int, int]:
    """Return the start and end of the resources: ECMA-335 II.25.2 and II.25.3.3."""
    (pe,) = struct.unpack_from("<I", dll, 0x3C)
    sections, optional = struct.unpack_from("<H12xH", dll, pe + 6)
    wide = struct.unpack_from("<H", dll, pe + 24)[0] == 0x20B
    directories = pe + 24 + (112 if wide else 96)
    (header,) = struct.unpack_from("<I", dll, directories + 14 * 8)
    table = [
        struct.unpack_from("<IIII", dll, pe + 24 + optional + 40 * number + 8) for number in range(sections)
    ]

    def place(address: int) -> int:
        for _, start, size, raw in table:
            if start <= address < start + size:
                return int(address - start + raw)
        raise LookupError("no section holds the resources")

    address, size = struct.unpack_from("<II", dll, place(header) + 24)
    start = place(address)
    return start, start + int(size)
