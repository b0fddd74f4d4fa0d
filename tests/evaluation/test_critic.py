"""What the critic hears of a song, and its form in a model's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_songs import BAND, random_song
from written_songs import song

from backline.common.errors import UserError
from backline.evaluation.critic import Critic, column_names, critic_of, describe
from backline.evaluation.critic_learning import fit_critic
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, load_vocabulary

V = load_vocabulary()
WHERE = Path("model.safetensors")


def columns(rows: np.ndarray, kind: str, vocabulary=V) -> np.ndarray:
    """The shares of a histogram, such as "bass: length"."""
    names = column_names(vocabulary)
    which = [i for i, name in enumerate(names) if name.rpartition(" ")[0] == kind]
    assert which, kind
    return describe(rows, vocabulary)[which] ** 2


@pytest.mark.parametrize("vocabulary", [V, BAND], ids=["three parts", "a band"])
def test_each_histogram_holds_all_of_what_it_counts(vocabulary):
    names = column_names(vocabulary)
    for seed in range(5):
        found = describe(random_song(seed, 300, 8, vocabulary), vocabulary)
        assert found.shape == (len(names),) and np.isfinite(found).all() and (found >= 0).all()
        by_kind: dict[str, float] = {}
        for name, value in zip(names, found, strict=True):
            kind = name.rpartition(" ")[0]
            by_kind[kind] = by_kind.get(kind, 0.0) + value ** 2
        assert all(total == pytest.approx(1) or total == 0 for total in by_kind.values()), by_kind


def test_it_counts_what_the_names_say():
    rows = song((0, 0, 4, "bass", 36), (0, 8, 4, "bass", 43), (1, 0, 8, "bass", 36), (1, 8, 8, "bass", 31),
                (0, 0, 16, "piano", 60), (0, 0, 16, "piano", 64), (1, 8, 1, "piano", 67), (1, 4, 1, "drums", 38))
    position = columns(rows, "bass: position")
    assert position[[0, 8]] == pytest.approx([0.5, 0.5])
    length = columns(rows, "bass: length")
    assert length.nonzero()[0].tolist() == [3, 5], "four and eight steps"
    assert columns(rows, "bass: interval").nonzero()[0].tolist() == [12 - 7, 12 - 5, 12 + 7]
    assert columns(rows, "piano: in a chord").nonzero()[0].tolist() == [4]
    above = columns(rows, "piano above bass")
    assert above[[0, 4]] == pytest.approx([2 / 3, 1 / 3]), "C and E above C, G above G"
    assert columns(rows, "bass: same onsets")[-1] == pytest.approx(1), "both bars begin notes at the same steps"
    assert columns(rows, "drums: pitch")[38 - V.parts[0].lowest_pitch] == pytest.approx(1)
    assert columns(rows, "drums: notes in a bar")[[0, 1]] == pytest.approx([0.5, 0.5])


def test_bars_count_from_the_first_and_one_note_is_a_song():
    rows = random_song(3, 100, 4)
    later = rows.copy()
    later[:, BAR] += 7
    assert np.array_equal(describe(rows, V), describe(later, V))
    assert np.isfinite(describe(rows[:1], V)).all()


def test_a_fitted_critic_tells_kinds_apart_and_comes_back_from_json():
    real = [random_song(seed, 100, 8) for seed in range(60)]
    made = [random_song(seed, 100, 8) for seed in range(60, 120)]
    for rows in made:
        rows[:, NOTE_DUR] = FIRST_ID  # all as short as can be
    fitted = fit_critic(real, made, V)
    assert fitted.auc > 0.95
    realness = fitted.critic.realness
    assert np.mean([realness(rows, V) for rows in real]) > 0 > np.mean([realness(rows, V) for rows in made])
    again = critic_of({"critic": fitted.critic.to_dict()}, V, WHERE)
    for rows in (*real[:5], *made[:5]):
        assert again.realness(rows, V) == pytest.approx(realness(rows, V), abs=1e-2)
    assert critic_of({}, V, WHERE) is None


@pytest.mark.parametrize("change", [
    {"version": 9}, {"weights": [1.0]}, {"mean": None}, {"bias": "x"}, {"scale": [[1.0]]}, {"format": "another"}])
def test_a_damaged_critic_is_one_line(change):
    n = len(column_names(V))
    good = Critic(np.zeros(n), np.ones(n), np.zeros(n), 0.0).to_dict()
    assert critic_of({"critic": good}, V, WHERE) is not None
    for data in (good | change, "critic", 3, []):
        with pytest.raises(UserError, match=r"^model\.safetensors: .*critic") as error:
            critic_of({"critic": data}, V, WHERE)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="other columns than its parts"):
        Critic.from_dict(good, BAND, WHERE)
