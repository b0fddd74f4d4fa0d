"""Is a song worth learning from? Measures of its parts, and the limits that `clean_midi.py` holds them to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from backline.common.errors import UserError
from backline.music.choices import DROP, Choices
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

TRIPLETS_PER_BAR = 48  # sixteenth triplets; together with the vocabulary's own grid all that sheet music uses
STEP_SHARE = 12  # an onset counts as on the grid up to this part of a step away from it


@dataclasses.dataclass(frozen=True)
class Cleaning(Choices):
    """What `clean_midi.py` keeps: `Choices`, and a limit for each measure. `null` in the JSON turns a limit off."""

    ranges: str = DROP
    allow_missing: bool = False  # keep songs that lack some of the parts
    min_onsets_on_grid: float | None = 0.6
    min_bars: int | None = 4
    min_notes_per_part: int | None = 4
    max_empty_bars: float | None = 0.25
    max_same_drum: float | None = 0.95
    min_sounding_bars: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_onsets_on_grid", "max_empty_bars", "max_same_drum", "min_sounding_bars"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} must be a share from 0 to 1, or null, not {value}")
        for name in ("min_bars", "min_notes_per_part"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"{name} must be 0 or more, or null, not {value}")


def measure(parts: Sequence[np.ndarray], ticks_per_quarter: int, vocabulary: Vocabulary) -> dict[str, float | int]:
    """The measures of a song with at least one note, from the (N, 3) onsets, ends and pitches of each part.

    bars: from the song's first note to its last.
    onsets_on_grid: share of onsets on the vocabulary's grid or on sixteenth triplets, give or take 1/STEP_SHARE of a
    step of the former; of a performance that was never quantized, about a third.
    notes_per_part: of the part that has fewest, of those that play.
    empty_bars: share of the bars in which nothing begins.
    same_drum: share of the drum notes that are the most frequent one.
    sounding_bars: share of the bars in which the melodic part that plays least begins a note.
    """
    bar_ticks = QUARTERS_PER_BAR * ticks_per_quarter
    playing = [(part, notes) for part, notes in zip(vocabulary.parts, parts, strict=True) if len(notes)]
    onsets = np.concatenate([notes[:, 0] for _, notes in playing])
    first_bar, last_bar = onsets.min() // bar_ticks, onsets.max() // bar_ticks
    n_bars = int(last_bar - first_bar) + 1
    tolerance = STEP_SHARE * vocabulary.steps_per_bar
    on_grid = (_is_on_grid(onsets, bar_ticks, vocabulary.steps_per_bar, tolerance)
               | _is_on_grid(onsets, bar_ticks, TRIPLETS_PER_BAR, tolerance))
    begun = {part.name: len(np.unique(notes[:, 0] // bar_ticks)) for part, notes in playing}
    drums = [np.bincount(notes[:, 2]) for part, notes in playing if part.is_drum]
    same = max((int(counts.max()) / int(counts.sum()) for counts in drums), default=0.0)
    melodic = [begun[part.name] for part, _ in playing if not part.is_drum]
    return {"bars": n_bars,
            "onsets_on_grid": round(float(on_grid.mean()), 4),
            "notes_per_part": min(len(notes) for _, notes in playing),
            "empty_bars": round(1 - len(np.unique(onsets // bar_ticks)) / n_bars, 4),
            "same_drum": round(same, 4),
            "sounding_bars": round(min(melodic) / n_bars, 4) if melodic else 1.0}


def _is_on_grid(onsets: np.ndarray, bar_ticks: int, steps: int, tolerance: int) -> np.ndarray:
    """(N,) bool: whether each onset is within 1/`tolerance` of a bar, or half a tick, of a grid of `steps` per bar."""
    off = onsets * steps % bar_ticks  # in 1/steps of a tick
    off = np.minimum(off, bar_ticks - off)
    return off <= max(steps // 2, bar_ticks * steps // tolerance)


def check_quality(measures: dict[str, float | int], limits: Cleaning, where: str) -> None:
    """Raise UserError naming the first measure that is outside its limit."""
    texts = {"min_onsets_on_grid": "too few onsets on the grid", "min_bars": "too few bars",
             "min_notes_per_part": "too few notes in a part", "max_empty_bars": "too many empty bars",
             "max_same_drum": "drums are one repeated hit", "min_sounding_bars": "a part is silent most of the time"}
    for name, text in texts.items():
        limit, value = getattr(limits, name), measures[name[4:]]
        if limit is not None and (value < limit if name.startswith("min_") else value > limit):
            raise UserError(f"{where}: {text} ({value:g}, {name} is {limit:g}); set {name} in --config to keep it")
