"""Given notes: read a fixed time ahead, in training as in generation, and their cost left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_songs import random_song, whole
from tiny_models import given_model

from backline.music.reading_order import GivenNotes, reading_order
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, PITCH_INSTRUMENT, load_vocabulary
from backline.training.given_tasks import REACH, Anticipation
from backline.training.losses import n_predicted, window_losses

VOCABULARY = load_vocabulary()
LENGTH = 160


def windows(seed: int, n_rows: int = 6, length: int = REACH * LENGTH) -> torch.Tensor:
    """(N, T, F) windows of songs joined end to end, as a dataset holds them."""
    random = np.random.default_rng(seed)
    songs = []
    while sum(map(len, songs)) < n_rows * length:
        n_notes = int(random.integers(20, 250))
        songs.append(whole(random_song(int(random.integers(2**31)), n_notes, max(n_notes // 8, 2))))
    return torch.from_numpy(np.concatenate(songs)[:n_rows * length]).view(n_rows, length, 4)


@given(data=st.data(), lookahead=st.integers(0, 6))
def test_reading_order_is_that_of_handing_out_what_is_due(data, lookahead):
    bars = np.sort(np.array(data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=30))))
    is_given = np.array(data.draw(st.lists(st.booleans(), min_size=len(bars), max_size=len(bars))))
    waiting, expected = [i for i in range(len(bars)) if is_given[i]], []

    def hand_out(bar: int) -> None:
        while waiting and bars[waiting[0]] <= bar + lookahead:
            expected.append(waiting.pop(0))

    hand_out(0)
    for i in np.flatnonzero(~is_given):
        expected.append(int(i))
        hand_out(bars[i])
    assert reading_order(bars, is_given, 0, lookahead).tolist() == expected + waiting


@given(bars=st.lists(st.integers(0, 15), max_size=30), lookahead=st.integers(0, 5),
       moments=st.lists(st.integers(0, 15), max_size=10))
def test_given_notes_are_handed_out_once_and_in_order(bars, lookahead, moments):
    rows = np.array([[FIRST_ID + bar, FIRST_ID, 5, 20] for bar in sorted(bars)]).reshape(-1, 4)
    notes, found = GivenNotes(rows, lookahead), []
    for moment in sorted(moments):
        found += notes.due(moment)
        assert len(found) == sum(bar <= moment + lookahead for bar in bars)
    assert found == [tuple(row) for row in rows[:len(found)].tolist()]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), bars=st.integers(0, 6))
def test_each_made_note_knows_the_given_ones_that_are_due_and_no_others(seed, bars):
    rows = windows(seed)
    tasks = Anticipation(VOCABULARY, bars, 1.0)(rows, LENGTH, torch.Generator().manual_seed(seed)).numpy()
    assert tasks.shape == (len(rows), LENGTH, len(FIELDS) + 1)
    assert tasks[..., -1].any() and not tasks[..., -1].all()
    for row, before in zip(tasks, rows.numpy(), strict=True):
        notes = {tuple(note) for note in before.tolist()}
        assert {tuple(note) for note in row[:, :-1].tolist()} <= notes | {(0,) * 4, (EOS,) * 4}
        for piece in np.split(row, np.flatnonzero(row[:, BAR] == BOS)):
            song = piece[piece[:, BAR] >= FIRST_ID]
            bar, marked = song[:, BAR], song[:, -1].astype(bool)
            made = np.flatnonzero(~marked)
            assert (np.diff(bar[made]) >= 0).all() and (np.diff(bar[marked]) >= 0).all()
            for previous, note in itertools.pairwise(made):
                due = marked & (bar <= bar[previous] + bars)
                assert (np.flatnonzero(due) < note).all()  # those due are read
                between = np.arange(previous + 1, note)
                assert (bar[between] <= bar[previous] + bars).all()  # and no others


def test_the_end_of_a_row_knows_as_much_of_what_comes_as_its_beginning():
    lookahead, n_checked = 2, 0
    rows = torch.from_numpy(np.stack([whole(random_song(seed, 318, 40)) for seed in range(40)]))
    tasks = Anticipation(VOCABULARY, lookahead, 1.0)(rows, LENGTH, torch.Generator().manual_seed(0)).numpy()
    for task, before in zip(tasks, rows.numpy(), strict=True):
        song, notes = task[task[:, BAR] >= FIRST_ID], before[before[:, BAR] >= FIRST_ID]
        part, marked = VOCABULARY.part_of_id[song[:, PITCH_INSTRUMENT]], song[:, -1].astype(bool)
        given = set(part[marked].tolist())
        if (task[:, BAR] == EOS).any() or given & set(part[~marked].tolist()):
            continue  # bars filled
        last_made = np.flatnonzero(~marked)[-2]
        due = np.isin(VOCABULARY.part_of_id[notes[:, PITCH_INSTRUMENT]], list(given))
        due &= notes[:, BAR] <= song[last_made, BAR] + lookahead
        assert due.sum() == marked[:np.flatnonzero(~marked)[-1]].sum()
        n_checked += 1
    assert n_checked >= 10


def test_tasks_are_of_both_kinds_and_a_share_of_the_rows():
    rows = windows(0, 200)
    tasks = Anticipation(VOCABULARY, 4, 0.5)(rows, LENGTH, torch.Generator().manual_seed(0))
    is_task = (tasks[..., -1] != 0).any(1) | (tasks[..., :-1] != rows[:, :LENGTH]).any(2).any(1)
    assert 80 < is_task.sum() < 120
    ends = [(task[:, BAR] == EOS).sum() - (row[:LENGTH, BAR] == EOS).sum()
            for task, row in zip(tasks, rows, strict=True)]
    assert sum(end > 0 for end in ends) > 5  # bars filled: EOS ends what is made
    kinds = set()
    for task in tasks[is_task]:
        names = VOCABULARY.part_of_id[task[:, PITCH_INSTRUMENT]]
        marked = task[:, -1].bool().numpy()
        kinds.add((frozenset(names[marked & (names >= 0)].tolist()), frozenset(names[~marked & (names >= 0)].tolist())))
    assert len(kinds) >= 12


def test_given_notes_cost_nothing_and_are_told_apart():
    model, rows = given_model(), windows(3)
    tasks = Anticipation(VOCABULARY, 2, 1.0)(rows, LENGTH, torch.Generator().manual_seed(1))
    losses = window_losses(model, model.config, tasks)
    marked = tasks[:, 1:, -1].bool()
    assert (losses[marked] == 0).all() and (losses[~marked] > 0).all()
    assert n_predicted(tasks) == int((~marked).sum()) and n_predicted(rows) == rows[:, 1:, 0].numel()
    model.given.data.normal_()
    other = window_losses(model, model.config, tasks)
    first = [int(torch.nonzero(task[:, -1])[0]) for task in tasks]
    for b, where in enumerate(first):
        assert torch.equal(losses[b, :where], other[b, :where])
        assert not torch.allclose(losses[b, where:][~marked[b, where:]], other[b, where:][~marked[b, where:]])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_same_draws_same_tasks(share):
    rows, make = windows(5), Anticipation(VOCABULARY, 4, share)
    first, again = (make(rows, LENGTH, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert bool(first[..., -1].any()) == bool(share)


def test_a_song_of_which_only_silent_notes_are_in_a_row_leaves_the_row_to_the_others():
    """A row may begin with a song's last notes, all of one part."""
    rows = torch.zeros((1, 16, len(FIELDS)), dtype=torch.long)
    song = torch.from_numpy(whole(random_song(0, 10)))
    rows[0, :2] = torch.tensor([[30, 4, 4, 60], [30, 8, 4, 60]])  # the bass alone
    rows[0, 2:2 + len(song)] = song
    for seed in range(200):
        made = Anticipation(load_vocabulary(), 4, 1.0)(rows, 12, torch.Generator().manual_seed(seed))
        assert made.shape == (1, 12, len(FIELDS) + 1)
