"""The key and the chords heard in a prompt, and settings that keep them (`--key keep`).

What is kept is written into the settings as if it had been typed. So recipes hold it, and a song
can be made again even if a later version hears something else. Light: no torch.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from backline.common.errors import UserError
from backline.generation.config import KEEP, GenConfig
from backline.generation.wish import Wish, bars_text
from backline.music.chords import FIRST_VALUE, estimate_chords, progression_text
from backline.music.rows import bars_in
from backline.music.sheet import WINDOW_BARS, key_of
from backline.music.vocab import Vocabulary

CHORD_BARS = 8  # of a continued prompt, the last ones: their chords come again


@dataclasses.dataclass(frozen=True)
class Harmony:
    """Key and chords heard in the bars of a prompt that a wish is about.

    tonic, mode: the key in and around these bars; "" for none.
    chords: as `chords.parse_chords` reads them; "" for none.
    bars: the stretches of bars that have these chords, as `Wish.fill` has them.
    """

    tonic: str
    mode: str
    chords: str
    bars: tuple[int, ...]

    def describe(self) -> str:
        """One line, such as "A minor; bars 1-4: Am F C G"; "" where nothing is heard."""
        key = f"{self.tonic} {self.mode}" if self.tonic else "no key"
        if self.chords:
            return f"{key}; {bars_text(self.bars)}: {self.chords}"
        return key if self.tonic else ""


def harmony_of(prompt: np.ndarray,
               wish: Wish,
               vocabulary: Vocabulary,
               unheard: int = 0,
               n_bars: int = 0) -> Harmony:
    """Key and chords of a prompt, (N, F) rows: of the bars to be made, or of the last ones.

    With --given and --fill, new bars are bars of the prompt; else they come after it.

    `unheard`: bars of the song before the first that the rows hold.
    `n_bars`: how many bars the prompt lasts from there on; 0: as many as the rows hold.
    """
    n_bars = n_bars or bars_in(prompt)
    stretches = [(max(n_bars - CHORD_BARS, 0), n_bars)]  # of bars, from 0, and the bars after them
    if wish.given:
        stretches = [(0, n_bars)]
    if wish.fill:
        stretches = [(first - 1 - unheard, last - unheard) for first, last in wish.stretches]
    first = stretches[0][0]
    end = stretches[-1][1]
    n_more = max(WINDOW_BARS - (end - first), 0)  # a key takes more bars than chords do
    key_first = max(first - n_more, 0)
    key_end = min(max(key_first + WINDOW_BARS, end), n_bars)
    tonic, mode = key_of(prompt, vocabulary, key_first, key_end - 1)
    chords = np.concatenate([estimate_chords(prompt, vocabulary, begin, stop - begin)
                             for begin, stop in stretches])
    has_chords = (chords >= FIRST_VALUE).any()
    text = progression_text(chords) if has_chords else ""
    bars = tuple(unheard + bar for begin, stop in stretches for bar in (begin + 1, stop))
    return Harmony(tonic, mode, text, bars)


def keep_heard(config: GenConfig,
               wish: Wish,
               prompt: np.ndarray,
               vocabulary: Vocabulary,
               unheard: int = 0,
               n_bars: int = 0) -> GenConfig:
    """The settings with what is heard in the prompt, (N, F) rows, wherever they say "keep".

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
    """Raise UserError if settings say "keep" and there is no song."""
    for option, value in (("--chords", config.controls.chords), ("--key", config.rules.key)):
        if value == KEEP and not has_song:
            raise UserError(f"{option} keep: keeps those of a song; give one with -p")
