"""Velocities: learned from songs, looked up in files, drawn for made notes, fitted to given ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mido
import numpy as np
import pytest
from random_songs import random_song

from backline.common.errors import UserError
from backline.music.casting import assign_parts
from backline.music.dynamics import (
    ANY,
    DynamicsTable,
    describe_notes,
    given_dynamics,
    kind_names,
    made_velocities,
)
from backline.music.dynamics_learning import learn, played
from backline.music.midi_tracks import read_tracks, song_of_tracks
from backline.music.midi_writer import VELOCITY
from backline.music.note_velocities import row_velocities, strikes_of_parts
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, load_vocabulary
from tokenizer import MidiTokenizerPooled, canonical

V = load_vocabulary()
STEPS = V.steps_per_bar
KICK, HAT, C4 = 36, 42, 60
ON_BEAT, OFF_BEAT = 110, 70  # velocities of the hats of `groove`
N_SONGS = 200


def file_velocities(path, rows, vocabulary) -> np.ndarray:
    """(N,) velocities of (N, F) rows made of a MIDI file from its first bar on."""
    midi = read_tracks(path)
    song, voices = song_of_tracks(midi, str(path))
    strikes = strikes_of_parts(midi, voices, assign_parts(song, vocabulary))
    return row_velocities(rows, strikes, song.ticks_per_quarter, vocabulary)


def note_id(part: str, pitch: int) -> int:
    p = V.part_names.index(part)
    return V.first_pitch_ids[p] + pitch - V.parts[p].lowest_pitch


def rows_of(notes: list[tuple[int, int, str, int]]) -> np.ndarray:
    """(N, F) rows of (bar, step, part, pitch)."""
    rows = [[FIRST_ID + bar, FIRST_ID + step, FIRST_ID, note_id(part, pitch)] for bar, step, part, pitch in notes]
    return canonical(np.array(rows))


def groove(n_bars: int = 8) -> np.ndarray:
    """Hats in eighths, a kick on one and three, a piano chord on one."""
    bars = range(n_bars)
    return rows_of([*((bar, step, "drums", HAT) for bar in bars for step in range(0, STEPS, STEPS // 8)),
                    *((bar, step, "drums", KICK) for bar in bars for step in (0, STEPS // 2)),
                    *((bar, 0, "piano", pitch) for bar in bars for pitch in (C4, C4 + 4, C4 + 7))])


def are(rows: np.ndarray, part: str, pitch: int) -> np.ndarray:
    return rows[:, PITCH_INSTRUMENT] == note_id(part, pitch)


def accented(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Hats louder on the beat, kicks at 120, the piano at 60; a little of chance."""
    is_on_beat = (rows[:, START_POS] - FIRST_ID) % (STEPS // 4) == 0
    velocity = np.where(is_on_beat, ON_BEAT, OFF_BEAT)
    velocity[are(rows, "drums", KICK)] = 120
    velocity[V.part_of_id[rows[:, PITCH_INSTRUMENT]] == V.part_names.index("piano")] = 60
    return velocity + random.integers(-2, 3, len(rows))


@pytest.fixture(scope="module")
def table() -> DynamicsTable:
    random = np.random.default_rng(0)
    rows = groove()
    return learn([played(rows, accented(rows, random), V) for _ in range(N_SONGS)], V)


# ---------------------------------------------------------------- learning


def test_the_table_says_how_loud_each_kind_is_and_where(table):
    hat = table.parts["drums"].kinds["closed_hat"]
    assert hat.level == pytest.approx((ON_BEAT + OFF_BEAT) / 2, abs=1)
    rows = groove(1)
    on_beat, *_, off_beat = hat.effects(describe_notes(rows, V).only(are(rows, "drums", HAT)))
    assert on_beat - off_beat > 0.7 * (ON_BEAT - OFF_BEAT)  # some of it is not believed
    assert table.parts["drums"].kinds["kick"].level == pytest.approx(120, abs=1)
    assert table.parts["piano"].kinds["octave 4"].level == pytest.approx(60, abs=1)
    assert "bass" not in table.parts and table.n_songs == N_SONGS


def test_what_returns_in_each_bar_and_what_does_not_are_told_apart():
    random, rows = np.random.default_rng(1), groove(32)
    eighth = (rows[:, START_POS] - FIRST_ID) // (STEPS // 8)
    songs = {"bar": [], "notes": [], "bars": []}
    for _ in range(30):
        songs["bar"].append(80 + random.integers(-20, 21, 8)[eighth])
        songs["notes"].append(80 + random.integers(-20, 21, len(rows)))
        songs["bars"].append(80 + random.integers(-20, 21, 32)[rows[:, BAR] - FIRST_ID])
    for share, velocities in songs.items():
        hat = learn([played(rows, each, V) for each in velocities], V).parts["drums"].kinds["closed_hat"]
        shares = dict(zip(("quarter", "half", "bar", "bars", "strikes", "notes"), hat.shares, strict=True))
        assert max(shares, key=shares.__getitem__) == share
        assert shares[share] > 0.7


def test_a_song_struck_at_one_velocity_says_nothing():
    rows = groove()
    assert played(rows, np.full(len(rows), 77), V) is None
    assert played(rows, np.zeros(len(rows), int), V) is None


def test_too_few_songs_are_an_error():
    rows = groove()
    with pytest.raises(UserError, match="too few"):
        learn([played(rows, accented(rows, np.random.default_rng(0)), V)], V)


def test_the_table_comes_back_from_json(table):
    data = json.loads(json.dumps(table.to_dict()))
    assert DynamicsTable.from_dict(data, V, Path("m.safetensors")) == table


@pytest.mark.parametrize("damage", [
    lambda data: data.pop("parts"),
    lambda data: data.update(steps_per_bar=16),
    lambda data: data["parts"]["drums"]["kinds"].pop(ANY),
    lambda data: data["parts"]["drums"]["kinds"]["kick"].update(level=300.0),
    lambda data: data["parts"]["drums"]["kinds"]["kick"].update(place=[1.0]),
    lambda data: data["parts"]["drums"]["kinds"]["kick"].update(shares=[-1.0] * 6),
    lambda data: data["parts"]["drums"]["kinds"]["kick"].update(spreads="loud"),
    lambda data: data["parts"]["drums"].update(follow=2.0),
])
def test_a_damaged_table_is_one_line(table, damage):
    data = table.to_dict()
    damage(data)
    with pytest.raises(UserError, match=r"m\.safetensors: its table of dynamics is damaged .*dynamics\.py") as caught:
        DynamicsTable.from_dict(data, V, Path("m.safetensors"))
    assert "\n" not in str(caught.value)


def test_every_note_has_a_kind_and_its_company():
    assert ("drums", "snare") in kind_names(V) and ("bass", "octave 2") in kind_names(V)
    rows = groove(1)
    notes = describe_notes(rows, V)
    piano = notes.only(V.part_of_id[rows[:, PITCH_INSTRUMENT]] == V.part_names.index("piano"))
    assert piano.company.tolist() == [2, 2, 1]  # the highest comes last
    assert describe_notes(rows[:0], V).kind.shape == (0,)


# ---------------------------------------------------------------- draws


def test_made_notes_are_played_as_the_songs_are_and_the_same_seed_alike(table):
    rows = groove()
    velocity = made_velocities(rows, V, table, 3)
    assert (velocity == made_velocities(rows, V, table, 3)).all()
    assert (velocity != made_velocities(rows, V, table, 4)).any()
    hats = are(rows, "drums", HAT)
    on_beat = (rows[:, START_POS] - FIRST_ID) % (STEPS // 4) == 0
    assert velocity[hats & on_beat].mean() - velocity[hats & ~on_beat].mean() > 20
    assert velocity[are(rows, "drums", KICK)].mean() == pytest.approx(120, abs=6)


@pytest.mark.parametrize("seed", range(5))
def test_velocities_stay_within_what_midi_holds(table, seed):
    wild = dataclasses.replace(table.parts["drums"].kinds["kick"], spreads=(90.0,) * 10)
    drums = dataclasses.replace(table.parts["drums"], kinds={ANY: wild})
    velocity = made_velocities(random_song(seed), V, dataclasses.replace(table, parts={"drums": drums}), seed)
    assert velocity.min() >= 1 and velocity.max() <= 127 and velocity.dtype == np.int64


def test_what_other_parts_play_changes_nothing(table):
    rows = groove()
    drums = V.part_of_id[rows[:, PITCH_INSTRUMENT]] == 0
    assert (made_velocities(rows, V, table, 3)[drums] == made_velocities(rows[drums], V, table, 3)).all()


def test_without_a_table_and_in_parts_it_lacks_all_are_alike(table):
    rows = rows_of([(0, step, "bass", 40) for step in range(8)])
    assert set(made_velocities(rows, V, None, 0)) == {VELOCITY} == set(made_velocities(rows, V, table, 0))
    assert made_velocities(rows[:0], V, table, 0).shape == (0,)


# ---------------------------------------------------------------- to what is given


def given_part(name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = groove()
    velocity = accented(rows, np.random.default_rng(5))
    own = V.part_of_id[rows[:, PITCH_INSTRUMENT]] == V.part_names.index(name)
    return rows[own], velocity[own]


def test_made_notes_are_as_loud_as_given_ones(table):
    rows, velocity = given_part("piano")
    drums, _ = given_part("drums")
    means = [made_velocities(drums, V, table, 1, given_dynamics(rows, velocity // quieter, V, table)).mean()
             for quieter in (1, 2)]
    assert means[1] == pytest.approx(means[0] / 2, rel=0.3)


def test_made_notes_are_as_lively_as_given_ones(table):
    rows, velocity = given_part("drums")
    hats = are(rows, "drums", HAT)
    tame = np.where(hats, 90 + (velocity - 90) // 8, velocity)
    calm, lively = (made_velocities(rows, V, table, 1, given_dynamics(rows, each, V, table))[hats].std()
                    for each in (tame, velocity))
    assert calm < 0.5 * lively


def test_to_given_notes_that_are_all_alike_made_ones_are_the_same(table):
    rows, _ = given_part("drums")
    flat = given_dynamics(rows, np.full(len(rows), 64), V, table)
    assert set(made_velocities(groove(), V, table, 1, flat)) == {64}


def test_of_given_notes_without_velocities_nothing_is_known(table):
    rows, _ = given_part("drums")
    assert given_dynamics(rows, np.zeros(len(rows), int), V, table) is None


# ---------------------------------------------------------------- in files


def test_velocities_are_found_in_the_file_that_rows_are_of(tmp_path):
    rows = groove(2)
    rows[:, NOTE_DUR] = FIRST_ID
    velocities = np.random.default_rng(0).integers(1, 128, len(rows))
    midi = MidiTokenizerPooled().create_midi_from_tokens(rows)
    for p, instrument in enumerate(midi.instruments):
        own = velocities[V.part_of_id[rows[:, PITCH_INSTRUMENT]] == p]
        for note, velocity in zip(sorted(instrument.notes, key=lambda n: (n.start, n.pitch)), own, strict=True):
            note.velocity = int(velocity)
    midi.dump(tmp_path / "song.mid")
    assert (file_velocities(tmp_path / "song.mid", rows, V) == velocities).all()
    elsewhere = rows.copy()
    elsewhere[:, BAR] += 5
    assert not file_velocities(tmp_path / "song.mid", elsewhere, V).any()


def test_of_strikes_that_fall_into_one_step_the_loudest_counts(tmp_path):
    track = mido.MidiTrack([mido.MetaMessage("track_name", name="piano")])
    for velocity, time in ((50, 0), (90, 1), (70, 1)):
        track.append(mido.Message("note_on", note=C4, velocity=velocity, time=time))
        track.append(mido.Message("note_on", note=C4, velocity=0))
    mido.MidiFile(tracks=[track], ticks_per_beat=480).save(tmp_path / "roll.mid")
    assert file_velocities(tmp_path / "roll.mid", rows_of([(0, 0, "piano", C4)]), V).tolist() == [90]
