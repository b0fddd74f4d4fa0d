"""Augmentation: what moves, what stays, and that chance is the generator's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_songs import VOCABULARY, random_song

from backline.music.vocab import BAR, BOS, FIELDS, NOTE_DUR, PITCH_INSTRUMENT, START_POS, load_vocabulary
from backline.training.augmentation import SPARE, PartDropping, Transposition, WrongNotes, crop_start, windows_from

DRUMS, BASS, PIANO = range(3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(seed: int, n_rows: int = 6, length: int = 16) -> torch.Tensor:
    rows = torch.from_numpy(random_song(seed, n_rows * length).astype(np.int16))
    return rows.view(n_rows, length, len(FIELDS))


@pytest.mark.parametrize("seed", range(5))
def test_melodic_parts_move_together_and_nothing_else_changes(seed):
    v = VOCABULARY
    rows = rows_of(seed)
    moved = Transposition(v, -5, 6)(rows, generator(seed))
    assert moved.dtype == rows.dtype
    assert torch.equal(moved[..., :PITCH_INSTRUMENT], rows[..., :PITCH_INSTRUMENT])
    old, new = rows[..., PITCH_INSTRUMENT].numpy(), moved[..., PITCH_INSTRUMENT].numpy()
    assert (v.part_of_id[old] == v.part_of_id[new]).all()  # in range: no note became one of another part
    for before, after in zip(old, new, strict=True):
        shift = v.pitch_of_id[after] - v.pitch_of_id[before]
        is_drums = v.part_of_id[before] == DRUMS
        assert (shift[is_drums] == 0).all()
        assert len(set(shift[~is_drums].tolist())) <= 1 and (np.abs(shift) <= 6).all()


def test_special_rows_stay_as_they_are():
    rows = torch.tensor([[[1] * 4, [4, 4, 4, 60], [2] * 4, [0] * 4]])
    moved = Transposition(VOCABULARY, -5, 6)(rows, generator())
    assert torch.equal(moved[:, [0, 2, 3]], rows[:, [0, 2, 3]])


def test_every_shift_that_fits_is_as_likely_and_no_other_comes():
    lowest_bass = VOCABULARY.first_pitch_ids[BASS]
    row = torch.tensor([[[4, 4, 4, lowest_bass + 2], [4, 5, 4, 10]]])
    moved = Transposition(VOCABULARY, -5, 6)(row.expand(6000, -1, -1), generator())
    shifts, counts = np.unique(moved[:, 0, PITCH_INSTRUMENT].numpy() - lowest_bass - 2, return_counts=True)
    assert shifts.tolist() == list(range(-2, 7))
    assert counts.min() > 0.8 * 6000 / 9 and counts.max() < 1.2 * 6000 / 9


def test_a_row_that_no_shift_fits_stays():
    v = load_vocabulary(VOCABULARY.to_dict() | {"parts": [
        {"name": "solo", "is_drum": False, "program": 0, "accepts": [], "lowest_pitch": 60, "highest_pitch": 61}]})
    row = torch.tensor([[[4, 4, 4, 4], [4, 5, 4, 5]]])
    for seed in range(20):
        assert torch.equal(Transposition(v, -5, 6)(row, generator(seed)), row)


def test_chance_is_the_generators():
    rows = rows_of(0)
    transposition = Transposition(VOCABULARY, -5, 6)
    assert torch.equal(transposition(rows, generator(3)), transposition(rows, generator(3)))
    assert len({transposition(rows, generator(seed)).numpy().tobytes() for seed in range(8)}) > 1


def test_rows_are_cut_from_every_possible_start():
    starts = {crop_start(40, 8, generator(seed)) for seed in range(200)}
    assert starts == set(range(8))
    assert crop_start(8, 8, generator()) == 0


# ---------------------------------------------------------------- parts left out


def test_rows_lose_one_part_and_go_on_with_the_notes_after():
    notes = torch.from_numpy(random_song(0, 400, n_bars=40))
    firsts = torch.arange(0, 400, 16)
    dropped = PartDropping(VOCABULARY, 1.0)(windows_from(notes, firsts, 16 * SPARE), 16, generator())
    part = torch.from_numpy(VOCABULARY.part_of_id)
    missing = []
    for row, first in zip(dropped, firsts, strict=True):
        parts = set(part[row[:, PITCH_INSTRUMENT]].tolist())
        if len(parts) == 3:
            continue  # at the end, where no notes are left to fill it up
        missing += sorted({DRUMS, BASS, PIANO} - parts)
        kept = notes[first:][torch.isin(part[notes[first:, PITCH_INSTRUMENT]], torch.tensor(sorted(parts)))]
        assert torch.equal(row, kept[:16])
    assert set(missing) == {DRUMS, BASS, PIANO} and len(missing) >= 20


def test_as_many_rows_lose_a_part_as_the_share_says():
    notes = torch.from_numpy(random_song(1, 2000, n_bars=100))
    firsts = torch.arange(1000)
    rows = windows_from(notes, firsts, 16 * SPARE)
    changed = (PartDropping(VOCABULARY, 0.3)(rows, 16, generator()) != rows[:, :16]).any(2).any(1)
    assert 0.25 < changed.double().mean() < 0.35
    assert torch.equal(PartDropping(VOCABULARY, 0.0)(rows, 16, generator()), rows[:, :16])


def test_a_part_that_is_nearly_all_there_is_stays():
    notes = torch.full((100, len(FIELDS)), 4)
    rows = windows_from(notes, torch.arange(0, 100, 20), 20 * SPARE)
    found = [PartDropping(VOCABULARY, 1.0)(rows, 20, generator(seed)) for seed in range(9)]
    assert all(torch.equal(rows[:, :20], other) for other in found)


def test_longer_rows_go_on_with_the_notes_after_and_end_in_padding():
    notes = torch.arange(4, 24).view(5, 4)
    rows = windows_from(notes, torch.tensor([0, 3]), 4)
    assert torch.equal(rows[0], notes[:4])
    assert torch.equal(rows[1], torch.cat([notes[3:], torch.zeros((2, 4), dtype=notes.dtype)]))


# ---------------------------------------------------------------- wrong notes


@pytest.mark.parametrize("seed", range(5))
def test_slips_keep_times_parts_and_order(seed):
    rows = rows_of(seed, 8, 128)
    before = rows.clone()
    heard = WrongNotes(VOCABULARY, 0.1)(rows, generator(seed))
    assert torch.equal(rows, before) and heard.dtype == rows.dtype
    assert torch.equal(heard[..., [BAR, START_POS]], rows[..., [BAR, START_POS]])
    old, new = rows[..., PITCH_INSTRUMENT].numpy(), heard[..., PITCH_INSTRUMENT].numpy()
    assert (VOCABULARY.part_of_id[old] == VOCABULARY.part_of_id[new]).all()
    keys = [[(note[BAR], note[START_POS], note[PITCH_INSTRUMENT]) for note in row] for row in heard.tolist()]
    assert all(row == sorted(set(row)) for row in keys), "as in any song, no note comes twice, and all in order"
    is_wrong = old != new
    assert 0.02 < is_wrong.mean() < 0.18 and not (is_wrong[:, 1:] & is_wrong[:, :-1]).any()
    lengths = heard[..., NOTE_DUR].numpy() != rows[..., NOTE_DUR].numpy()
    assert not (lengths & ~is_wrong).any()
    again = WrongNotes(VOCABULARY, 0.1)(rows, generator(seed))
    assert torch.equal(heard, again)


def test_given_notes_and_edges_of_songs_are_heard_as_they_are():
    rows = rows_of(3, 8, 128)
    rows[:, 0] = BOS
    given = torch.arange(128) % 3 == 0
    columns = torch.cat([rows, given.to(rows.dtype).expand(8, 128)[..., None]], dim=-1)
    heard = WrongNotes(VOCABULARY, 0.4)(columns, generator())
    is_wrong = (heard != rows).any(-1)
    assert is_wrong.any() and not is_wrong[:, given].any() and not is_wrong[:, 0].any()


def test_without_a_share_all_is_heard_as_it_is():
    rows = rows_of(4, 8, 128)
    assert torch.equal(WrongNotes(VOCABULARY, 0.0)(rows, generator()), rows)
