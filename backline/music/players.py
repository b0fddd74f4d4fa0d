"""Who plays what, as a text event in songs that this program wrote around a given one.

Nothing else in such a song tells what a person said, or how the given file was named.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

PLAYERS_FORMAT = "backline-players"
PLAYERS_BEGINNING = f'{{"format":"{PLAYERS_FORMAT}"'.encode()  # of the text event


class Voice(NamedTuple):
    """One channel of one track of a file, both counted from 0."""

    track: int
    channel: int


def players_text(players: Mapping[str, Sequence[Voice]], n_tracks: int) -> bytes:
    """The text event of a song of `n_tracks` tracks that says which voices play each part."""
    data = {"format": PLAYERS_FORMAT, "version": 1, "tracks": n_tracks, "players": players}
    return json.dumps(data, separators=(",", ":")).encode()


def read_players(texts: Sequence[bytes],
                 playing: Sequence[Collection[int]]) -> dict[str, list[Voice]]:
    """The voices of each part, from the first of some texts that `players_text` wrote.

    Empty if there is none, if the file no longer has the number of tracks it was written with, or if
    the channels show that its tracks changed places.

    `playing`: the channels that each track of the file plays on.
    """
    found = [text for text in texts if text.startswith(PLAYERS_BEGINNING)]
    try:
        data = json.loads(found[0])
        if data["tracks"] != len(playing):
            return {}
        players = {str(name): [Voice(int(track), int(channel)) for track, channel in voices]
                   for name, voices in data["players"].items()}
        are_there = all(_is_there(voice, playing)
                        for voices in players.values()
                        for voice in voices)
        return players if are_there else {}
    except (IndexError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_there(voice: Voice, playing: Sequence[Collection[int]]) -> bool:
    """Whether a voice plays in the file, or may have: its track has no notes left.

    Raises IndexError for a track that the file lacks.
    """
    channels = playing[voice.track]
    return not channels or voice.channel in channels
