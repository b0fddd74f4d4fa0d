"""What a model with controls is told to play, for every bar and half bar of a song.

From scratch, what nobody asks for is drawn: the whole sheet of a song that the model was trained
on. After a prompt it is estimated from the last bars. Beside given parts it is drawn, too: from
songs whose other parts play much like the given ones.

Light: no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.generation.config import GenConfig
from backline.generation.task import Task, told_chords
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
from backline.music.rows import parts_of
from backline.music.sheet import (
    MODES,
    N_PART_FIELDS,
    PART_CONTROLS,
    PLAYS,
    RESTS,
    WINDOW_BARS,
    describe_sheet,
    key_column,
    key_name,
    part_levels,
    sheet_of,
)
from backline.music.sheet_table import SheetTable
from backline.music.theory import MINOR_THIRD, OCTAVE, SCALES, pitch_class, scale_pitch_classes
from backline.music.vocab import BAR, FIRST_ID, Vocabulary

FAR = 255  # bars left where no end is in sight
MOST_CHORDS_NAMED = 6  # in one line
SILENCING = 30.0  # nats; finite, so that something is left where nothing else may be made
N_ALIKE = 20  # songs that a made part may be told to play like
RESTS_SELDOM, RESTS_MOSTLY = (FIRST_VALUE - 1 + PART_CONTROLS["rests"].words[word]  # ids
                              for word in ("sometimes", "mostly"))


@dataclasses.dataclass(frozen=True)
class Told:
    """Ids of controls; see `controls.fields` for their order."""

    by_bar: np.ndarray  # (bars, S + 1) uint8: sheet and bars left, read with the bar's notes
    by_half_bar: np.ndarray  # (2 * bars, 3) uint8: the chord, used once a note's time is chosen
    key_pull: float = 1.0  # how many times less likely pitches outside the key are made
    keeps_line_up: bool = False  # parts that are told to be silent are

    def pull(self, vocabulary: Vocabulary) -> np.ndarray | None:
        """(V,) what is added to the logits of pitches; None for nothing.

        It is less than 0 outside the key, and far less for parts that are to be silent. Both are those
        of the first bar: what is drawn for a song has one key and one line-up for all of them.
        """
        of_key = self._pull_of_key(vocabulary)
        of_line_up = self._pull_of_line_up(vocabulary)
        if of_key is None or of_line_up is None:
            return of_line_up if of_key is None else of_key
        return of_key + of_line_up

    def _pull_of_line_up(self, vocabulary: Vocabulary) -> np.ndarray | None:
        if not self.keeps_line_up:
            return None
        plays = self.by_bar[0, PLAYS:key_column(vocabulary):N_PART_FIELDS]
        is_silent = np.append(plays == NONE, False)[vocabulary.part_of_id]  # −1: of no part
        return np.where(is_silent, -SILENCING, 0.0)

    def _pull_of_key(self, vocabulary: Vocabulary) -> np.ndarray | None:
        tonic, mode = key_name(int(self.by_bar[0, key_column(vocabulary)]))
        if not tonic or self.key_pull == 1:
            return None
        is_melodic = np.append(~vocabulary.is_drum, False)[vocabulary.part_of_id]  # −1: of no part
        inside = np.isin(vocabulary.pitch_of_id % OCTAVE, list(scale_pitch_classes(tonic, mode)))
        return np.where(is_melodic & ~inside, -math.log(self.key_pull), 0.0)

    def chord_at(self,
                 bar: int,
                 start_pos: int,
                 vocabulary: Vocabulary) -> np.ndarray:
        """(3,) ids of the chord at a time, given as ids; unknown for special ids."""
        if bar < FIRST_ID or start_pos < FIRST_ID:
            return np.full(len(CHORD_FIELDS), UNKNOWN, np.uint8)
        half = (start_pos - FIRST_ID) * HALVES_PER_BAR // vocabulary.steps_per_bar
        return self.by_half_bar[(bar - FIRST_ID) * HALVES_PER_BAR + half]


def nothing_told(vocabulary: Vocabulary) -> Told:
    """All controls unknown."""
    n_read = len(fields(vocabulary)) - len(CHORD_FIELDS)
    n_halves = HALVES_PER_BAR * vocabulary.bars
    by_bar = np.full((vocabulary.bars, n_read), UNKNOWN, np.uint8)
    by_half_bar = np.full((n_halves, len(CHORD_FIELDS)), UNKNOWN, np.uint8)
    return Told(by_bar, by_half_bar)


def tell(task: Task,
         config: GenConfig,
         table: SheetTable,
         seed: int) -> Told:
    """What a song of `task` is told; `seed` draws what nobody asks for.

    Raises UserError if the controls name a part or a level that does not exist.
    """
    vocabulary = task.rules.vocabulary
    controls = config.controls
    told = nothing_told(vocabulary)
    from_scratch = not len(task.kept)
    if from_scratch and not controls.draw and not controls.told and not config.rules.key:
        return told
    asked = _asked_of_parts(config, vocabulary)
    if not from_scratch:
        sheet = _estimated(task, table)
        if config.tell_made and controls.draw and task.beside:
            _draw_made(sheet, task, table, np.random.default_rng(seed))
    elif controls.draw:
        sheets = _with_line_up(table.sheets, task, config, asked)
        sheet = _nearest_to(asked, sheets, vocabulary, np.random.default_rng(seed))
    else:
        sheet = told.by_bar[0, :-1].copy()
    if from_scratch and controls.chords:
        sheet[key_column(vocabulary)] = UNKNOWN  # that of another song
    _say_parts(sheet, task, asked)
    if config.rules.key:
        sheet[key_column(vocabulary)] = _key_id(config)
    told.by_bar[:, :-1] = sheet
    told.by_bar[:, -1] = bars_left(_bars_to_end(task))
    _say_chords(told.by_half_bar, task, config)
    if from_scratch:
        keeps_line_up = controls.draw and _draws_line_up(task, config)
        return dataclasses.replace(told, key_pull=config.key_pull, keeps_line_up=keeps_line_up)
    return told


class WantedLevel(NamedTuple):
    """A level that somebody asks for."""

    control: str  # of PART_CONTROLS
    part: str
    columns: tuple[int, ...]  # of the part, that hold the level
    level: int  # as an id


def _asked_of_parts(config: GenConfig, vocabulary: Vocabulary) -> list[WantedLevel]:
    """The levels asked for. Raises UserError about parts and levels that do not exist."""
    return [WantedLevel(control, part, PART_CONTROLS[control].columns, FIRST_VALUE + level - 1)
            for control, typed in config.controls.levels.items()
            for part, level in part_levels(control, typed, vocabulary).items()]


def _columns(part: int) -> slice:
    """The columns of a part in a sheet."""
    return slice(part * N_PART_FIELDS, (part + 1) * N_PART_FIELDS)


def _draws_line_up(task: Task, config: GenConfig) -> bool:
    """Whether a song from scratch is to have the parts of some real song, and not all that are made."""
    return config.all_parts and config.fewest_parts > 0 and not task.needs_all


def _with_line_up(sheets: np.ndarray,
                  task: Task,
                  config: GenConfig,
                  asked: Sequence[WantedLevel]) -> np.ndarray:
    """The sheets (n, S) of songs with the parts that a song from scratch is to have."""
    vocabulary = task.rules.vocabulary
    draws_line_up = _draws_line_up(task, config)
    if config.all_parts and not draws_line_up:
        return _in_which_play(task.made, sheets, vocabulary)
    sheets = _in_which_play([each.part for each in asked], sheets, vocabulary)
    if not draws_line_up:
        return sheets
    n_playing = (sheets[:, PLAYS:key_column(vocabulary):N_PART_FIELDS] == FIRST_VALUE).sum(1)
    return sheets[n_playing >= min(config.fewest_parts, n_playing.max())]


def _in_which_play(parts: Sequence[str], sheets: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The sheets (n, S) of songs in which all of some parts play; if there are none, all."""
    columns = [vocabulary.part_names.index(name) * N_PART_FIELDS + PLAYS for name in parts]
    plays = sheets[:, columns] == FIRST_VALUE
    all_play = plays.all(1)
    return sheets[all_play] if all_play.any() else sheets


