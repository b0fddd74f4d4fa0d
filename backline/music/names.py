"""The names that MIDI files give their tracks, as text that is safe on a terminal."""

from __future__ import annotations

KANA = ("\u3040", "\u30ff")  # from the first hiragana to the last katakana
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def decoded_name(data: bytes) -> str:
    """The text of a name. MIDI names no encoding: UTF-8, UTF-16, Shift-JIS and Latin-1 are tried."""
    if data.startswith(BYTE_ORDER_MARKS):
        return printable(data.decode("utf-16", "replace"))
    try:
        return printable(data.decode())
    except UnicodeDecodeError:
        return printable(_japanese(data) or data.decode("latin-1"))


def _japanese(data: bytes) -> str:
    """Text in Shift-JIS; "" if it holds no kana, since accents in Latin-1 look like kanji."""
    text = data.decode("cp932", "ignore")
    is_japanese = any(KANA[0] <= letter <= KANA[1] for letter in text)
    return text if is_japanese else ""


def printable(text: str) -> str:
    """Text on one line, without characters that move a terminal's cursor or change its colours.

    Old sequencers pad names with zeros. A name may also hold whole escape sequences.
    """
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())
