"""One hundred thousand notes at temperature 5: each rule is checked by itself, in plain Python, and none is broken."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict

import numpy as np
import pytest
from random_songs import random_song
from tiny_models import tiny_model

from backline.engine.torch_player import TorchPlayer
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Request, sample_songs
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, load_vocabulary

VOCABULARY = load_vocabulary()
STEPS = VOCABULARY.steps_per_bar
HOT = GenConfig(temperature=(5.0,) * len(FIELDS), sampling_fn="none", max_steps=400)
SONGS = 32
WANTED = 100_000
A_MINOR = {9, 11, 0, 2, 4, 5, 7}


@dataclasses.dataclass(frozen=True)
class Case:
    """Rules, and what they mean, said again in numbers."""

    config: RuleConfig = dataclasses.field(default_factory=RuleConfig)
    bars: int = 256
    made: tuple[str, ...] = ()
    exact: bool = False
    loop: bool = False
    pitch_classes: frozenset[int] = frozenset(range(12))
    pitches: dict[str, set[int]] = dataclasses.field(default_factory=dict)


CASES = {
    "none": Case(),
    "key": Case(RuleConfig(key="A", scale="minor"), pitch_classes=frozenset(A_MINOR)),
    "pitches": Case(RuleConfig(pitches={"bass": "28-52", "drums": "kick, snare, hats"}),
                    pitches={"bass": set(range(28, 53)), "drums": {35, 36, 38, 40, 42, 44, 46}}),
    "one at a time": Case(RuleConfig(monophonic=("bass", "piano"))),
    "few": Case(RuleConfig(max_chord={"piano": 3, "drums": 2}, max_per_bar={"bass": 4, "piano": 9})),
    "eight bars": Case(RuleConfig(no_empty_bars=True), 8, exact=True, loop=True),
    "all": Case(RuleConfig(key="A", scale="minor", pitches={"bass": "28-52"}, monophonic=("bass",),
                           max_chord={"piano": 4}, max_per_bar={"drums": 16}, no_empty_bars=True), 64,
                ("drums", "bass"), exact=True, loop=True, pitch_classes=frozenset(A_MINOR),
                pitches={"bass": set(range(28, 53))}),
}


def broken(case: Case, prompt: np.ndarray, new: np.ndarray, begun: int, ended: bool) -> Counter:
    """How often each rule is broken by notes `new` (N, F), made after `prompt`; bars from 0."""
    found, config = Counter(), case.config
    chords, per_bar, free = Counter(), Counter(), defaultdict(int)
    last = (-1, -1, -1)
    for number, row in enumerate([*prompt.tolist(), *new.tolist()]):
        bar, step, steps, name, pitch = _heard(row)
        if number >= len(prompt):
            time = bar * STEPS + step
            found["special"] += min(row) <= max(BOS, EOS)
            found["order"] += (bar, step, row[-1]) <= last
            found["bars"] += bar >= begun + case.bars
            found["parts"] += bool(case.made) and name not in case.made
            found["key"] += name != "drums" and pitch % 12 not in case.pitch_classes
            found["pitches"] += pitch not in case.pitches.get(name, {pitch})
            found["one at a time"] += name in config.monophonic and time < free[name]
            found["chord"] += chords[name, time] >= config.max_chord.get(name, np.inf)
            found["bar"] += per_bar[name, bar] >= config.max_per_bar.get(name, np.inf)
            found["loop"] += case.loop and time + steps > (begun + case.bars) * STEPS
        last = (bar, step, row[-1])
        free[name] = max(free[name], bar * STEPS + step + steps)
        chords[name, bar * STEPS + step] += 1
        per_bar[name, bar] += 1
    bars = set((new[:, BAR] - FIRST_ID).tolist())
    if config.no_empty_bars and bars:
        found["empty bar"] += len(set(range(begun, max(bars) + 1)) - bars)
    found["too short"] += case.exact and ended and begun + case.bars - 1 not in bars
    return found


def _heard(row: list[int]) -> tuple[int, int, int, str, int]:
    """Bar, step, length in steps, part and pitch of a note."""
    bar, step, duration, played = (id_ - FIRST_ID for id_ in row)
    for part in VOCABULARY.parts:
        if played < part.n_pitches:
            return bar, step, duration + 1, part.name, part.lowest_pitch + played
        played -= part.n_pitches
    raise AssertionError(row)


@pytest.mark.slow
def test_a_hundred_thousand_notes_break_no_rule():
    model = tiny_model(VOCABULARY, block_size=64, sharpness=1, bars="relative")
    model.heads[BAR].bias.data[FIRST_ID:] = -2.0 * model.heads[BAR].bias.new_tensor(range(VOCABULARY.bars))
    model.heads[BAR].bias.data[EOS] = -1e4  # songs of some length
    counts, found, round_number = Counter(), defaultdict(Counter), 0
    while counts.total() < WANTED:
        for name, case in CASES.items():
            requests, begun = [], 0
            for i in range(SONGS):
                prompt = random_song(i, 20, 2) if i % 2 and case.bars < VOCABULARY.bars else random_song(0, 0)
                begun = int(prompt[-1, BAR]) - FIRST_ID + 1 if len(prompt) else 0
                rules = Rules(VOCABULARY, case.config, Passage(
                    begun + case.bars, first_bar=begun, parts=case.made, exact=case.exact, loop=case.loop))
                requests.append((Request(rules, 1000 * round_number + i, prompt), begun))
            songs = sample_songs(TorchPlayer(model), [request for request, _ in requests], HOT)
            for (request, begun), song in zip(requests, songs, strict=True):
                counts[name] += len(song.notes)
                found[name].update(broken(case, request.prompt, song.notes, begun, len(song.notes) < HOT.max_steps))
        round_number += 1
    print("\nnotes at temperature 5, and how many broke a rule:")
    for name, number in counts.items():
        print(f"{name:14s} {number:7d} notes: {dict(found[name])}")
    assert sum(of_case.total() for of_case in found.values()) == 0
    assert min(counts.values()) > 1000
