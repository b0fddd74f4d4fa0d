"""Which files a run reads, in which order, and where their outputs go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.common.errors import UserError
from backline.folders.inputs import WHOLE, Input, Listing, Shard, distinct_stems, piece_path, song_of_piece
from backline.music.midi_chunks import MIDI_SUFFIXES


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def listed(*inputs: Path, output: Path | None = None, **more) -> list[Input]:
    listing = Listing(inputs, MIDI_SUFFIXES, output or Path("out"), ".json", **more)
    tasks = list(listing)
    assert tasks == list(listing)  # the same every time
    for task in tasks:
        assert Path(task.output) == listing.output / task.name
    return tasks


def sources(*inputs: Path, root: Path, output: Path | None = None) -> list[str]:
    return [Path(task.source).relative_to(root).as_posix() for task in listed(*inputs, output=output)]


# ---------------------------------------------------------------- what is found, and in which order


def test_a_folders_files_in_order_of_names_then_its_sub_folders(tmp_path):
    wanted = ["Z.MID", "a.mid", "B/x.kar", "b2/b.Midi", "b2/deep/c.kar", "c/a.mid"]
    touch(*(tmp_path / name for name in [*reversed(wanted), "notes.txt", "b2/._a.mid", ".hidden.mid", "x.midi.txt"]))
    (tmp_path / "folder.mid").mkdir()
    assert sources(tmp_path, root=tmp_path) == wanted
    assert [task.name for task in listed(tmp_path)] == ["Z.json", "a.json", "B/x.json", "b2/b.json", "b2/deep/c.json",
                                                        "c/a.json"]


def test_a_named_file_counts_whatever_its_suffix_and_each_file_once(tmp_path):
    touch(tmp_path / "a.mid", tmp_path / "b.bin", tmp_path / "c" / ".hidden")
    (tmp_path / "link.bin").symlink_to(tmp_path / "b.bin")
    inputs = [tmp_path / name for name in ("b.bin", "b.bin", "x/../b.bin", ".", "a.mid", "link.bin", "c/.hidden")]
    (tmp_path / "x").mkdir()
    assert sources(*inputs, root=tmp_path) == ["c/.hidden", "a.mid", "b.bin"]


def test_folders_given_are_read_as_one(tmp_path):
    touch(*(tmp_path / name for name in ("two/song.mid", "one/song.mid", "one/x/b.mid", "two/x/a.mid", "two/a.mid",
                                         "one/X/c.mid", "three/z.mid")))
    tasks = listed(tmp_path / "two", tmp_path / "one", tmp_path / "three" / "z.mid")
    assert [(Path(task.source).relative_to(tmp_path).as_posix(), task.name) for task in tasks] == [
        ("two/a.mid", "a.json"), ("two/song.mid", "song.json"), ("one/song.mid", "song-2.json"),
        ("three/z.mid", "z.json"), ("two/x/a.mid", "X/a.json"), ("one/x/b.mid", "X/b.json"),
        ("one/X/c.mid", "X/c.json")]


@pytest.mark.parametrize("inputs", [[".", "a"], ["a", "."], ["a", "a/b", "."], ["a", ".", "a/b/x.mid", "a"]])
def test_nested_and_repeated_inputs_come_once(tmp_path, inputs):
    touch(tmp_path / "a" / "b" / "x.mid", tmp_path / "a" / "y.mid", tmp_path / "z.mid")
    assert sources(*(tmp_path / each for each in inputs), root=tmp_path) == ["z.mid", "a/y.mid", "a/b/x.mid"]


def test_links_in_a_circle_do_not_matter_and_links_to_files_count(tmp_path):
    touch(tmp_path / "a" / "x.mid", tmp_path / "elsewhere.mid")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "a" / "gone.mid").symlink_to(tmp_path / "nothing")
    (tmp_path / "a" / "linked.mid").symlink_to(tmp_path / "elsewhere.mid")
    assert sources(tmp_path / "a", root=tmp_path) == ["a/linked.mid", "a/x.mid"]


def test_a_link_to_a_file_elsewhere_is_an_input_like_any_other(tmp_path):
    touch(tmp_path / "a" / "x.mid", tmp_path / "elsewhere.mid")
    (tmp_path / "a" / "linked.mid").symlink_to(tmp_path / "elsewhere.mid")
    listing = Listing([tmp_path / "a"], MIDI_SUFFIXES, tmp_path / "a", ".mid")
    assert len(list(listing)) == 2
    assert listing.holds(tmp_path / "a" / "linked.mid")


def test_a_folder_given_may_be_a_link(tmp_path):
    touch(tmp_path / "a" / "x.mid")
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    assert sources(tmp_path / "link", root=tmp_path) == ["link/x.mid"]
    assert sources(tmp_path / "a", tmp_path / "link", root=tmp_path) == ["a/x.mid"]


def test_what_an_earlier_run_left_below_the_input_is_not_read(tmp_path):
    corpus, out = tmp_path / "corpus", tmp_path / "corpus" / "cleaned"
    touch(corpus / "a.mid", out / "a.mid", out / "deep" / "b.mid", corpus / "b" / "cleaned" / "c.mid")
    assert sources(corpus, root=corpus, output=out) == ["a.mid", "b/cleaned/c.mid"]
    assert len(listed(corpus, output=corpus)) == 4  # into the same folder: only its overwriting is refused
    assert len(listed(out, output=out)) == 2
    assert sources(corpus, out / "a.mid", root=corpus, output=out) == ["cleaned/a.mid", "a.mid", "b/cleaned/c.mid"]


def test_the_output_may_be_named_through_a_link(tmp_path):
    touch(tmp_path / "corpus" / "a.mid", tmp_path / "corpus" / "out" / "a.mid")
    (tmp_path / "link").symlink_to(tmp_path / "corpus", target_is_directory=True)
    assert len(listed(tmp_path / "corpus", output=tmp_path / "link" / "out")) == 1
    assert len(listed(tmp_path / "link", output=tmp_path / "corpus" / "out")) == 1


def test_inputs_that_are_not_there_or_hold_nothing_are_named(tmp_path):
    with pytest.raises(UserError, match="absent: no such file or folder"):
        listed(tmp_path / "absent")
    touch(tmp_path / "full" / "a.mid", tmp_path / "empty" / "notes.txt", tmp_path / "hidden" / ".a.mid",
          tmp_path / "done" / "out" / "a.mid")
    for name in ("empty", "hidden", "done"):
        message = f"{name}: no {', '.join(MIDI_SUFFIXES)} file in this folder or below"
        with pytest.raises(UserError, match=re.escape(message)):
            listed(tmp_path / "full", tmp_path / name, output=tmp_path / "done" / "out")


NAMES = st.builds("{}{}{}".format, st.sampled_from(["", "x/", "X/", "x/y/", "out/"]),
                  st.sampled_from(["a", "A", "a-2", "a.part2", ".a", "b"]),
                  st.sampled_from([".mid", ".MID", ".kar", ".txt"]))


@given(names=st.sets(NAMES, min_size=1, max_size=12), roots=st.lists(st.sampled_from(["one", "two", "one/x"]),
                                                                    min_size=1, max_size=3), free=st.booleans())
def test_every_file_that_counts_has_one_task_and_its_own_output(tmp_path_factory, names, roots, free):
    """Against a slow, obvious version of what counts."""
    folder = tmp_path_factory.mktemp("listing")
    touch(*(folder / root / name for root, name in zip(["one", "two"] * 6, sorted(names), strict=False)),
          folder / "one" / "x" / "z.mid", folder / "two" / "z.mid")
    given = [folder / root for root in roots]
    output = folder / "one" / "out"
    expected = {path for root in given for path in root.rglob("*") if path.is_file() and path.name[0] != "."
                and path.suffix.lower() in MIDI_SUFFIXES and output not in path.parents}
    listing = Listing(given, MIDI_SUFFIXES, output, ".json", keep_pieces_free=free)
    tasks = list(listing)
    assert sorted(task.source for task in tasks) == sorted(map(str, expected))
    assert len({task.name.casefold() for task in tasks}) == len(tasks)
    for task in tasks:
        assert Path(task.name).suffix == ".json" and Path(task.output) == output / task.name
        assert not (free and song_of_piece(Path(task.name).stem) != Path(task.name).stem)
    for path in folder.rglob("*"):
        if path.is_file():
            assert listing.holds(path) == (path in expected)
    assert not listing.holds(folder / "elsewhere.mid")
    for of in (1, 2, 5):
        shards = [list(Shard(number, of).of_inputs(listing)) for number in range(1, of + 1)]
        assert sorted(task for shard in shards for task in shard) == sorted(tasks)
        assert all(shard == [task for task in tasks if task in shard] for shard in shards)  # in the same order


# ---------------------------------------------------------------- names of outputs


@pytest.mark.parametrize(("inputs", "stems"), [
    (["a.mid", "b.mid"], ["a", "b"]),
    (["a.mid", "a.mid", "a.kar"], ["a", "a-2", "a-3"]),
    (["a.mid", "A.MID"], ["a", "A-2"]),
    (["STRASSE.mid", "straße.mid"], ["STRASSE", "straße-2"]),
    (["a.mid", "a.kar", "a-2.mid"], ["a", "a-3", "a-2"]),
    (["a-2.mid", "a.kar", "a.mid"], ["a-2", "a", "a-3"]),
    (["v1.2.mid"], ["v1.2"]),
    (["a.part2.mid", "a.part.mid", "a.part2x.mid"], ["a.part2", "a.part", "a.part2x"]),
])
def test_stems_examples(inputs, stems):
    assert list(distinct_stems(inputs)) == stems
    assert list(distinct_stems([f"some/where/{name}" for name in inputs])) == stems


def test_names_of_pieces_are_kept_free_only_where_songs_are_cut():
    names = ["a.mid", "a.part2.mid", "a.part2-2.mid", "x.PART3.mid"]
    assert list(distinct_stems(names)) == ["a", "a.part2", "a.part2-2", "x.PART3"]
    assert list(distinct_stems(names, keep_pieces_free=True))[:3] == ["a", "a.part2-3", "a.part2-2"]


@given(st.lists(st.builds("{}{}".format, st.sampled_from(["a", "A", "a-2", "a-2-2", "a-3", "a.part2", "a.part2-2"]),
                          st.sampled_from([".mid", ".MID", ".kar"])), max_size=12), st.booleans())
def test_stems_are_distinct_and_begin_as_the_files_do(names, free):
    stems = list(distinct_stems(names, free))
    assert len({stem.casefold() for stem in stems}) == len(names) == len(stems)
    for name, stem in zip(names, stems, strict=True):
        own = Path(name).stem
        assert stem == own or stem.startswith(f"{own}-")
        assert not (free and song_of_piece(stem) != stem)
    alone = [name for name in names if sum(Path(each).stem.casefold() == Path(name).stem.casefold()
                                           for each in names) == 1]
    for name in alone:  # a file that shares its name with no other keeps it
        assert Path(name).stem in stems or (free and song_of_piece(Path(name).stem) != Path(name).stem)


def test_names_that_differ_in_letter_case_alone_differ_for_pieces_too():
    """`x.part2` is made of `x` when it is cut; on some systems `x.PART2` is the same file."""
    stems = list(distinct_stems(["x.mid", "x.PART2.mid"], keep_pieces_free=True))
    assert stems[1].casefold() != "x.part2"


def test_pieces_are_numbered_from_the_second_on():
    assert [piece_path("a/b.v1.mid", k) for k in range(3)] == ["a/b.v1.mid", "a/b.v1.part2.mid", "a/b.v1.part3.mid"]
    assert [song_of_piece(name) for name in ("a/b", "a/b.part2", "a/b.part12", "a/b.part", "a.part2/b")] == [
        "a/b", "a/b", "a/b", "a/b.part", "a.part2/b"]


# ---------------------------------------------------------------- shards


def test_shards_are_read_from_text():
    assert Shard.parse("3/16") == Shard(3, 16) and Shard.parse("1/1") == WHOLE


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/2/3", "1 / 2"])
def test_what_is_no_shard_is_an_error(text):
    with pytest.raises(UserError, match=r"must be NUMBER/OF with NUMBER from 1 to OF, such as 3/16"):
        Shard.parse(text)
