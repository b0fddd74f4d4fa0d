"""What to play: a song from scratch, the rest of one, some parts for others, or bars in the middle.

Three records follow from each other:

`Wish`             what somebody asks for, in the words of the command line; its errors name the
                   options (--fill for `fill`).
`Task`             what `make_task` makes of a wish and a prompt: what the model reads, which notes
                   it may make, and what stays.
`sampler.Request`  one song of a task: it adds a seed, and what a model with controls is told.

Bars that people give count from 1, all others from 0. Light: no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.generation.clip import Clip
from backline.generation.config import GenConfig
from backline.generation.rules import Passage, Rules
from backline.generation.wish import Wish, check_has_song, fill_text
from backline.music.chords import CHORD_FIELDS, HALVES_PER_BAR, UNKNOWN, parse_chords
from backline.music.rows import are_among, bars_in, parts_of, played_by
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

# Most notes in a bar, on average. Of 287,553 bars of 2,849 songs 99.9 % have at most 119, the
# fullest has 183.
NOTES_PER_BAR = 128
ALL_PARTS_OF = 4  # a song needs all parts of a vocabulary that has no more than these
PLAYS_EVERY = 4  # a part plays if it begins a note in one of so many bars; no note lasts longer
SOON = 2  # bars after a prompt


@dataclasses.dataclass(frozen=True)
class Task:
    """What the model plays from, and what belongs into the song besides the new notes."""

    rules: Rules  # what is made, and what it keeps to
    prompt: np.ndarray  # (N, F) rows that the song goes on from
    dropped: tuple[str, ...] = ()  # parts of the prompt that are not in the song
    n_bars: int = 0  # that the song lasts, at least
    max_steps: int = 0  # most new notes
    ends: bool = False  # a model with controls is told that the song ends with the last bar made
    named: tuple[str, ...] = ()  # made parts that somebody asks for, one by one
    beside: bool = False  # whole parts are made beside given ones

    @property
    def given(self) -> np.ndarray:
        """(M, F) rows that the song is played to."""
        return self.rules.given

    @property
    def kept(self) -> np.ndarray:
        """(N + M, F) rows in order that are in the song whatever is made."""
        return np.concatenate([self.prompt, self.given])  # given notes begin after the prompt

    @property
    def made(self) -> tuple[str, ...]:
        """Parts that are made."""
        return self.rules.parts

    @property
    def needs_all(self) -> bool:
        """Whether a song from scratch is to have all parts that are made."""
        return bool(self.named) or len(self.made) <= ALL_PARTS_OF

    @property
    def first_bar(self) -> int:
        """The first bar to be made, from 0."""
        first = self.rules.first // self.rules.vocabulary.steps_per_bar
        return max(first, bars_in(self.prompt))

    @property
    def bars_to_make(self) -> list[int]:
        """The bars that notes are made in, from 0."""
        end = self.rules.end // self.rules.vocabulary.steps_per_bar
        return [bar for bar in range(self.first_bar, end) if bar not in self.rules.kept_bars]

    @property
    def silent(self) -> tuple[str, ...]:
        """Parts that neither are made nor sound in what is given."""
        v = self.rules.vocabulary
        heard = (*self.made, *parts_of(self.given, v))
        return tuple(name for name in v.part_names if name not in heard)

    def song(self, new: np.ndarray) -> np.ndarray:
        """(N, F) rows of the whole song in order, with its `new` ones."""
        rows = np.concatenate([self.kept, new])
        by_column = [rows[:, field] for field in (PITCH_INSTRUMENT, START_POS, BAR)]
        order = np.lexsort(by_column)
        return rows[order]

    def n_new_bars(self, bar: int) -> int:
        """How many bars to be made come before `bar`, an id."""
        return max(bar - FIRST_ID - self.first_bar, 0)

    def was_there(self, rows: np.ndarray) -> np.ndarray:
        """(N,) bool: which of (N, F) rows are kept ones."""
        return are_among(rows, self.kept)


# ---------------------------------------------------------------- from a wish to a task


def make_task(wish: Wish,
              prompt: np.ndarray,
              vocabulary: Vocabulary,
              config: GenConfig,
              clip: Clip | None = None) -> Task:
    """The task that follows from a wish.

    Args:
        prompt: (N, F) rows in order, N = 0 for none.
        clip: what the prompt is besides its rows; None, as in recipes of earlier versions: it lasts
            until its last onset, and a pitch that it still holds may be struck again.
    Raises:
        UserError: the wish does not fit the prompt, or the rules do not fit the vocabulary.
    """
    check_has_song(bool(wish.given), bool(wish.fill), bool(len(prompt)))
    if clip is None:
        clip = Clip(bars_in(prompt), goes_on=True)
    asking = _Asking(wish, prompt, vocabulary, config, clip)
    if wish.fill:
        return _fill(asking)
    if wish.given:
        return _parts_for_parts(asking)
    return _new_bars(asking)


class _Asking(NamedTuple):
    """All that a task follows from."""

    wish: Wish
    prompt: np.ndarray
    vocabulary: Vocabulary
    config: GenConfig
    clip: Clip

    def held(self,
             made: tuple[str, ...],
             first_bar: int,
             anew: Collection[int] = ()) -> np.ndarray:
        """(H, 3) pitch ids of `made` parts that ring into a bar, and the steps from and until which.

        Notes that begin in bars `anew` do not stay.
        """
        steps = self.vocabulary.steps_per_bar
        begin = first_bar * steps
        onset, end, ids = self.clip.sounding.T
        rings = (onset < begin) & (end > begin) & ~np.isin(onset // steps, list(anew))
        parts = [p for p, name in enumerate(self.vocabulary.part_names) if name in made]
        is_made = np.isin(self.vocabulary.part_of_id[ids], parts)
        return np.stack([ids, np.full(len(ids), begin), end], axis=1)[rings & is_made]


def _new_bars(asking: _Asking) -> Task:
    """Bars from scratch, or after a prompt."""
    wish, prompt, vocabulary, config, clip = asking
    begun = clip.n_bars
    n_wanted = wish.bars or config.num_bars
    end_bar = min(begun + n_wanted, vocabulary.bars)
    if wish.bars and end_bar < begun + wish.bars:
        raise UserError(f"--bars {wish.bars}: {vocabulary.bars - begun} bars are left of the "
                        f"{vocabulary.bars} a song can have; ask for fewer")
    from_scratch = not len(prompt)
    exact = bool(wish.bars) or (from_scratch and config.all_bars)
    ending = config.controls.ending
    if ending == "yes" and not exact:
        raise UserError("--ending yes: say with --bars how many new bars there are until the end")
    first_bar = 0 if clip.goes_on else begun
    passage = Passage(
        end_bar,
        first_bar=first_bar,
        parts=wish.make,
        exact=exact,
        loop=wish.loop,
        at_once=from_scratch and config.start_at_once,
        chords=told_chords(config, begun, end_bar),
        held=asking.held(wish.make or vocabulary.part_names, begun),
    )
    ends_by_itself = exact and from_scratch and not wish.loop and ending != "no"
    return Task(
        rules=Rules(vocabulary, config.rules, passage),
        prompt=prompt,
        n_bars=end_bar if exact else _n_lasting(clip),
        max_steps=_most_notes(config, wish.bars or config.num_bars + 1, asked=bool(wish.bars)),
        ends=ends_by_itself or ending == "yes",
        named=wish.make,
    )


def _n_lasting(clip: Clip) -> int:
    """Bars that a song lasts whatever is made: those of a clip in whole bars."""
    return 0 if clip.goes_on else clip.n_bars


def told_chords(config: GenConfig,
                first_bar: int,
                end_bar: int,
                kept_bars: Collection[int] = ()) -> np.ndarray | None:
    """(2 · end_bar, 3) ids of the chords asked for, from `first_bar` on; None for none.

    Bars that are kept take no chord of the list.

    Raises UserError about chords that cannot be read.
    """
    if not config.controls.chords:
        return None
    told = [bar for bar in range(first_bar, end_bar) if bar not in kept_bars]
    progression = parse_chords(config.controls.chords).half_bars(HALVES_PER_BAR * len(told))
    chords = np.full((end_bar, HALVES_PER_BAR, len(CHORD_FIELDS)), UNKNOWN, np.uint8)
    chords[told] = progression.reshape(-1, *chords.shape[1:])
    return chords.reshape(-1, len(CHORD_FIELDS))


def _parts_for_parts(asking: _Asking) -> Task:
    """Parts beside those of the prompt that are given."""
    wish, prompt, vocabulary, config, clip = asking
    present = parts_of(prompt, vocabulary)
    for name in wish.given:
        if name not in present:
            raise UserError(f"--given {name}: the prompt has no {name}; "
                            f"it has {', '.join(present)}")
    others = tuple(name
                   for name in vocabulary.part_names
                   if name not in wish.given)
    make = wish.make or others
    if not make:
        raise UserError("--given names all parts; leave out those to be made")
    given = prompt[played_by(prompt, wish.given, vocabulary)]
    n_bars = bars_in(given) if clip.goes_on else clip.n_bars
    first_bar = 0 if clip.goes_on else int(given[0, BAR]) - FIRST_ID
    passage = Passage(
        n_bars,
        first_bar=first_bar,
        parts=make,
        loop=wish.loop,
        given=given,
        chords=told_chords(config, first_bar, n_bars),
    )
    return Task(
        rules=Rules(vocabulary, config.rules, passage),
        prompt=prompt[:0],
        dropped=tuple(name for name in present if name not in wish.given),
        n_bars=n_bars if wish.loop else _n_lasting(clip),
        max_steps=_most_notes(config, n_bars),
        ends=config.controls.ending == "yes",
        named=wish.make,
        beside=True,
    )


def _fill(asking: _Asking) -> Task:
    """Bars of the prompt anew, between those before and those after them."""
    wish, prompt, vocabulary, config, clip = asking
    if config.controls.ending == "yes":
        raise UserError("--ending yes: bars in the middle lead to what comes after them; "
                        "leave it out")
    n_bars = clip.n_bars
    n_song_bars = clip.first_bar + n_bars
    if wish.fill[-1] > n_song_bars:
        raise UserError(f"--fill {fill_text(wish.fill)}: the song has {n_song_bars} bars; "
                        f"name bars from 1 to {n_song_bars}")
    stretches = [range(first - 1 - clip.first_bar, last - clip.first_bar)
                 for first, last in wish.stretches]
    anew = [bar for stretch in stretches for bar in stretch]
    first_bar = anew[0]
    end_bar = anew[-1] + 1
    make = wish.make or parts_of(prompt, vocabulary)
    bars = prompt[:, BAR] - FIRST_ID
    before = bars < first_bar
    made_anew = np.isin(bars, anew) & played_by(prompt, make, vocabulary)
    kept_bars = tuple(sorted({*range(first_bar, end_bar)} - {*anew}))
    passage = Passage(
        end_bar=end_bar,
        first_bar=first_bar,
        kept_bars=kept_bars,
        parts=make,
        loop=wish.loop,
        given=prompt[~before & ~made_anew],
        chords=told_chords(config, first_bar, end_bar, kept_bars),
        held=np.concatenate([asking.held(make, stretch.start, anew) for stretch in stretches]),
    )
    return Task(
        rules=Rules(vocabulary, config.rules, passage),
        prompt=prompt[before],
        n_bars=n_bars if wish.loop else _n_lasting(clip),
        max_steps=_most_notes(config, len(anew)),
        ends=True,
        named=make,
    )


def _most_notes(config: GenConfig, n_bars: int, asked: bool = True) -> int:
    """Most new notes in `n_bars` bars; `asked`: the wish says how many bars there are."""
    if config.max_steps and (config.whole_bars or not asked):
        return config.max_steps
    return max(config.max_steps, NOTES_PER_BAR * n_bars)


# ---------------------------------------------------------------- what is asked of a song


def resting_parts(wish: Wish, task: Task) -> tuple[str, ...]:
    """Parts of the prompt that --make leaves out of the continuation, perhaps by mistake."""
    if not wish.make or wish.needs_given:
        return ()
    present = parts_of(task.prompt, task.rules.vocabulary)
    return tuple(name for name in present if name not in task.made)


def lacking_parts(wish: Wish,
                  task: Task,
                  config: GenConfig,
                  new: np.ndarray,
                  playing: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Requested parts that have no note in the song of `new` notes, or nearly none.

    Requested are parts that the wish names, or that given ones lack. From scratch all parts are,
    unless others are named (`all_parts`); of a vocabulary with more than ALL_PARTS_OF those that it
    is told to play, `playing`. A part then lacks as well if it plays in fewer than one of
    PLAYS_EVERY bars: a part that always sounds begins a note in as many. Of 2,845 songs 15 % have a
    part that is silent in their first 16 bars, another 4 % one that plays in one to three of them,
    and 4 % one in four.

    After a prompt, without --given, --missing or --make, a part may rest, and so in bars of the
    middle. A part that the prompt has does not lack after it. After a prompt that leaves no room
    there is nothing to ask for.
    """
    v = task.rules.vocabulary
    rows = task.song(new)
    from_scratch = config.all_parts and not len(task.kept)
    asked: tuple[str, ...] = ()
    if wish.given or (wish.make and not wish.fill and len(new)):
        asked = task.made
    if from_scratch and not wish.make:
        asked = task.made if task.needs_all else playing
    least = bars_in(rows) / PLAYS_EVERY if from_scratch else 1

    def bars_of(name: str) -> int:
        """How many bars a part plays in."""
        own = rows[played_by(rows, (name,), v)]
        bars = set(own[:, BAR].tolist())
        return len(bars)

    return tuple(name for name in asked if bars_of(name) < least)


def ends_soon(wish: Wish,
              task: Task,
              config: GenConfig,
              new: np.ndarray) -> bool:
    """Whether a song ends within SOON bars after its prompt, and nobody asked it to."""
    if not config.go_on or not len(task.prompt) or wish.fill or wish.bars:
        return False
    last_bar = task.rules.last_bar_id - FIRST_ID + 1
    return bars_in(task.song(new)) <= bars_in(task.prompt) + SOON < last_bar


def incomplete_parts(rows: np.ndarray, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Names of the parts of a song that lacks some. Raises UserError if it lacks none."""
    present = parts_of(rows, vocabulary)
    if len(present) == len(vocabulary.parts):
        raise UserError("--missing: the prompt has all parts; leave it out to go on from it, "
                        "or say with --given what to play to")
    return present


