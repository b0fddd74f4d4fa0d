"""Sample songs note by note, many at once: what is valid, what of it is likely enough, a draw.

A note is drawn family by family in the model's order. In each family come, in this order: masks
(`rules.Rules`), the filter `sampling_fn`, then `top_p` and `min_p` where they are set, the
temperature, and the draw (`filters`). Light: no torch. A player (`engine.player`) reads notes and
says how likely each id is; all else is NumPy, for a whole batch at a time where it can be.

Shapes: B songs, T new notes, F families, V_f ids in family f, K controls.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backline.engine.player import Contexts, NewNotes, Player
from backline.engine.positions import bar_offset
from backline.generation.config import GenConfig
from backline.generation.filters import draw, end_beyond
from backline.generation.repetition import Repeats
from backline.generation.rules import History, Rules
from backline.generation.telling import Told, nothing_told
from backline.layers.config import TIME_FIELDS, ModelConfig
from backline.music.chords import CHORD_FIELDS
from backline.music.reading_order import GivenNotes
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, PITCH_INSTRUMENT, START_POS

Note = tuple[int, ...]
OnDrawn = Callable[[int, Note], object]  # gets the song's place in the batch, from 0, and a note
BOS_ROW = (BOS,) * len(FIELDS)
MASKED = np.float64(-np.inf)  # of a type that makes its neighbours float64
NO_CHORDS = np.zeros((0, len(CHORD_FIELDS)), np.int64)


def nobody_watches(_place: int, _note: Note) -> None:
    """What `sample_songs` calls with each note where nobody wants to know."""


def no_notes() -> np.ndarray:
    """(0, F) int64."""
    return np.zeros((0, len(FIELDS)), np.int64)


@dataclasses.dataclass(frozen=True)
class Request:
    """One song to be made.

    rules: what its notes must keep to.
    seed: same seed, same song, on the same machine and versions, whatever else is in the batch; in
        int8, where a layer's input is rounded for the whole batch, only with the same songs beside
        it.
    prompt: (N, F) note ids in order that it goes on from; special rows left out.
    given: (M, F) given notes, in order, that the song is played to; for a model trained for them.
    told: what to play, for a model with controls; None: all unknown.
    """

    rules: Rules
    seed: int
    prompt: np.ndarray = dataclasses.field(default_factory=no_notes)
    given: np.ndarray = dataclasses.field(default_factory=no_notes)
    told: Told | None = None


@dataclasses.dataclass(frozen=True)
class Sampled:
    """The new notes of a song.

    notes: (N, F) int64 ids.
    surprisals: (N,) surprisal of each note in nats, under the masked distribution.
    cut: the bar, an id, that the song is cut before or in; 0: it has its own end.
    """

    notes: np.ndarray
    surprisals: np.ndarray
    cut: int = 0

    def at_bar_line(self, most: int) -> Sampled:
        """The whole bars among the first `most` notes, or these notes if they fill no bar."""
        if len(self.notes) <= most:
            return self
        bars = self.notes[:, BAR]
        n = int((bars < bars[most]).sum()) or most
        return Sampled(self.notes[:n], self.surprisals[:n], cut=int(bars[most]))


# ---------------------------------------------------------------- one song under way


def window_start(n_rows: int, block_size: int) -> int:
    """How many of `n_rows` rows read are forgotten: a full context drops its oldest half."""
    half = max(block_size // 2, 1)
    return half * -(-(n_rows - block_size) // half) if n_rows > block_size else 0


class Rows(NamedTuple):
    """Rows of one song that the model reads."""

    notes: list[Note]
    flags: list[bool]  # which of them are given
    sheet: np.ndarray  # (N, K) uint8 ids of the controls that come with them
    bar_offset: int  # what to subtract from the song's bar ids to get the model's


class SongInProgress:
    """What is read of a song, what is drawn, and what may come next."""

    def __init__(self, request: Request, config: ModelConfig) -> None:
        self.rules = request.rules
        self.random = np.random.default_rng(request.seed)
        self.vocabulary = request.rules.vocabulary
        self.given = GivenNotes(request.given, config.lookahead_bars)
        self.rows: list[Note] = []  # all rows read, in the order of reading, given notes where due
        self.flags: list[bool] = []  # which of them are given
        self.bars: list[int] = []  # for each of them, the bar of the last note made, from 0
        self.told = nothing_told(self.vocabulary) if request.told is None else request.told
        self.pull = self.told.pull(self.vocabulary)
        self.from_scratch = not len(request.prompt) and not len(request.given)
        self.start = 0  # rows before it are forgotten
        self.bar_offset = 0  # what to subtract from the song's bar ids to get the model's
        self.counted_from: int | None = None  # the `start` that `bar_offset` belongs to
        self.history = History.nothing(self.vocabulary)
        self.repeats = Repeats()
        self.notes: list[Note] = []
        self.surprisals: list[float] = []
        self._read([BOS_ROW], given=False)
        self._read(self.given.due(0), given=True)
        for note in request.prompt.tolist():
            self.add(tuple(note))

    def _read(self, rows: list[Note], given: bool) -> None:
        self.rows += rows
        self.flags += [given] * len(rows)
        bar = max(self.history.time, 0) // self.vocabulary.steps_per_bar
        self.bars += [bar] * len(rows)

    def add(self, note: Note) -> None:
        """One more note, of the prompt or drawn."""
        self.history = self.history.after(note, self.vocabulary)
        self.repeats.add(note)
        self._read([note], given=False)
        if not self.given.all_read:
            bar = self.history.time // self.vocabulary.steps_per_bar
            self._read(self.given.due(bar), given=True)

    def take(self, note: Note, surprisal: float) -> int:
        """Go on with a note that was drawn; returns how many rows there are to read now."""
        n_read = len(self.rows)
        self.notes.append(note)
        self.surprisals.append(surprisal)
        self.add(note)
        return len(self.rows) - n_read

    def variety(self, config: GenConfig) -> float:
        """By which the temperature grows for each bar in a row that copies another."""
        return config.variety or (config.loop_guard if self.from_scratch else 0.0)

    def may_end(self) -> bool:
        """Whether the song may end here although more notes would be valid."""
        return bool(self.notes) and self.rules.may_end(self.history)

    def sampled(self) -> Sampled:
        """The notes drawn so far."""
        notes = np.array(self.notes, np.int64).reshape(-1, len(FIELDS))
        return Sampled(notes, np.array(self.surprisals))

    def count_bars(self) -> None:
        """When the window has moved, count its bars from its lowest one.

        Not from beyond the next bar to be made: given notes may all lie after it.
        """
        if self.counted_from != self.start:
            next_bar = max(self.history.time, self.rules.first) // self.vocabulary.steps_per_bar
            lowest_bar = bar_offset(np.array(self.rows[self.start:]))
            self.bar_offset = min(lowest_bar, next_bar)
            self.counted_from = self.start

    def newest(self, count: int) -> Rows:
        """The last `count` rows read."""
        return self._from(len(self.rows) - count)

    def window(self) -> Rows:
        """The rows that are still in the context."""
        return self._from(self.start)

    def _from(self, first: int) -> Rows:
        sheet = self.told.by_bar[self.bars[first:]]
        return Rows(self.rows[first:], self.flags[first:], sheet, self.bar_offset)

    def chord(self, chosen: dict[int, int]) -> np.ndarray:
        """(3,) ids of the chord told for the time in `chosen`, ids by family."""
        return self.told.chord_at(chosen[BAR], chosen[START_POS], self.vocabulary)


# ---------------------------------------------------------------- reading


class Reader:
    """Feeds each song's new rows to a player.

    A song's window, and so what is known of it, is the same with and without a cache, alone and in
    a batch.
    """

    def __init__(self, player: Player, n_songs: int, cached: bool = True) -> None:
        self.config = player.config
        self.player = player
        self.cached = cached
        self.contexts: Contexts = player.contexts(n_songs)

    def read(self, songs: Sequence[SongInProgress], new: Sequence[int]) -> Contexts:
        """Read on in each song; `new` says how many of its last rows are unread."""
        starts = [window_start(len(song.rows), self.config.block_size) for song in songs]
        whole = [b for b, song in enumerate(songs)
                 if not self.cached or not self.contexts.lengths[b] or starts[b] != song.start]
        if len(whole) < len(songs):
            counts = list(new)
            for b in whole:
                counts[b] = 0
            newest = [song.newest(count) for song, count in zip(songs, counts, strict=True)]
            self.contexts.read(new_notes(newest))
        if whole:
            for b in whole:
                songs[b].start = starts[b]
            self._read_windows([songs[b] for b in whole], whole)
        return self.contexts

    def keep(self, places: list[int]) -> None:
        """Go on with the songs at these places in the batch only."""
        self.contexts.keep(places)

    def _read_windows(self, songs: Sequence[SongInProgress], places: Sequence[int]) -> None:
        """Read whole windows, equal ones once."""
        if self.config.bars == "relative":
            for song in songs:
                song.count_bars()
        windows = [song.window() for song in songs]
        distinct: dict[tuple, int] = {}
        sources = []
        for rows in windows:
            key = (rows.bar_offset, *rows.notes, *rows.flags, rows.sheet.tobytes())
            sources.append(distinct.setdefault(key, len(distinct)))
        firsts = [sources.index(i) for i in range(len(distinct))]
        self.contexts.replace(places, new_notes([windows[i] for i in firsts]), sources)


def new_notes(songs: Sequence[Rows]) -> NewNotes:
    """Rows of some songs as a player takes them."""
    counts = [len(rows.notes) for rows in songs]
    longest = max(counts)
    ids = np.full((len(songs), longest, len(FIELDS)), BOS)
    given = np.zeros((len(songs), longest), bool)
    sheet = np.zeros((len(songs), longest, songs[0].sheet.shape[1]), np.uint8)
    for b, rows in enumerate(songs):
        n = counts[b]
        if n:
            ids[b, :n] = rows.notes
            given[b, :n] = rows.flags
            sheet[b, :n] = rows.sheet
    offsets = np.array([rows.bar_offset for rows in songs])
    if offsets.any():
        bars = ids[..., BAR]                                 # a view
        bars -= offsets[:, None] * (bars >= FIRST_ID)
    return NewNotes(ids, counts, given, sheet)


# ---------------------------------------------------------------- many songs


def sample_songs(
    player: Player,
    requests: Sequence[Request],
    config: GenConfig,
    cached: bool = True,
    on_note: Callable[[], object] = lambda: None,
    on_drawn: OnDrawn = nobody_watches,
) -> list[Sampled]:
    """Sample songs in one batch; finished songs drop out.

    Args:
        config: its `max_steps` of 0 sets no limit.
        cached: keep keys and values of the notes read; the slow way without gives the same songs.
        on_note: called after each note, for progress.
        on_drawn: called with each note, for whoever watches. What it raises stops the sampling.
    """
    songs = [SongInProgress(request, player.config) for request in requests]
    reader = Reader(player, len(songs), cached)
    active = list(songs)
    places = list(range(len(songs)))
    new = [0] * len(songs)
    for _ in range(config.max_steps) if config.max_steps else itertools.count():
        contexts = reader.read(active, new)
        drawn = draw_notes(player, contexts, active, config)
        going_on = np.flatnonzero(~drawn.ended).tolist()
        if not going_on:
            break
        if len(going_on) < len(active):
            reader.keep(going_on)
            active = [active[b] for b in going_on]
            places = [places[b] for b in going_on]
        notes = drawn.notes[going_on].tolist()
        surprisals = drawn.surprisals[going_on].tolist()
        new = []
        for place, song, note, surprisal in zip(places, active, notes, surprisals, strict=True):
            new.append(song.take(tuple(note), surprisal))
            on_note()
            on_drawn(place, tuple(note))
    return [song.sampled() for song in songs]


class NextNotes:
    """The next note of each song, as its families are drawn one after another."""

    def __init__(self, songs: Sequence[SongInProgress]) -> None:
        self.songs = songs
        self.uniform = np.array([song.random.random(len(FIELDS)) for song in songs])  # (B, F)
        self.offsets = np.array([song.bar_offset for song in songs])
        self.notes = np.zeros((len(songs), len(FIELDS)), np.int64)
        self.heard = self.notes.copy()  # with bars as the model counts them
        self.surprisals = np.zeros(len(songs))  # in nats
        self.ended = np.zeros(len(songs), bool)  # these songs end instead
        self._chosen: list[dict[int, int]] = [{} for _ in songs]  # ids by family
        self._spans = [song.rules.time_spans(song.history) for song in songs]

    def masks(self, family: int) -> np.ndarray:
        """(B, V_f) bool: what each song may draw; anything if it has ended, as that is thrown away."""
        n_ids = self.songs[0].vocabulary.sizes[family]
        masks = np.zeros((len(self.songs), n_ids), bool)
        for song, spans, chosen, mask in zip(
                self.songs, self._spans, self._chosen, masks, strict=True):
            if EOS in chosen.values():
                mask[:] = True
            else:
                may_end = not chosen and song.may_end()
                song.rules.allow(mask, family, chosen, spans, may_end)
        return masks

    def choose(self, family: int, ids: np.ndarray, surprisals: np.ndarray) -> None:
        """Take in what was drawn of a family, (B,) each; EOS of the first family ends a song."""
        if not self._chosen[0]:
            self.ended = ids == EOS
        ids[self.ended] = EOS
        self.surprisals += surprisals
        self.notes[:, family] = ids
        self.heard[:, family] = ids
        if family == BAR:
            self.heard[:, BAR] -= np.where(self.ended, 0, self.offsets)
        for chosen, id_ in zip(self._chosen, ids.tolist(), strict=True):
            chosen[family] = id_

    def chords(self) -> np.ndarray:
        """(B, 3) ids of the chords told for the onsets chosen."""
        told = [song.chord(chosen) for song, chosen in zip(self.songs, self._chosen, strict=True)]
        return np.array(told)


def draw_notes(
    player: Player,
    contexts: Contexts,
    songs: Sequence[SongInProgress],
    config: GenConfig,
) -> NextNotes:
    """Draw the next note of each song, family by family."""
    drawn = NextNotes(songs)
    temperature_scale = None
    if config.variety or config.loop_guard:
        variety = np.array([song.variety(config) for song in songs])
        repeats = np.array([song.repeats.in_a_row for song in songs])
        if variety.any():
            temperature_scale = 1 + variety * repeats        # (B,)
    logits = contexts.first_logits()
    for k, family in enumerate(player.order):
        masks = drawn.masks(family)
        if family == BAR:
            logits = _bar_logits(logits, songs, drawn.offsets, masks, is_first=k == 0)
        if family == PITCH_INSTRUMENT and any(song.pull is not None for song in songs):
            logits = logits + _pulls(songs)
        allowed = np.where(masks, logits, MASKED)            # (B, V_f) float64
        uniform = drawn.uniform[:, family]
        ids, surprisals = draw(allowed, family, config, uniform, temperature_scale)
        drawn.choose(family, ids, surprisals)
        n_chosen = k + 1
        if n_chosen == len(player.order) or drawn.ended.all():
            break
        tells_chords = player.config.controls and n_chosen == len(TIME_FIELDS)
        chords = drawn.chords() if tells_chords else NO_CHORDS
        logits = contexts.next_logits(k, drawn.heard, chords)
    return drawn


def _pulls(songs: Sequence[SongInProgress]) -> np.ndarray:
    """(B, V) what is added to the logits of pitches: see `Told.pull`."""
    nothing = np.zeros(songs[0].vocabulary.sizes[PITCH_INSTRUMENT])
    return np.stack([nothing if song.pull is None else song.pull for song in songs])


def _bar_logits(
    logits: np.ndarray,
    songs: Sequence[SongInProgress],
    offsets: np.ndarray,
    masks: np.ndarray,
    is_first: bool,
) -> np.ndarray:
    """(B, V) bar logits by the songs' bar ids, from those by the model's, `offsets` (B,) lower."""
    logits = logits.astype(np.float64)
    if is_first:
        for song, song_logits, mask in zip(songs, logits, masks, strict=True):
            if mask[EOS] and song.rules.in_last_bar(song.history):
                end_beyond(song_logits, song.rules.last_bar_id - song.bar_offset)
    if not offsets.any():
        return logits
    moved = np.full_like(logits, -np.inf)
    moved[:, :FIRST_ID] = logits[:, :FIRST_ID]
    for b, offset in enumerate(offsets.tolist()):
        moved[b, FIRST_ID + offset:] = logits[b, FIRST_ID:logits.shape[1] - offset]
    return moved
