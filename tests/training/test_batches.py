"""Which rows a step sees, and what stands beside their notes."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from random_songs import TINY_MODEL, VOCABULARY, make_dataset, random_song, whole

from backline.common.errors import UserError
from backline.layers.config import ModelConfig
from backline.music.controls import CHORD_COLUMNS, fields, song_controls
from backline.music.sheet import Levels, key_column, sheet_of
from backline.music.sheet_table import SheetTable, sheet_table
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_CONTROL, FIRST_ID, GIVEN, PAD
from backline.preparation.dataset import load_dataset, split_by_song
from backline.training.batches import Batches, bar_starts
from backline.training.config import CONTROLS, TrainingSettings
from backline.training.control_tables import ControlTables
from backline.training.distributed import Processes

T = 64
SONGS = [random_song(seed, 150 + 10 * seed, n_bars=10 + seed) for seed in range(8)]
MODEL = ModelConfig.for_vocabulary(VOCABULARY, **TINY_MODEL | {
    "heads": "gru", "positions": "metre", "late_layers": 1, "given": True, "controls": True, "block_size": T})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(make_dataset(tmp_path_factory.mktemp("data") / "dataset.pt", SONGS, T))


@pytest.fixture(scope="module")
def controls(dataset, tmp_path_factory) -> ControlTables:
    return ControlTables.of(dataset, 1, tmp_path_factory.mktemp("run"), Processes("cpu"))


def batches(dataset, controls=None, **settings) -> Batches:
    return Batches(dataset, split_by_song(dataset, 0.85), MODEL, TrainingSettings(**{"batch_size": 4} | settings),
                   controls)


def first_rows(made: Batches, n_steps: int = 20) -> torch.Tensor:
    """(B, T, C) rows of the first steps."""
    steps = made.from_step(0)
    return torch.cat([next(steps) for _ in range(n_steps)])


def test_a_share_of_rows_begins_with_a_song(dataset):
    assert (first_rows(batches(dataset, song_starts=1.0))[:, 0, BAR] == BOS).all()
    begins = (first_rows(batches(dataset, song_starts=0.5), 60)[:, 0, BAR] == BOS).double().mean()
    assert 0.4 < begins < 0.65


def test_the_end_of_a_song_is_a_song_of_its_own(dataset):
    ends = {tuple(map(tuple, rebased(song, n_bars)[:T].tolist())) for song in SONGS[:7] for n_bars in range(4, 33)}
    found = first_rows(batches(dataset, song_ends=1.0))
    assert (found[:, 0, BAR] == BOS).all() and (found[:, 1, BAR] == FIRST_ID).all()
    for row in found.tolist():
        rows = list(map(tuple, row))
        end = next((i for i, note in enumerate(rows) if note[BAR] == EOS), len(rows))
        assert any(list(other[:end]) == rows[:end] for other in ends)


def rebased(song: np.ndarray, n_bars: int) -> np.ndarray:
    """The last bars of a song, counted from 0, between BOS and EOS; all of it where it has no more."""
    last = song[song[:, BAR] > song[-1, BAR] - n_bars].copy()
    if song[-1, BAR] - n_bars >= song[0, BAR]:
        last[:, BAR] -= last[0, BAR] - FIRST_ID
    return whole(last)


def test_short_songs_behind_the_last_whole_row_are_in_no_row(tmp_path):
    loops = [random_song(seed, 20, n_bars=12) for seed in range(12)]
    short = load_dataset(make_dataset(tmp_path / "loops.pt", loops, T))
    controls = ControlTables.of(short, 2, tmp_path, Processes("cpu"))
    rows = first_rows(batches(short, controls, song_ends=0.6, song_starts=0.4, random_crops=True), 40)
    assert (rows[:, 0, BAR] != PAD).all()
    before_end = (rows[..., BAR] == EOS).int().cumsum(1) == 0
    notes = before_end & (rows[..., BAR] >= FIRST_ID)
    padding = before_end & (rows[..., BAR] == PAD)
    assert not (notes & (padding.int().cumsum(1) > 0)).any()
    assert (rows[..., BAR] >= 0).all()


def test_other_rows_begin_at_a_bar_line(dataset):
    made = batches(dataset, bar_lines=True, random_crops=True)
    notes = made.notes.numpy()
    starts = {notes[i:i + 3].tobytes() for i in bar_starts(made.notes)}
    assert all(row[:3].numpy().tobytes() in starts for row in first_rows(made))
    bars = notes[bar_starts(made.notes), BAR]
    n_bars = sum(len(np.unique(song[:, BAR])) for song in SONGS[:7])
    assert n_bars - 7 <= len(bars) <= n_bars and (bars == BOS).sum() == 7  # a song's first bar begins with its BOS


def test_rows_are_short_at_first_and_whole_later_and_a_step_has_as_many_notes(dataset):
    made = batches(dataset, row_notes=16, whole_rows_from=0.5, num_epochs=2)
    steps = list(zip(range(made.total_steps), made.from_step(0), strict=False))
    shapes = [tuple(rows.shape[:2]) for _, rows in steps]
    half = made.total_steps // 2
    assert set(shapes[:half - 1]) == {(4, 16)} and shapes[half + 1] == (1, 64)
    for start in (3, half, half + 2):
        assert torch.equal(next(made.from_step(start)), steps[start][1])


@pytest.mark.parametrize(("settings", "text"), [
    ({"row_notes": 24}, "row_notes=24: the dataset's rows have 64 notes, which must be a multiple of it"),
    ({"row_notes": 16, "whole_rows_from": 0.5, "batch_size": 6}, "batch_size=6 must be a multiple of 4")])
def test_rows_that_do_not_fit(dataset, settings, text):
    with pytest.raises(UserError, match=text):
        batches(dataset, **settings)


# ---------------------------------------------------------------- controls


def known(rows: torch.Tensor) -> torch.Tensor:
    return rows[..., FIRST_CONTROL:] != 0


def test_rows_come_with_their_songs_controls_or_unknown_ones(dataset, controls):
    made = batches(dataset, controls)
    rows = first_rows(made, 5)
    levels = controls.table.levels
    expected = np.concatenate([song_controls(whole(song), VOCABULARY, levels) for song in SONGS])
    notes = np.concatenate([whole(song) for song in SONGS])
    places = {tuple(map(tuple, notes[i:i + 3].tolist())): i for i in range(len(notes))}
    for row in rows:
        place = places[tuple(map(tuple, row[:3, :len(FIELDS)].tolist()))]
        told = expected[place:place + T]
        assert ((row[:, FIRST_CONTROL:].numpy() == told) | (row[:, FIRST_CONTROL:].numpy() == 0)).all()
    assert 0.6 < known(rows).double().mean() < 0.9
    by_row = known(rows).any(1).double().mean(1)
    assert 0 < (by_row == 0).double().mean() < 0.4  # of some rows nothing is told


def test_the_end_of_a_song_has_the_sheet_of_its_bars(dataset, controls):
    rows = first_rows(batches(dataset, controls, song_ends=1.0), 12)
    n_sheet = key_column(VOCABULARY) + 1
    for row in rows.numpy():
        end = np.flatnonzero(row[:, BAR] == EOS)
        if not len(end):
            continue
        notes = row[:end[0], :len(FIELDS)]
        expected = sheet_of(notes, VOCABULARY, controls.table.levels, 0, int(notes[-1, BAR]) - FIRST_ID)
        told = row[5, FIRST_CONTROL:FIRST_CONTROL + n_sheet]
        if notes[1, BAR] == FIRST_ID and len(np.unique(notes[1:, BAR])) <= 16:
            assert ((told == expected) | (told == 0)).all()


def test_a_silent_part_is_silent_in_the_sheet_and_tasks_tell_no_chord_of_what_is_made(dataset, controls):
    rows = first_rows(batches(dataset, controls, given_tasks=1.0), 12)
    parts = VOCABULARY.part_of_id
    plays = [column for column, field in enumerate(fields(VOCABULARY)) if field.name.endswith("plays")]
    for row in rows.numpy():
        song = row[:np.append(np.flatnonzero(row[1:, BAR] == BOS) + 1, len(row))[0]]  # the first of the row
        there = set(parts[song[:, 3]].tolist())
        for part, column in enumerate(plays):
            told = song[5, FIRST_CONTROL + column]
            assert part in there or told != 2 or len(song) < 20
        given = song[song[:, GIVEN] == 1]
        if len(given) and not (parts[given[:, 3]] > 0).any():
            assert (song[:, FIRST_CONTROL:][:, CHORD_COLUMNS] == 0).all()


def test_given_notes_come_with_the_controls_of_the_last_note_made(dataset, controls):
    rows = first_rows(batches(dataset, controls, given_tasks=1.0), 12).numpy()
    n_read = len(fields(VOCABULARY)) - 3
    for row in rows:
        for before, note in itertools.pairwise(row):
            if note[GIVEN] and before[BAR] >= FIRST_ID and note[BAR] >= FIRST_ID:
                assert (note[FIRST_CONTROL:][:n_read] == before[FIRST_CONTROL:][:n_read]).all()


def test_a_dropped_part_is_silent_in_the_sheet(dataset, controls):
    rows = first_rows(batches(dataset, controls, drop_parts=1.0), 5).numpy()
    for row in rows:
        there = set(VOCABULARY.part_of_id[row[:, 3]].tolist())
        silent = [part for part in range(3) if part not in there]
        for part in silent:
            assert set(row[:, FIRST_CONTROL + 5 * part:FIRST_CONTROL + 5 * part + 5].flatten().tolist()) <= {0, 1}


def test_the_table_of_sheets_travels_as_plain_data(controls):
    facts = controls.table.to_facts()
    again = SheetTable.from_facts(facts, VOCABULARY, Path("model"))
    assert again.levels == controls.table.levels
    assert np.array_equal(again.sheets, controls.table.sheets) and len(again.sheets) == 7
    assert sheet_table({}, VOCABULARY, Path("model")) is None
    assert sheet_table({"facts": {"controls": facts}}, VOCABULARY, Path("model")).levels == again.levels
    for damaged in ({**facts, "sheets": "?"}, {**facts, "n_songs": 3}, {"sheets": facts["sheets"]}):
        with pytest.raises(UserError, match="model: its table of sheets is damaged"):
            SheetTable.from_facts(damaged, VOCABULARY, Path("model"))


def test_controls_are_worked_out_once(dataset, tmp_path):
    first = ControlTables.of(dataset, 1, tmp_path, Processes("cpu"))
    written = (tmp_path / CONTROLS).stat().st_mtime_ns
    again = ControlTables.of(dataset, 1, tmp_path, Processes("cpu"), first.table.levels)
    assert (tmp_path / CONTROLS).stat().st_mtime_ns == written
    assert torch.equal(first.columns, again.columns)
    other = Levels(tuple(tuple(2 * edge for edge in edges) for edges in first.table.levels.density_edges))
    (tmp_path / CONTROLS).unlink()
    assert not torch.equal(ControlTables.of(dataset, 1, tmp_path, Processes("cpu"), other).columns, first.columns)


def test_controls_are_for_models_that_have_them(dataset):
    assert dataclasses.replace(MODEL, controls=False, control_sizes=()).control_sizes == ()
    assert first_rows(batches(dataset), 1).shape[-1] == len(FIELDS)
