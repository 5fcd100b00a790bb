"""HTTP/1.1's chunked transfer coding (RFC 9112, 7.1). No I/O."""

from __future__ import annotations

LAST_CHUNK = b"0\r\n\r\n"  # ends the body in order


def chunk_of(data: bytes) -> bytes:
    """Return these bytes of a body as one chunk.

    `data` must not be empty: an empty chunk would end the body.
    """
    return b"%x\r\n%b\r\n" % (len(data), data)
