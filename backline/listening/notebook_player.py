"""Songs to see and hear inside a notebook: a page as page.py writes it, as the output of a cell.

Light: no torch, and nothing of Jupyter's. What a cell shows is one piece of HTML that needs no network and no files.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.generation.task import are_among
from backline.listening.ideas_page import common_data, music_data, page_bytes
from backline.music.song import DEFAULT_TEMPO, TICKS_PER_QUARTER, Song, check_tempo
from backline.music.vocab import PITCH_INSTRUMENT, Vocabulary
from tokenizer import MidiTokenizerPooled

FIRST_HEIGHT, FURTHER_HEIGHT = 540, 140  # CSS pixels of the frame: for a song whole, and for a glimpse of the next


@dataclasses.dataclass(frozen=True)
class Player:
    """What a cell shows if it is its last value. `page` is the page alone, for who wants to keep it as a file."""

    page: bytes = dataclasses.field(repr=False)
    height: int  # of the frame, in CSS pixels

    def _repr_html_(self) -> str:
        # Notebooks would run the page's script among their own, and take its style for theirs: hence a frame. Its
        # sandbox lets scripts run and nothing else, so they reach neither the notebook around it nor its kernel.
        return (f'<iframe srcdoc="{html.escape(self.page.decode())}" sandbox="allow-scripts" title="Player" '
                f'style="width: 100%; height: {self.height}px; border: 0"></iframe>')


def player(songs: Mapping[str, Any], vocabulary: Vocabulary, tempo: float = DEFAULT_TEMPO,
           kept: np.ndarray | None = None) -> Player:
    """Songs as cards with piano rolls, and one player for all of them.

    Args:
        songs: for each title, token ids as a list, array or tensor; special rows are left out.
        tempo: beats per minute.
        kept: (M, F) note ids; where songs have them they are pale, because they were there before.
    Raises:
        UserError: no songs, a tempo that MIDI cannot hold, or ids outside the vocabulary.
    """
    if not songs:
        raise UserError("player: no songs to show; give a title and token ids for each")
    check_tempo(tempo, "player")
    tokenizer = MidiTokenizerPooled(vocabulary)
    ideas = []
    for title, ids in songs.items():
        rows = tokenizer.ids_to_rows(ids, title)
        old = np.zeros(len(rows), bool) if kept is None else are_among(rows, kept)
        part = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
        ideas.append({"title": title, "fresh": None,
                      **music_data(Song(TICKS_PER_QUARTER, (), ((0, tempo),)),
                                   tokenizer.rows_to_parts(rows, TICKS_PER_QUARTER),
                                   [old[part == p] for p in range(len(vocabulary.parts))])})
    page = page_bytes(common_data("Songs", "", vocabulary) | {"ideas": ideas, "plain": True})
    return Player(page, FIRST_HEIGHT + FURTHER_HEIGHT * (len(ideas) > 1))