def _nearest_to(asked: Sequence[WantedLevel],
                sheets: np.ndarray,
                vocabulary: Vocabulary,
                random: np.random.Generator) -> np.ndarray:
    """(S,) one of the sheets (n, S) that are as close to what is asked as any."""
    first_columns = {name: p * N_PART_FIELDS
                     for p, name in enumerate(vocabulary.part_names)}
    columns = [first_columns[each.part] + column for each in asked for column in each.columns]
    wanted = np.array([each.level for each in asked for _ in each.columns])
    found = sheets[:, columns].astype(int)
    distance = np.abs(found - wanted).sum(1)
    nearest = np.flatnonzero(distance == distance.min())
    drawn = random.choice(nearest)
    return sheets[drawn].copy()


def _draw_made(sheet: np.ndarray,
               task: Task,
               table: SheetTable,
               random: np.random.Generator) -> None:
    """Write into a sheet (S,) how the made parts play: as in songs with others like the given ones.

    One part after another plays as in one of the N_ALIKE songs that are most like what is known by
    then, of those in which it plays and, if any, rests seldom. If it plays in no song, it stays unknown.
    """
    vocabulary = task.rules.vocabulary
    is_known = sheet != UNKNOWN
    is_known[key_column(vocabulary)] = False
    for name in task.made:
        columns = _columns(vocabulary.part_names.index(name))
        sheets = table.sheets[table.sheets[:, columns.start + PLAYS] == FIRST_VALUE]
        rests_seldom = sheets[:, columns.start + RESTS] <= RESTS_SELDOM
        if rests_seldom.any():
            sheets = sheets[rests_seldom]
        if not len(sheets):
            continue
        distance = np.abs(sheets[:, is_known].astype(int) - sheet[is_known]).sum(1)
        nearest = np.argsort(distance, kind="stable")[:N_ALIKE]
        sheet[columns] = sheets[random.choice(nearest), columns]
        is_known[columns] = True


