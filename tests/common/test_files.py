"""Reading files, and writing them so that a killed run leaves no half file."""

import json
import os
import stat
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.common import files
from backline.common.errors import UserError


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


def test_what_a_killed_run_left_goes_with_the_next_try(tmp_path):
    """The temporary file mostly has one name for each target, so killed runs do not litter a folder."""
    target = tmp_path / f"{'long' * 60}.json"  # with an addition too long for a file name
    with pytest.raises(KeyboardInterrupt), files.replacing(target) as file:
        left = Path(file.name)
        raise KeyboardInterrupt
    left.write_bytes(b"half")
    files.write_bytes(target, b"whole")
    assert list(tmp_path.iterdir()) == [target] and target.read_bytes() == b"whole"
    assert left.name.startswith(".") and left.parent == tmp_path


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize("locks", ["locks", "none on this disk", "none on this system"])
def test_two_that_write_one_file_do_not_write_into_each_others(tmp_path, monkeypatch, locks):
    if locks == "none on this disk":
        monkeypatch.setattr(files.fcntl, "flock", no_locks)
    if locks == "none on this system":
        monkeypatch.setattr(files, "fcntl", None)
    target = tmp_path / "index.html"
    with files.replacing(target) as first:
        first.write(b"the first ")
        with files.replacing(target) as second:
            second.write(b"second")
        assert target.read_bytes() == b"second"
        first.write(b"is whole")
    assert target.read_bytes() == b"the first is whole"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_gets_its_name_while_another_waits_for_it_is_not_written_into(tmp_path, monkeypatch):
    """Another process renames its temporary file after this one opened it, before this one locks it."""

    def flock(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        temporary, = tmp_path.iterdir()
        temporary.write_bytes(b"of the other")
        temporary.rename(target)

    target = tmp_path / "index.html"
    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.replacing(target) as file:
        file.write(b"half of")
        file.flush()
        assert target.read_bytes() == b"of the other"
        file.write(b" this one")
    assert target.read_bytes() == b"half of this one"
    assert list(tmp_path.iterdir()) == [target]


def test_a_worker_does_not_bring_a_removed_folder_back(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write_bytes(tmp_path / "gone" / "a.json", b"", make_parents=False)
    assert not (tmp_path / "gone").exists()


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


def test_size_and_mtime_are_those_of_the_file(tmp_path):
    (tmp_path / "a").write_bytes(b"four")
    os.utime(tmp_path / "a", ns=(1, 123_456_789_000_000_123))
    assert files.size_and_mtime(tmp_path / "a") == files.size_and_mtime(str(tmp_path / "a")) == (
        4, 123_456_789_000_000_123)
    with pytest.raises(UserError, match=r"b: cannot be read \(No such file"):
        files.size_and_mtime(tmp_path / "b")


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


@pytest.mark.parametrize("text", [
    b"1e999", b"Infinity", b'"\\ud800"', b"1" * 400, b"1" * 5000, b"\xef\xbb\xbf{}", b"[" * 90_000, b'"\xed\xa0\x80"',
    '{"a": 1}'.encode("utf-16"), b"01", b"\x0c{}", b"{'a': 1}", b'{"a": 1,}'])
def test_text_that_is_no_json_is_refused(text):
    for loads in (files.strict_json, orjson.loads):
        with pytest.raises((ValueError, RecursionError)):
            loads(text)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(JSON, st.booleans(), st.binary(max_size=2), st.integers(0, 50))
def test_both_ways_to_read_json_read_the_same(data, ascii_only, spoilt, place):
    """Whole texts, and texts in which some bytes are others."""
    text = json.dumps(data, ensure_ascii=ascii_only).encode()
    for each in (text, text[:place] + spoilt + text[place + len(spoilt):]):
        found = []
        for loads in (files.strict_json, orjson.loads):
            try:
                found.append(repr(loads(each)))
            except ValueError:
                found.append("refused")
        assert found[0] == found[1], each


def test_file_hash_depends_on_the_bytes_alone(tmp_path):
    for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (files.file_hash(tmp_path / name) for name in "abc")
    assert a == b != c


def test_an_output_never_replaces_its_input_even_by_force(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"")
    with pytest.raises(UserError, match="would replace"):
        files.check_new([tmp_path / "x/../a.mid"], force=True, inputs=[tmp_path / "a.mid"])
    files.check_new([tmp_path / "a.mid"], force=True)


def test_a_new_file_replaces_none_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "folder" / "song.mid"
    assert files.write_new_file(path, b"first")
    assert not files.write_new_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]
