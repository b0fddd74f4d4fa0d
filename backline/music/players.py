"""Who plays what in a song that this program wrote around a given one, as the song itself says.

What a person said, or the name of the given file, is nowhere else in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PLAYERS_FORMAT = "backline-players"
PLAYERS_BEGINNING = f'{{"format":"{PLAYERS_FORMAT}"'.encode()  # of the text event


class Voice(NamedTuple):
    """What plays notes in a file: one channel of one of its tracks, both counted from 0."""

    track: int
    channel: int


def players_text(players: Mapping[str, Sequence[Voice]], n_tracks: int) -> bytes:
    """The text event of a song of `n_tracks` tracks that says which voices play each part."""
    data = {"format": PLAYERS_FORMAT, "version": 1, "tracks": n_tracks, "players": players}
    return json.dumps(data, separators=(",", ":")).encode()


def read_players(texts: Sequence[bytes], n_tracks: int) -> dict[str, list[Voice]]:
    """What the first of some texts that is of `players_text` says.

    Nothing where none is, or where the file has other tracks than it had when it was written.
    """
    found = [text for text in texts if text.startswith(PLAYERS_BEGINNING)]
    try:
        data = json.loads(found[0])
        if data["tracks"] != n_tracks:
            return {}
        return {str(name): [Voice(int(track), int(channel)) for track, channel in voices]
                for name, voices in data["players"].items()}
    except (IndexError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