def _estimated(task: Task, table: SheetTable) -> np.ndarray:
    """(S,) the sheet of the last known bars; parts that are silent there are unknown."""
    vocabulary = task.rules.vocabulary
    known = task.kept
    last = int(known[:, BAR].max()) - FIRST_ID
    if len(task.prompt) and len(task.given):  # bars in the middle
        last = min(last, task.first_bar + WINDOW_BARS // 2)
    first = max(last - WINDOW_BARS + 1, 0)
    sheet = sheet_of(known, vocabulary, table.levels, first, last)
    present = parts_of(known, vocabulary)
    for p, name in enumerate(vocabulary.part_names):
        made_beside = name in task.made and not len(task.prompt)
        if name not in present or made_beside:
            sheet[_columns(p)] = UNKNOWN
    return sheet


def _say_parts(sheet: np.ndarray, task: Task, asked: Sequence[WantedLevel]) -> None:
    """Write into a sheet (S,) which parts are silent, and the levels asked of the others."""
    names = task.rules.vocabulary.part_names
    for name in task.silent:
        sheet[_columns(names.index(name))] = NONE
    for each in asked:
        part_fields = sheet[_columns(names.index(each.part))]  # a view
        part_fields[[PLAYS, *each.columns]] = [FIRST_VALUE] + [each.level] * len(each.columns)


def _key_id(config: GenConfig) -> int:
    """The id of the key that the rules ask for."""
    tonic = pitch_class(config.rules.key)
    is_minor = MINOR_THIRD in SCALES[config.rules.scale]
    return FIRST_VALUE + tonic * len(MODES) + is_minor


def _end_bar(task: Task) -> int:
    """The bar after the last that is made, from 0."""
    return task.rules.last_bar_id - FIRST_ID + 1


def _bars_to_end(task: Task) -> np.ndarray:
    """(bars,) how many bars are left after each; FAR if the song is not to end."""
    n_bars = task.rules.vocabulary.bars
    if not task.ends:
        return np.full(n_bars, FAR)
    last_bar = _end_bar(task) - 1
    n_left = last_bar - np.arange(n_bars)
    return np.maximum(n_left, 0)


def _say_chords(by_half_bar: np.ndarray, task: Task, config: GenConfig) -> None:
    """Write chords into (2 * bars, 3): those asked for, else those of given notes."""
    if len(task.given):
        heard = estimate_chords(task.given, task.rules.vocabulary, 0, _end_bar(task))
        told = np.where(heard == NONE, UNKNOWN, heard)
        by_half_bar[:len(heard)] = told
    asked = told_chords(config, task.first_bar, _end_bar(task), task.rules.kept_bars)
    if asked is not None:
        is_asked = asked[:, 0] != UNKNOWN
        by_half_bar[:len(asked)][is_asked] = asked[is_asked]


def check_controls(config: GenConfig, task: Task) -> list[str]:
    """Notices about the controls asked for. Raises UserError if they cannot be followed."""
    vocabulary = task.rules.vocabulary
    controls = config.controls
    for each in _asked_of_parts(config, vocabulary):
        if each.part not in task.made:
            article = "a " if each.control == "density" else ""
            raise UserError(f"{article}{each.control} for {each.part}, which is not made; "
                            f"leave it out, or make {each.part} too")
    lines: list[str] = []
    if controls.chords:
        progression = parse_chords(controls.chords)
        lines += progression.notices
        if config.rules.key:
            lines += _outside(progression, config.rules.key, config.rules.scale)
        made = [part for part in vocabulary.parts if part.name in task.made]
        if all(part.is_drum for part in made):
            raise UserError("--chords: are for all parts but drums, and no other is made; "
                            "leave them out")
    return lines


def _outside(progression: Progression, key: str, scale: str) -> list[str]:
    """A line about the chords of a progression that have notes outside a key, if any has."""
    in_key = scale_pitch_classes(key, scale)
    outside = [chord
               for chord in progression.chords
               if not chord_pitch_classes(chord) <= in_key]
    names = list(dict.fromkeys(map(chord_name, outside)))
    if not names:
        return []
    if len(names) == 1:
        return [f"{names[0]} has notes outside {key} {scale}; they are allowed while it sounds"]
    if len(names) > MOST_CHORDS_NAMED:
        names[MOST_CHORDS_NAMED:] = [f"{len(names) - MOST_CHORDS_NAMED} more"]
    *first, last = names
    return [f"{', '.join(first)} and {last} have notes outside {key} {scale}; they are allowed "
            f"while each sounds"]


def told_to_play(told: Told, task: Task) -> tuple[str, ...]:
    """Made parts that are told to play, and to rest in no more than half of the bars."""
    sheet = told.by_bar[task.first_bar]
    names = task.rules.vocabulary.part_names
    columns = {name: sheet[_columns(names.index(name))] for name in task.made}
    return tuple(name
                 for name, of_part in columns.items()
                 if of_part[PLAYS] == FIRST_VALUE and of_part[RESTS] < RESTS_MOSTLY)


def describe_told(told: Told, task: Task) -> str:
    """What was drawn or asked for, in words: the key and the made parts; "" for nothing."""
    vocabulary = task.rules.vocabulary
    sheet = told.by_bar[task.first_bar].copy()
    for p, name in enumerate(vocabulary.part_names):
        if name not in task.made:
            sheet[_columns(p)] = UNKNOWN
    text = describe_sheet(sheet, vocabulary)
    return "" if text == "nothing said" else text
