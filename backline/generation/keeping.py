"""The key and the chords that a prompt is heard to have, and settings that keep to them.

What is kept is written into the settings as if somebody had typed it: so recipes hold it, and a song
can be made again whatever later versions hear. Light: no torch.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from backline.common.errors import UserError
from backline.generation.config import KEEP, GenConfig
from backline.generation.task import Wish
from backline.music.chords import FIRST_VALUE, estimate_chords, progression_text
from backline.music.sheet import WINDOW_BARS, key_of
from backline.music.vocab import BAR, FIRST_ID, Vocabulary

CHORD_BARS = 8  # before what is new: those that come again


@dataclasses.dataclass(frozen=True)
class Harmony:
    """What a prompt is heard to play in the bars that a wish is about.

    tonic, mode: of the key around them, "" for none.
    chords: what `chords.parse_chords` reads, "" for none.
    first_bar, last_bar: those of the chords, from 1.
    """

    tonic: str
    mode: str
    chords: str
    first_bar: int
    last_bar: int

    def describe(self) -> str:
        """One line, such as "A minor; bars 1-4: Am F C G"; "" where nothing is heard."""
        key = f"{self.tonic} {self.mode}" if self.tonic else "no key"
        if self.chords:
            return f"{key}; bars {self.first_bar}-{self.last_bar}: {self.chords}"
        return key if self.tonic else ""


def harmony_of(prompt: np.ndarray,
               wish: Wish,
               vocabulary: Vocabulary,
               unheard: int = 0,
               n_bars: int = 0) -> Harmony:
    """Key and chords of a prompt, (N, F) rows: of the same bars for --given and --fill, else the last.

    `unheard`: bars of the song before the first that the rows know of; `n_bars`: how many it lasts
    from there on, 0 for as many as the rows.
    """
    n_bars = n_bars or int(prompt[-1, BAR]) - FIRST_ID + 1
    first, end = max(n_bars - CHORD_BARS, 0), n_bars  # from 0
    if wish.given:
        first = 0
    if wish.fill:
        first = wish.fill[0] - 1 - unheard
        end = wish.fill[1] - unheard
    n_more = max(WINDOW_BARS - (end - first), 0)  # a key takes more bars than chords do
    key_first = max(first - n_more, 0)
    key_end = min(max(key_first + WINDOW_BARS, end), n_bars)
    tonic, mode = key_of(prompt, vocabulary, key_first, key_end - 1)
    chords = estimate_chords(prompt, vocabulary, first, end - first)
    has_chords = (chords >= FIRST_VALUE).any()
    text = progression_text(chords) if has_chords else ""
    return Harmony(tonic, mode, text, unheard + first + 1, unheard + end)


def keep_heard(config: GenConfig,
               wish: Wish,
               prompt: np.ndarray,
               vocabulary: Vocabulary,
               unheard: int = 0,
               n_bars: int = 0) -> GenConfig:
    """The settings with what the prompt, (N, F) rows, is heard to play wherever they say "keep".

    `unheard`, `n_bars`: see `harmony_of`.

    Raises UserError: there is no prompt, or no such thing is heard in it.
    """
    keeps_chords = config.controls.chords == KEEP
    keeps_key = config.rules.key == KEEP
    if not keeps_chords and not keeps_key:
        return config
    check_keeps(config, bool(len(prompt)))
    harmony = harmony_of(prompt, wish, vocabulary, unheard, n_bars)
    controls, rules = config.controls, config.rules
    if keeps_chords:
        if not harmony.chords:
            raise UserError("--chords keep: no chords are heard in the prompt; name some")
        controls = dataclasses.replace(controls, chords=harmony.chords)
    if keeps_key:
        if not harmony.tonic:
            raise UserError("--key keep: no key is heard in the prompt; name one")
        rules = dataclasses.replace(rules, key=harmony.tonic, scale=harmony.mode)
    return dataclasses.replace(config, controls=controls, rules=rules)


def check_keeps(config: GenConfig, has_song: bool) -> None:
    """Raise UserError if settings keep what no song has."""
    for option, value in (("--chords", config.controls.chords), ("--key", config.rules.key)):
        if value == KEEP and not has_song:
            raise UserError(f"{option} keep: keeps those of a song; give one with -p")
