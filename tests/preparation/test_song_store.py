"""Songs on disk on their way into a dataset."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from random_songs import VOCABULARY, random_song

from backline.common.errors import UserError
from backline.folders.inputs import Listing
from backline.music.vocab import load_vocabulary
from backline.preparation.song_store import Entry, SongStore

SHAPE = (2, 4)


def entry(number: int, n_notes: int = 5) -> Entry:
    rows = random_song(number, n_notes).astype(VOCABULARY.id_type)
    return Entry(rows.tobytes(), bytes([number]) * 16, np.full(SHAPE, number, np.uint32))


@pytest.fixture
def listing(tmp_path) -> Listing:
    """Five files, in this order."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "Fl\udcf6te", "c", "d"):
        (tmp_path / "in" / f"{name}.json").write_text(name.encode("utf-8", "replace").decode())
    return Listing([tmp_path / "in"], (".json",), tmp_path / "d.pt", "")


def opened(tmp_path: Path, vocabulary=VOCABULARY, shape=SHAPE) -> SongStore:
    return SongStore(tmp_path / "songs", vocabulary, shape)


def filled(store: SongStore, listing: Listing, first: int = 0, last: int = 5) -> None:
    """Every second file from the second on is left out."""
    for number, task in list(enumerate(listing))[first:last]:
        store.add(task, None if number % 2 else entry(number, 5 + number), f"reason {number}" if number % 2 else "")


def check(store: SongStore, listing: Listing) -> None:
    """What is there of `filled`."""
    kept = [0, 2, 4]
    assert store.lengths().tolist() == [5, 7, 9] and store.lengths().dtype == np.int64
    assert store.keys().tolist() == [bytes([number]) * 16 for number in kept]
    assert list(store.names()) == [list(listing)[number].name for number in kept]
    assert list(store.left_out()) == ["reason 1", "reason 3"]
    assert store.signatures().shape == (3, *SHAPE) and store.signatures().dtype == np.uint32
    assert store.signatures()[:, 0, 0].tolist() == kept
    order = np.array([2, 0, 1, 1])
    assert list(store.notes(order)) == [entry(2 * number, 5 + 2 * number).notes for number in order]


def test_what_is_added_is_there_in_order(tmp_path, listing):
    with opened(tmp_path) as store:
        assert store.done_before(listing) == 0
        assert store.lengths().tolist() == [] and store.signatures().shape == (0, *SHAPE)
        filled(store, listing)
        store.commit()
        check(store, listing)
        store.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("after", range(6))
def test_what_was_read_before_is_there_again(tmp_path, listing, after):
    with opened(tmp_path) as store:
        store.done_before(listing)
        filled(store, listing, 0, after)
    with opened(tmp_path) as store:
        assert store.done_before(listing) == after
        filled(store, listing, after)
        store.commit()
        check(store, listing)


def test_notes_that_the_index_does_not_count_are_forgotten(tmp_path, listing):
    """A run that is killed between the two: notes are on the disk, the index is of the last commit."""
    with opened(tmp_path) as store:
        store.done_before(listing)
        filled(store, listing, 0, 2)
    for name in ("notes", "signatures"):
        with open(tmp_path / "songs" / name, "ab") as file:
            file.write(b"half a song")
    with opened(tmp_path) as store:
        assert store.done_before(listing) == 2
        filled(store, listing, 2)
        store.commit()
        check(store, listing)


@pytest.mark.parametrize(("change", "first"), [
    ("content", "b"), ("time", "b"), ("removed", "c"), ("added", "cc"), ("another", "d")])
def test_from_the_first_file_that_changed_on_all_are_read_again(tmp_path, listing, change, first):
    """`first`: the file, of those there are then, that is read again first."""
    with opened(tmp_path) as store:
        store.done_before(listing)
        filled(store, listing)
    path = tmp_path / "in" / ("d.json" if change == "another" else "b.json")
    if change in ("content", "another"):
        path.write_text("longer than before")
    elif change == "time":
        later = path.stat().st_mtime_ns + 1
        os.utime(path, ns=(later, later))
    elif change == "removed":
        path.unlink()
    else:
        (tmp_path / "in" / "cc.json").write_text("new")
    with opened(tmp_path) as store:
        expected = [Path(task.source).stem for task in listing].index(first)
        assert store.done_before(listing) == expected
        assert len(store.signatures()) == len(store.lengths()) == len(range(0, expected, 2))


@pytest.mark.parametrize("other", ["vocabulary", "signature"])
def test_a_store_of_other_settings_is_begun_again(tmp_path, listing, other):
    with opened(tmp_path) as store:
        store.done_before(listing)
        filled(store, listing)
    vocabulary = load_vocabulary(VOCABULARY.to_dict() | {"bars": 300}) if other == "vocabulary" else VOCABULARY
    with opened(tmp_path, vocabulary, (2, 8) if other == "signature" else SHAPE) as store:
        assert store.done_before(listing) == 0
        assert store.lengths().tolist() == [] and store.signatures().shape[0] == 0


def test_two_at_once_are_refused(tmp_path, listing):
    with opened(tmp_path) as store:
        store.done_before(listing)
        with pytest.raises(UserError, match="another run is writing here"), opened(tmp_path):
            pass
        filled(store, listing)
        store.commit()
        check(store, listing)
