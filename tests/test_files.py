"""Finding and writing files."""

import os
import stat
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import files
from errors import UserError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("durable", [False, True])
def test_replacing_writes_the_file_and_nothing_else(tmp_path, durable):
    target = tmp_path / "new" / "song.json"
    with files.replacing(target, durable) as file:
        file.write(b"first")
        assert not target.exists()
    assert target.read_bytes() == b"first"
    assert list(target.parent.iterdir()) == [target]


def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "song.json"
    files.write_bytes(target, b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(target) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_replacing_leaves_no_temporary_file_when_the_target_is_a_folder(tmp_path):
    target = tmp_path / "song.json"
    target.mkdir()
    with pytest.raises(OSError):
        files.write_bytes(target, b"data")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")
def test_written_files_have_ordinary_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    touch(tmp_path / "out")
    for call in (files.make_folder, files.check_writable):
        for folder in (tmp_path / "out", tmp_path / "out" / "below"):
            with pytest.raises(UserError, match="a file stands where a folder is needed"):
                call(folder)


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    files.check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_check_new_names_the_file_that_exists(tmp_path):
    touch(tmp_path / "b.json")
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    with pytest.raises(UserError, match=r"b\.json exists already.*--force"):
        files.check_new(paths, force=False)
    files.check_new(paths, force=True)
    files.check_new(paths[:1], force=False)


def test_json_of_text_that_is_no_unicode_still_parses():
    undecodable = os.fsdecode(b"Fl\xf6te.mid")
    assert orjson.loads(files.json_bytes({"source": undecodable, "ids": [(1, 1)]})) == {
        "source": "Fl?te.mid", "ids": [[1, 1]]}


# ---------------------------------------------------------------- reading


def test_read_input_names_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"a\.mid: no such file"):
        files.read_input(tmp_path / "a.mid")
    with pytest.raises(UserError, match="a folder, where a file is needed"):
        files.read_input(tmp_path)


@pytest.mark.parametrize(("text", "message"), [
    (b'{"a": 1', "not valid JSON"), (b"", "not valid JSON"), (b"[1, 2]", "holds a JSON list"),
    (b"\xff", "not valid JSON"), (b'{"a": NaN}', "not valid JSON")])
def test_read_json_object_names_the_file_and_the_fault(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message) as error:
        files.read_json_object(path)
    assert str(error.value).startswith(f"{path}: ")


def test_file_hash_depends_on_the_bytes_alone(tmp_path):
    for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (files.file_hash(tmp_path / name) for name in "abc")
    assert a == b != c


# ---------------------------------------------------------------- finding


def test_find_files_searches_below_in_any_letter_case_and_sorted(tmp_path):
    wanted = ["Z.MID", "a.mid", "sub/b.Midi", "sub/deep/c.kar", "sub/deep/d.RMI"]
    touch(*(tmp_path / name for name in [*wanted, "notes.txt", "sub/._a.mid", ".hidden.mid"]))
    (tmp_path / "folder.mid").mkdir()
    found = files.find_files([tmp_path], files.MIDI_SUFFIXES)
    assert found == [(tmp_path / name, Path(name)) for name in wanted]


def test_find_files_takes_a_named_file_whatever_its_suffix_and_each_file_once(tmp_path):
    touch(tmp_path / "a.mid", tmp_path / "b.bin")
    found = files.find_files([tmp_path / "b.bin", tmp_path, tmp_path / "a.mid"], files.MIDI_SUFFIXES)
    assert [path.name for path, _ in found] == ["b.bin", "a.mid"]


def test_find_files_names_an_input_that_is_not_there_or_holds_nothing(tmp_path):
    with pytest.raises(UserError, match="absent: no such file or folder"):
        files.find_files([tmp_path / "absent"], files.MIDI_SUFFIXES)
    touch(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"no \.mid, \.midi, \.kar, \.rmi file"):
        files.find_files([tmp_path], files.MIDI_SUFFIXES)


@pytest.mark.parametrize(("inputs", "outputs"), [
    (["a.mid", "b.mid"], ["a.json", "b.json"]),
    (["sub/a.mid", "a.mid"], ["sub/a.json", "a.json"]),
    (["a.mid", "a.mid", "a.kar"], ["a.json", "a-2.json", "a-3.json"]),
    (["a.mid", "A.MID"], ["a.json", "A-2.json"]),
    (["Sub/a.mid", "sub/a.mid"], ["Sub/a.json", "sub/a-2.json"]),
    (["a.mid", "a.kar", "a-2.mid"], ["a.json", "a-3.json", "a-2.json"]),
    (["v1.2.mid"], ["v1.2.json"]),
])
def test_distinct_outputs_examples(inputs, outputs):
    assert files.distinct_outputs(map(Path, inputs), ".json") == list(map(Path, outputs))


@given(st.lists(st.builds(lambda folder, stem, suffix: Path(folder) / f"{stem}{suffix}",
                          st.sampled_from(["", "x", "X"]), st.sampled_from(["a", "A", "a-2", "a-2-2", "a-3"]),
                          st.sampled_from([".mid", ".MID", ".kar"])), max_size=12))
def test_distinct_outputs_are_distinct_and_keep_folder_and_stem(paths):
    outputs = files.distinct_outputs(paths, ".json")
    assert len({str(path).lower() for path in outputs}) == len(paths) == len(outputs)
    for path, output in zip(paths, outputs, strict=True):
        assert output.parent == path.parent and output.suffix == ".json"
        assert output.stem == path.stem or output.stem.startswith(f"{path.stem}-")


def test_outputs_of_an_earlier_run_below_the_input_are_not_read_again(tmp_path):
    for name in ("corpus/a.mid", "corpus/cleaned/a.mid", "corpus/b/c.mid"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = files.find_files([tmp_path / "corpus"], (".mid",), tmp_path / "corpus/cleaned")
    assert [str(relative) for _, relative in found] == ["a.mid", str(Path("b/c.mid"))]
    assert len(files.find_files([tmp_path / "corpus"], (".mid",), tmp_path / "corpus")) == 3
    assert len(files.find_files([tmp_path / "corpus/cleaned"], (".mid",), tmp_path / "corpus/cleaned")) == 1


def test_an_output_never_replaces_its_input_even_by_force(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"")
    with pytest.raises(UserError, match="would replace"):
        files.check_new([tmp_path / "x/../a.mid"], force=True, inputs=[tmp_path / "a.mid"])
    files.check_new([tmp_path / "a.mid"], force=True)
