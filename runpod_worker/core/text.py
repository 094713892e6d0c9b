"""Text that every encoder accepts, and of a bounded length."""

from __future__ import annotations


def encodable(text: str) -> str:
    """The text with "?" for each lone surrogate. File names that are not UTF-8 have them, and UTF-8 has none."""
    return text.encode(errors="replace").decode()


def shorten(text: str, max_bytes: int) -> str:
    """The text, encodable, in at most about `max_bytes` of UTF-8. A longer text loses its middle."""
    if len(text) <= max_bytes and len(data := text.encode(errors="replace")) <= max_bytes:
        return data.decode()
    half = max_bytes // 2
    first = text[:half].encode(errors="replace")[:half].decode(errors="ignore")
    last = text[-half:].encode(errors="replace")[-half:].decode(errors="ignore")
    return f"{first}\n... {len(text) - len(first) - len(last)} characters are left out here ...\n{last}"
