"""Songs to see and hear inside a notebook: a page as page.py writes it, as the output of a cell.

Imports neither torch nor Jupyter. A cell shows one piece of HTML that needs neither network nor
files.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.listening.harmony import heard_harmony
from backline.listening.ideas_page import OTHERS, common_data, music_data, page_bytes
from backline.listening.song_view import SongView, new_stretch, view_of_notes, view_song
from backline.music.rows import are_among
from backline.music.song import DEFAULT_TEMPO, TICKS_PER_QUARTER, Song, check_tempo
from backline.music.vocab import PITCH_INSTRUMENT, Vocabulary
from tokenizer import MidiTokenizerPooled

# CSS pixels of the frame: for one song whole, and for a glimpse of the next.
FIRST_HEIGHT, FURTHER_HEIGHT = 540, 140


@dataclasses.dataclass(frozen=True)
class Player:
    """What a cell shows if it is the cell's last value."""

    page: bytes = dataclasses.field(repr=False)  # a whole HTML page, to keep as a file
    height: int  # of the frame, in CSS pixels

    def _repr_html_(self) -> str:
        # A frame, because a notebook would run the page's script among its own and mix the styles.
        # The sandbox lets scripts run and nothing else: they reach neither notebook nor kernel.
        page = html.escape(self.page.decode())
        return (f'<iframe srcdoc="{page}" sandbox="allow-scripts" title="Player" '
                f'style="width: 100%; height: {self.height}px; border: 0"></iframe>')


def player(songs: Mapping[str, Any],
           vocabulary: Vocabulary,
           tempo: float = DEFAULT_TEMPO,
           kept: np.ndarray | None = None) -> Player:
    """Songs as cards with piano rolls, and one player for all of them.

    Args:
        songs: for each title, token ids as a list, array or tensor, whose special rows are ignored;
            or the path of a MIDI file, which is shown and played as it is.
        tempo: beats per minute of token ids.
        kept: (M, F) note ids that were there before; songs show them pale. Of a MIDI file of
            generate.py its recipe tells.
    Raises:
        UserError: no songs, a file that cannot be read, a tempo that MIDI cannot hold, or ids
            outside the vocabulary.
    """
    if not songs:
        raise UserError("player: no songs to show; give a title and token ids for each")
    check_tempo(tempo, "player")
    ideas = []
    for title, song in songs.items():
        if isinstance(song, Path):
            view, _ = view_song(song, vocabulary)
        else:
            view = _view_of_ids(title, song, vocabulary, tempo, kept)
        ideas.append({
            "title": title,
            **music_data(view, len(vocabulary.parts)),
            **heard_harmony(view, vocabulary)._asdict(),
        })
    data = common_data("Songs", "", vocabulary)
    if any(idea["others"] for idea in ideas):
        data["parts"].append({"name": OTHERS, "other": True})
    page = page_bytes(data | {"ideas": ideas, "plain": True})
    return Player(page, FIRST_HEIGHT + FURTHER_HEIGHT * (len(ideas) > 1))


def _view_of_ids(title: str,
                 ids: Any,
                 vocabulary: Vocabulary,
                 tempo: float,
                 kept: np.ndarray | None) -> SongView:
    """The view of token ids; see `player`."""
    tokenizer = MidiTokenizerPooled(vocabulary)
    rows = tokenizer.ids_to_rows(ids, title)             # (N, F)
    is_old = np.zeros(len(rows), bool) if kept is None else are_among(rows, kept)
    part_of_note = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    old = [is_old[part_of_note == p] for p in range(len(vocabulary.parts))]
    notes = tokenizer.rows_to_parts(rows, TICKS_PER_QUARTER)
    time_line = Song(TICKS_PER_QUARTER, (), ((0, tempo),))
    view = view_of_notes(time_line, notes, old, vocabulary)
    return dataclasses.replace(view, fresh=new_stretch(view))
