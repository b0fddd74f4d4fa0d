"""The folder is the state: whatever is written, moved or deleted, nothing is lost or overwritten."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from pages import V, write_idea
from random_songs import random_song

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.studio.folder import IdeaGoneError, StudioFolder, safe_name


@pytest.fixture
def ideas(tmp_path):
    for number in range(3):
        write_idea(tmp_path, number)
    return StudioFolder(tmp_path, V)


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.mid"))}


def test_earlier_songs_are_ideas(ideas):
    found = ideas.ideas()
    assert [idea.number for idea in found] == [0, 1, 2]
    assert [idea.title for idea in found] == ["Idea 1", "Idea 2", "Idea 3"]
    assert all(idea.hash == file_hash(idea.path) and not idea.parents for idea in found)
    assert ideas.idea(found[1].id).path == found[1].path


def test_what_is_deleted_comes_back_with_all_its_files(ideas, tmp_path):
    before = files(tmp_path)
    gone = ideas.ideas()[2]
    ideas.throw_away(gone)
    assert [idea.number for idea in ideas.ideas()] == [0, 1]
    assert sorted(files(tmp_path / "bin").values()) == sorted(data for name, data in before.items()
                                                             if name.startswith("2"))
    with pytest.raises(IdeaGoneError, match="no longer in the folder"):
        ideas.idea(gone.id)
    ideas.take_back(gone.hash)
    assert files(tmp_path) == before
    with pytest.raises(IdeaGoneError, match="not in the bin"):
        ideas.take_back(gone.hash)


def test_what_comes_back_replaces_nothing(ideas, tmp_path):
    gone = ideas.ideas()[2]
    ideas.throw_away(gone)
    write_idea(tmp_path, 2, random_song(9, 60, 4))  # as another run may
    before = files(tmp_path)
    path = ideas.take_back(gone.hash)
    assert path.name == "3.mid" and file_hash(path) == gone.hash
    assert before.items() - files(tmp_path).items() == {item for item in before.items() if item[0].startswith("bin")}


def test_a_person_s_files_stay_whatever_number_they_begin_with(ideas, tmp_path):
    mine = {name: tmp_path / name for name in ("2-my_idea.mid", "2.txt", "2-drums.wav", "2 mix.mid")}
    for name, path in mine.items():
        path.write_bytes(name.encode())
    gone = ideas.ideas()[2]
    ideas.throw_away(gone)
    assert all(path.read_bytes() == name.encode() for name, path in mine.items())
    assert not any(path.read_bytes() == name.encode() for name in mine for path in (tmp_path / "bin").iterdir())
    ideas.take_back(gone.hash)
    assert all(path.read_bytes() == name.encode() for name, path in mine.items())


def test_several_with_one_number_keep_apart_in_the_bin(ideas, tmp_path):
    hashes = set()
    for seed in range(3):
        write_idea(tmp_path, 2, random_song(20 + seed, 60, 4))
        idea = ideas.ideas()[2]
        hashes.add(idea.hash)
        ideas.throw_away(idea)
    assert set(ideas.binned_hashes()) == hashes and len(hashes) == 3


def test_two_studios_of_one_folder_lose_nothing_that_was_written(ideas, tmp_path):
    other = StudioFolder(tmp_path, V)
    one, two = ideas.ideas()[:2]
    ideas.keep(one.hash, {"name": "verse"})
    other.keep(two.hash, {"note": "too busy"})
    ideas.keep(one.hash, {"star": True})
    kept = StudioFolder(tmp_path, V).kept
    assert kept == {one.hash: {"name": "verse", "star": True}, two.hash: {"note": "too busy"}}


def test_what_somebody_damaged_meanwhile_is_not_replaced(ideas, tmp_path):
    (tmp_path / "studio.json").write_text("{")
    with pytest.raises(UserError, match=r"studio\.json: not valid JSON"):
        ideas.keep(ideas.ideas()[0].hash, {"name": "verse"})
    assert (tmp_path / "studio.json").read_text() == "{"


@pytest.mark.parametrize("after", range(5))
def test_a_kill_while_an_idea_is_deleted_loses_nothing(ideas, tmp_path, monkeypatch, after):
    """After each of the files that leave the folder, the song's own first."""
    before = set(files(tmp_path).values())
    left = [after]

    real = type(tmp_path).unlink

    def until_killed(path, missing_ok=False):
        if path.parent == tmp_path:
            if not left[0]:
                raise SystemExit
            left[0] -= 1
        real(path, missing_ok)

    monkeypatch.setattr(type(tmp_path), "unlink", until_killed)
    idea = ideas.ideas()[1]
    with contextlib.suppress(SystemExit):
        ideas.throw_away(idea)
    assert set(files(tmp_path).values()) == before
    assert idea.hash in ideas.binned_hashes()


