"""Names that MIDI files give their tracks, as text that a terminal can show."""

from __future__ import annotations

KANA = ("\u3040", "\u30ff")  # from the first hiragana to the last katakana
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def decoded_name(data: bytes) -> str:
    """The text of a name, which MIDI gives no encoding: UTF-8 or 16, Shift-JIS or Latin-1."""
    if data.startswith(BYTE_ORDER_MARKS):
        return printable(data.decode("utf-16", "replace"))
    try:
        return printable(data.decode())
    except UnicodeDecodeError:
        return printable(_japanese(data) or data.decode("latin-1"))


def _japanese(data: bytes) -> str:
    """Text in Shift-JIS; nothing if it holds no kana, as accents of Latin-1 may pass for kanji."""
    text = data.decode("cp932", "ignore")
    is_japanese = any(KANA[0] <= letter <= KANA[1] for letter in text)
    return text if is_japanese else ""


def printable(text: str) -> str:
    """Text on one line, without characters that would move a terminal's cursor or change its colours.

    Old sequencers fill up names with zeros, and a name is anybody's: it may hold whole escapes.
    """
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())
