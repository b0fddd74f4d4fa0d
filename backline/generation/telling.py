"""What a model with controls is told to play, for every bar and half bar that a song can have. Light: no torch.

From scratch, what is not said is drawn, whole, from the sheets of the songs that the model was trained on. What a
prompt plays is estimated from its last bars; what is to be made beside it is unknown unless it is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from backline.common.errors import UserError
from backline.generation.config import GenConfig
from backline.generation.task import Task, parts_of, told_chords
from backline.music.chords import (
    CHORD_FIELDS,
    FIRST_VALUE,
    HALVES_PER_BAR,
    NONE,
    UNKNOWN,
    Progression,
    chord_name,
    chord_pitch_classes,
    estimate_chords,
    parse_chords,
)
from backline.music.controls import bars_left, fields
from backline.music.sheet import (
    DENSITY,
    MODES,
    N_PART_FIELDS,
    PLAYS,
    WINDOW_BARS,
    describe_sheet,
    key_column,
    parse_density,
    sheet_of,
)
from backline.music.sheet_table import SheetTable
from backline.music.theory import SCALES, pitch_class, scale_pitch_classes
from backline.music.vocab import BAR, FIRST_ID, Vocabulary

FAR = 255  # bars left where no end is in sight
MINOR_THIRD = 3


@dataclasses.dataclass(frozen=True)
class Told:
    """Ids of controls; see `controls.fields` for their order."""

    by_bar: np.ndarray  # (bars, S + 1) uint8: the sheet and how many bars are left, read with the notes of a bar
    by_half_bar: np.ndarray  # (2 * bars, 3) uint8: the chord, which counts once a note's time is chosen

    def chord_at(self, bar: int, start_pos: int, vocabulary: Vocabulary) -> np.ndarray:
        """(3,) ids of the chord at a time, given as ids; unknown for special ids."""
        if bar < FIRST_ID or start_pos < FIRST_ID:
            return np.full(len(CHORD_FIELDS), UNKNOWN, np.uint8)
        half = (start_pos - FIRST_ID) * HALVES_PER_BAR // vocabulary.steps_per_bar
        return self.by_half_bar[(bar - FIRST_ID) * HALVES_PER_BAR + half]


def nothing_told(vocabulary: Vocabulary) -> Told:
    """All controls unknown."""
    n_read = len(fields(vocabulary)) - len(CHORD_FIELDS)
    by_bar = np.full((vocabulary.bars, n_read), UNKNOWN, np.uint8)
    return Told(by_bar, np.full((HALVES_PER_BAR * vocabulary.bars, len(CHORD_FIELDS)), UNKNOWN, np.uint8))


def tell(task: Task, config: GenConfig, table: SheetTable, seed: int) -> Told:
    """What a song of `task` is told; `seed` draws what is not said.

    Raises UserError if the controls name what the vocabulary has not.
    """
    vocabulary = task.rules.vocabulary
    told = nothing_told(vocabulary)
    controls = config.controls
    from_scratch = not len(task.prompt) and not len(task.given)
    if from_scratch and not controls.draw and not controls.told and not config.rules.key:
        return told
    end_bar = task.rules.last_bar_id - FIRST_ID + 1
    density = parse_density(", ".join(f"{part}={level}" for part, level in controls.density.items()),
                            vocabulary) if controls.density else {}
    if from_scratch:
        playing = task.made if config.all_parts else tuple(density)
        sheet = told.by_bar[0, :-1]
        if controls.draw:
            sheet = _drawn(playing, density, table, vocabulary, np.random.default_rng(seed))
        sheet = sheet.copy()
        if controls.chords:
            sheet[key_column(vocabulary)] = UNKNOWN  # that of another song
    else:
        sheet = _estimated(task, table)
    for p, name in enumerate(vocabulary.part_names):
        of_part = sheet[p * N_PART_FIELDS:(p + 1) * N_PART_FIELDS]
        if name in task.silent:
            of_part[:] = NONE
        if name in density:
            of_part[PLAYS] = FIRST_VALUE
            of_part[DENSITY] = FIRST_VALUE + density[name] - 1
    if config.rules.key:
        is_minor = MINOR_THIRD in SCALES[config.rules.scale]
        sheet[key_column(vocabulary)] = FIRST_VALUE + pitch_class(config.rules.key) * len(MODES) + is_minor
    told.by_bar[:, :-1] = sheet
    told.by_bar[:, -1] = bars_left(np.maximum(end_bar - 1 - np.arange(vocabulary.bars), 0) if task.ends
                                   else np.full(vocabulary.bars, FAR))
    if len(task.given):
        chords = estimate_chords(task.given, vocabulary, 0, end_bar)
        told.by_half_bar[:len(chords)] = np.where(chords == NONE, UNKNOWN, chords)
    chords = told_chords(config, task.first_bar, end_bar)
    if chords is not None:
        said = chords[:, 0] != UNKNOWN
        told.by_half_bar[:len(chords)][said] = chords[said]
    return told


def _drawn(playing: Sequence[str], density: dict[str, int], table: SheetTable, vocabulary: Vocabulary,
           random: np.random.Generator) -> np.ndarray:
    """(S,) the sheet of a song in which some parts are `playing`, as nearly as dense as is said as there is."""
    sheets = table.sheets
    columns = {name: p * N_PART_FIELDS for p, name in enumerate(vocabulary.part_names)}
    play = (sheets[:, [columns[name] + PLAYS for name in playing]] == FIRST_VALUE).all(1)
    sheets = sheets[play] if play.any() else sheets
    wanted = np.array([FIRST_VALUE + level - 1 for level in density.values()])
    found = sheets[:, [columns[name] + DENSITY for name in density]].astype(int)
    distance = np.abs(found - wanted).sum(1)
    return sheets[random.choice(np.flatnonzero(distance == distance.min()))]


def _estimated(task: Task, table: SheetTable) -> np.ndarray:
    """(S,) the sheet of the last bars of what is known; parts that it lacks are unknown."""
    vocabulary = task.rules.vocabulary
    known = np.concatenate([task.prompt, task.given])
    last = int(known[:, BAR].max()) - FIRST_ID
    if len(task.prompt) and len(task.given):  # bars in the middle
        last = min(last, task.first_bar + WINDOW_BARS // 2)
    sheet = sheet_of(known, vocabulary, table.levels, max(last - WINDOW_BARS + 1, 0), last)
    present = parts_of(known, vocabulary)
    for p, name in enumerate(vocabulary.part_names):
        if name not in present or (name in task.made and not len(task.prompt)):
            sheet[p * N_PART_FIELDS:(p + 1) * N_PART_FIELDS] = UNKNOWN
    return sheet


def check_controls(config: GenConfig, task: Task) -> list[str]:
    """Lines that people should read about the controls they asked for; raises UserError about what cannot be."""
    vocabulary = task.rules.vocabulary
    controls = config.controls
    if controls.density:
        text = ", ".join(f"{part}={level}" for part, level in controls.density.items())
        for name in parse_density(text, vocabulary):
            if name not in task.made:
                raise UserError(f"a density for {name}, which is not made; leave it out, or make {name} too")
    lines = []
    if controls.chords:
        progression = parse_chords(controls.chords)
        lines += progression.notices
        if config.rules.key:
            lines += _outside(progression, config.rules.key, config.rules.scale)
        if all(part.is_drum for part in vocabulary.parts if part.name in task.made):
            raise UserError("--chords: are for all parts but drums, and no other is made; leave them out")
    return lines


def _outside(progression: Progression, key: str, scale: str) -> list[str]:
    """A line about each chord of a progression that has notes outside a key."""
    inside = scale_pitch_classes(key, scale)
    chords = dict(zip(map(chord_name, progression.chords), progression.chords, strict=True))
    return [f"{name} has notes outside {key} {scale}; they are allowed while it sounds"
            for name, chord in chords.items() if not chord_pitch_classes(chord) <= inside]


def describe_told(told: Told, task: Task) -> str:
    """What was drawn or said of the parts that are made and the key, in words; "" if nothing."""
    vocabulary = task.rules.vocabulary
    sheet = told.by_bar[task.first_bar].copy()
    for p, name in enumerate(vocabulary.part_names):
        if name not in task.made:
            sheet[p * N_PART_FIELDS:(p + 1) * N_PART_FIELDS] = UNKNOWN
    said = describe_sheet(sheet, vocabulary)
    return "" if said == "nothing said" else said