def test_a_changed_file_is_another_idea(ideas, tmp_path):
    before = ideas.ideas()[0]
    shutil.copy(tmp_path / "1.mid", tmp_path / "0.mid")
    assert ideas.ideas()[0].id != before.id
    with pytest.raises(IdeaGoneError):
        ideas.idea(before.id)


def test_what_cannot_be_read_is_named(ideas, tmp_path):
    (tmp_path / "3.mid").write_bytes(b"no MIDI")
    assert len(ideas.ideas()) == 3
    assert list(ideas.unreadable) == ["3.mid"] and "3.mid" in ideas.unreadable["3.mid"]


# ---------------------------------------------------------------- names


def test_names_notes_and_stars_stay(ideas, tmp_path):
    idea = ideas.ideas()[0]
    assert ideas.keep(idea.hash, {"name": "<b>Verse</b>", "star": True}) == {"name": "", "star": False}
    ideas.remember(idea.hash, ["told: much"])
    again = StudioFolder(tmp_path, V)
    assert again.name_of(idea) == "<b>Verse</b>"
    assert again.kept[idea.hash] == {"name": "<b>Verse</b>", "star": True, "said": ["told: much"]}


@pytest.mark.parametrize("change", [{"name": 1}, {"star": "yes"}, {"path": "x"}, {"name": "x" * 81}, {"said": "x"}])
def test_nothing_else_is_kept(ideas, change):
    with pytest.raises(UserError):
        ideas.keep(ideas.ideas()[0].hash, change)
    assert not ideas.kept


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', json.dumps({
    "format": "backline-studio", "version": 1, "ideas": {"a": 1}})])
def test_a_damaged_sidecar_is_one_line(tmp_path, text):
    (tmp_path / "studio.json").write_text(text)
    with pytest.raises(UserError, match=r"studio\.json"):
        StudioFolder(tmp_path, V)


# ---------------------------------------------------------------- given songs


@pytest.mark.parametrize(("name", "safe"), [
    ("loop.mid", "loop"), ("../../etc/passwd.mid", "passwd"), ("C:\\songs\\My Bass 2.MIDI", "My Bass 2"),
    ("<img src=x>.mid", "img src x"), ("..mid", "song"), ("", "song"), (".hidden.mid", "hidden"),
    ("a\0b.mid", "a b"), ("x" * 300 + ".mid", "x" * 60), ("Схема.mid", "Схема"),
])
def test_names_of_dropped_files_are_no_paths(name, safe):
    assert safe_name(name) == safe


def test_dropped_songs_are_kept_once_and_replace_nothing(ideas, tmp_path):
    one, other = (write_idea(tmp_path / "elsewhere", number).read_bytes() for number in (5, 6))
    path = ideas.add_given("../loop.mid", one)
    assert path == tmp_path / "given/loop.mid"
    assert ideas.add_given("loop.mid", one) == path
    assert ideas.add_given("loop.mid", other).name == "loop 2.mid"
    assert path.read_bytes() == one
    stems = {"drums.mid": one, "../drums.mid": other}
    joined = ideas.add_given("both.mid", other, stems)
    assert sorted(place.name for place in (tmp_path / "given/both").iterdir()) == ["drums 2.mid", "drums.mid"]
    assert [idea.id.partition("-")[0] for idea in ideas.ideas()] == ["given"] * 3 + ["0", "1", "2"]
    assert joined.is_file()


def test_a_dropped_song_comes_back_by_its_name(ideas, tmp_path):
    ideas.add_given("my loop.mid", write_idea(tmp_path / "elsewhere", 5).read_bytes())
    dropped = ideas.ideas()[0]
    ideas.throw_away(dropped)
    assert not list((tmp_path / "given").iterdir()) and ideas.binned_hashes() == [dropped.hash]
    ideas.take_back(dropped.hash)
    back = ideas.by_hash(dropped.hash)
    assert back.number == 3 and ideas.name_of(back) == "my loop"


def test_a_full_disk_leaves_no_half_file(ideas, tmp_path, monkeypatch):
    def full(part, _place):
        assert part.read_bytes() == b"MThd"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backline.common.files.put_new", full)
    with pytest.raises(OSError, match="No space"):
        ideas.add_given("loop.mid", b"MThd")
    assert not list((tmp_path / "given").iterdir())
