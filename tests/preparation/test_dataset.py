"""The dataset file, and the split by song."""

from __future__ import annotations

import lzma
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_songs import VOCABULARY, make_dataset, random_song, to_songs, whole

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.music.vocab import BOS, EOS, FIELDS, FIRST_ID, load_vocabulary
from backline.preparation.dataset import (
    ALIGNMENT,
    FORMAT,
    SHORTEST_BLOCK,
    VERSION,
    Dataset,
    dataset_hash,
    load_dataset,
    song_rows,
    split_by_song,
    with_songs_last,
    write_dataset,
)

F = len(FIELDS)


def small_vocabulary(**changes):
    return load_vocabulary({"format": "pooled-vocabulary", "version": 1, "bars": 8, "steps_per_bar": 16,
                            "max_duration_steps": 16,
                            "parts": [{"name": "lead", "is_drum": False, "program": 80, "accepts": [],
                                       "lowest_pitch": 40, "highest_pitch": 90}]} | changes)


def joined(songs) -> np.ndarray:
    return np.concatenate([whole(song) for song in songs])


def refused(path: Path, vocabulary=None) -> str:
    """The message of a file that is no dataset; it names the file, and the command that makes one."""
    with pytest.raises(UserError) as caught:
        load_dataset(path, vocabulary)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- writing and reading


@pytest.mark.parametrize("block_size", [16, 31, 42, 84])
def test_blocks_are_the_songs_joined(tmp_path, block_size):
    songs = [random_song(i, n) for i, n in enumerate([40, 1, 17, 100])]
    path = tmp_path / "dataset.pt"
    names = ["a", "folder/b", "c", "d"]
    counts = write_dataset(path, to_songs(songs, names=names), block_size, VOCABULARY, {"shuffle_seed": 7})
    dataset, everything = load_dataset(path), joined(songs)
    kept = len(everything) // block_size * block_size
    assert np.array_equal(dataset.notes.numpy(), everything[:kept])
    assert dataset.block_size == block_size
    assert dataset.songs == tuple(names)
    assert dataset.n_songs == 4
    assert dataset.vocabulary == VOCABULARY
    assert counts == (len(everything), kept // block_size, len(everything) - kept)
    assert dataset.clusters.tolist() == [0, 1, 2, 3]
    for start, song in zip(dataset.song_starts, songs, strict=True):
        assert np.array_equal(everything[start:start + len(song) + 2], whole(song))
    data = torch.load(path, weights_only=True)
    assert data["blocks"].shape == (kept // block_size, block_size, F)
    assert data["shuffle_seed"] == 7
    assert [file.name for file in tmp_path.iterdir()] == ["dataset.pt"]


@pytest.mark.parametrize(("vocabulary", "dtype"), [
    (VOCABULARY, torch.int16), (small_vocabulary(), torch.int8), (small_vocabulary(bars=40_000), torch.int32)])
def test_ids_take_the_smallest_integers_that_hold_them(tmp_path, vocabulary, dtype):
    song = random_song(0, 40, vocabulary.bars, vocabulary)
    song[-1] = np.array(vocabulary.sizes) - 1
    dataset = load_dataset(make_dataset(tmp_path / "d.pt", [song], 21, vocabulary))
    assert dataset.notes.dtype == dtype
    assert np.array_equal(dataset.notes.numpy(), whole(song))
    assert dataset.vocabulary == vocabulary


def test_songs_shorter_than_a_block_are_an_error_and_leave_nothing(tmp_path):
    with pytest.raises(UserError, match=r"2 songs have 14 notes, fewer than one block of 16"):
        make_dataset(tmp_path / "d.pt", [random_song(0, 5), random_song(1, 5)], 16)
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_the_old_file_and_no_scratch(tmp_path):
    path = make_dataset(tmp_path / "d.pt", [random_song(0)])
    before = path.read_bytes()

    def killed():
        yield next(songs.notes)
        raise KeyboardInterrupt

    songs = to_songs([random_song(1), random_song(2)])
    with pytest.raises(KeyboardInterrupt):
        write_dataset(path, songs._replace(notes=killed()), 16, VOCABULARY, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is memory-mapped")
def test_a_dataset_is_memory_mapped(tmp_path):
    path = make_dataset(tmp_path / "mapped.pt", [random_song(0)])
    dataset = load_dataset(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    del dataset
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path):
    (tmp_path / ".d.pt.scratch").mkdir()
    (tmp_path / ".d.pt.scratch" / "blocks").write_bytes(b"half")
    path = make_dataset(tmp_path / "d.pt", [random_song(0)])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("n_songs", [1, 3, 70])
def test_the_file_is_a_whole_zip_and_its_tensors_are_aligned(tmp_path, n_songs):
    """As `torch.save` writes it: an archive that any tool can test, and that can be mapped into memory."""
    songs = [random_song(i, 30 + i) for i in range(n_songs)]
    names = [f"folder/{'x' * i}" for i in range(n_songs)]
    write_dataset(tmp_path / "d.pt", to_songs(songs, names=names), 16, VOCABULARY, {"shuffle_seed": 0})
    data = (tmp_path / "d.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "d.pt") as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    for entry in entries:
        name_length, extra_length = struct.unpack_from("<HH", data, entry.header_offset + 26)
        begin = entry.header_offset + 30 + name_length + extra_length
        assert begin % ALIGNMENT == 0 and entry.compress_type == zipfile.ZIP_STORED
    mapped = torch.load(tmp_path / "d.pt", mmap=True, weights_only=True)
    read = torch.load(tmp_path / "d.pt", weights_only=True)
    torch.save(read, tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    tensors = [key for key, value in read.items() if isinstance(value, torch.Tensor)]
    assert tensors == ["blocks", "songs", "song_starts", "clusters"]
    for key in tensors:
        assert torch.equal(mapped[key], read[key]) and torch.equal(again[key], read[key])
    assert [*mapped] == [*read] == [*again]
    with zipfile.ZipFile(tmp_path / "again.pt") as archive:  # records of the same names and lengths
        assert [(entry.filename.partition("/")[2], entry.file_size) for entry in archive.infolist()
                if "/data/" in entry.filename] == [
            (entry.filename.partition("/")[2], entry.file_size) for entry in entries if "/data/" in entry.filename]


def test_the_bytes_depend_on_the_songs_alone(tmp_path):
    songs = [random_song(i) for i in range(3)]
    first = make_dataset(tmp_path / "a.pt", songs).read_bytes()
    assert make_dataset(tmp_path / "other name.pt", songs).read_bytes() == first


@pytest.mark.parametrize("names", [["a", "Fl\udcf6te", "日本/ü"], ["one"], ["a\nb", "c d"]])
def test_names_of_every_kind_come_back(tmp_path, names):
    songs = [random_song(i) for i in range(len(names))]
    write_dataset(tmp_path / "d.pt", to_songs(songs, names=names), 16, VOCABULARY, {})
    assert load_dataset(tmp_path / "d.pt").songs == tuple(names)


def test_clusters_are_numbered_by_their_first_song(tmp_path):
    dataset = load_dataset(make_dataset(tmp_path / "d.pt", [random_song(i) for i in range(6)],
                                        clusters=[9, 9, 2, 7, 7, 7]))
    assert dataset.clusters.tolist() == [0, 0, 2, 3, 3, 3]


def test_a_dataset_of_version_1_is_read(tmp_path):
    """Names as a list, and no clusters: each song is its own."""
    songs = [random_song(i, n) for i, n in enumerate([40, 30, 54])]
    everything = torch.from_numpy(joined(songs))[:128].view(-1, 32, F).to(torch.int16)
    torch.save({"format": FORMAT, "version": 1, "vocabulary": VOCABULARY.to_dict(), "blocks": everything,
                "songs": ["a", "b", "c/d"], "song_starts": torch.tensor([0, 42, 74]), "shuffle_seed": 3},
               tmp_path / "d.pt")
    dataset = load_dataset(tmp_path / "d.pt", VOCABULARY)
    assert dataset.songs == ("a", "b", "c/d")
    assert dataset.song_starts.tolist() == [0, 42, 74]
    assert dataset.clusters.tolist() == [0, 1, 2]
    assert torch.equal(dataset.notes, everything.view(-1, F))
    assert split_by_song(dataset, 0.7).held_out_songs == ("c/d",)


@pytest.mark.parametrize("key", ["vocabulary", "blocks", "songs", "song_starts"])
@pytest.mark.parametrize("value", [None, 3, "gone", torch.zeros(3, dtype=torch.uint8)])
def test_a_damaged_entry_of_version_1_is_refused(tmp_path, key, value):
    data = {"format": FORMAT, "version": 1, "vocabulary": VOCABULARY.to_dict(),
            "blocks": torch.from_numpy(whole(random_song(0, 30))).view(-1, 16, F), "songs": ["a"],
            "song_starts": torch.tensor([0])}
    torch.save(data, tmp_path / "d.pt")
    assert load_dataset(tmp_path / "d.pt").n_songs == 1
    torch.save(data | {key: value}, tmp_path / "d.pt")
    assert "make one with prepare.py" in refused(tmp_path / "d.pt")


# ---------------------------------------------------------------- the predecessor's bare tensor


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int16])
def test_a_bare_tensor_is_read_and_its_songs_found(tmp_path, zipped, dtype):
    songs = [random_song(i, n) for i, n in enumerate([30, 40, 20])]
    path = tmp_path / "bare.pt"
    blocks = torch.from_numpy(joined(songs)).view(-1, 16, F).to(dtype)
    torch.save(blocks, path, _use_new_zipfile_serialization=zipped)
    dataset = load_dataset(path)
    assert torch.equal(dataset.notes, blocks.view(-1, F))
    assert dataset.block_size == 16
    assert dataset.songs == ("song 0", "song 1", "song 2")
    assert dataset.song_starts.tolist() == [0, 32, 74]


def test_a_bare_tensor_may_begin_within_a_song_or_hold_no_beginning(tmp_path):
    path = tmp_path / "bare.pt"
    rows = torch.from_numpy(joined([random_song(0, 30), random_song(1, 14)]))
    torch.save(rows[16:48].view(-1, 16, F).clone(), path)
    assert load_dataset(path).song_starts.tolist() == [0, 16]
    torch.save(rows[1:17].view(1, 16, F).clone(), path)
    assert load_dataset(path).song_starts.tolist() == [0]


@pytest.mark.parametrize("bad", [260, -1])
def test_a_bare_tensor_outside_the_vocabulary_is_refused(tmp_path, bad):
    blocks = torch.full((2, 16, F), FIRST_ID)
    blocks[1, 3, 0] = bad
    torch.save(blocks, tmp_path / "bare.pt")
    assert "vocabulary's sizes are [260, 36, 132, 227]; make one with prepare.py" in refused(tmp_path / "bare.pt")
    blocks[1, 3, 0] = 259
    torch.save(blocks, tmp_path / "bare.pt")
    assert load_dataset(tmp_path / "bare.pt").n_songs == 1


# ---------------------------------------------------------------- files that are no dataset


@pytest.mark.parametrize("content", [
    torch.zeros(3, 16, F), torch.zeros(3, 16, F, dtype=torch.bool), torch.zeros(3, 16, 5, dtype=torch.int64),
    torch.zeros(16, F, dtype=torch.int64), torch.zeros(0, 16, F, dtype=torch.int64), torch.tensor(3)], ids=str)
def test_wrong_tensors_are_refused(tmp_path, content):
    path = tmp_path / "d.pt"
    torch.save(content, path)
    assert f"shape {list(content.shape)}, where whole numbers of shape [N, T, 4] are needed" in refused(path)
    make_dataset(path, [random_song(0)])
    torch.save(torch.load(path) | {"blocks": content}, path)
    assert "are needed; make one with prepare.py" in refused(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, "text", {"format": "pooled-checkpoint", "version": 1}, None])
def test_other_content_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "d.pt")
    assert "not a dataset; make one with prepare.py" in refused(tmp_path / "d.pt")


def test_another_version_is_refused(tmp_path):
    torch.save({"format": FORMAT, "version": VERSION + 1}, tmp_path / "d.pt")
    assert f"dataset version {VERSION + 1}, this program reads {VERSION}; make one" in refused(tmp_path / "d.pt")


def test_version_1_without_songs_is_refused(tmp_path):
    torch.save({"format": FORMAT, "version": 1, "vocabulary": VOCABULARY.to_dict(),
                "blocks": torch.from_numpy(whole(random_song(0, 30))).view(-1, 16, F), "songs": [],
                "song_starts": torch.zeros(0, dtype=torch.int64)}, tmp_path / "d.pt")
    assert "its index of songs is damaged; make one with prepare.py" in refused(tmp_path / "d.pt")


@pytest.mark.parametrize("names", [["a", 2], [None], [["a"]]])
def test_version_1_with_names_that_are_no_text_is_refused(tmp_path, names):
    torch.save({"format": FORMAT, "version": 1, "vocabulary": VOCABULARY.to_dict(),
                "blocks": torch.from_numpy(whole(random_song(0, 30))).view(-1, 16, F), "songs": names,
                "song_starts": torch.arange(len(names))}, tmp_path / "d.pt")
    assert "its 'songs' is damaged or missing; make one with prepare.py" in refused(tmp_path / "d.pt")


@pytest.mark.parametrize("key", ["song_starts", "clusters"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.bool])
def test_an_index_of_another_type_is_refused(tmp_path, key, dtype):
    path = make_dataset(tmp_path / "d.pt", [random_song(i) for i in range(3)])
    data = torch.load(path)
    data[key] = data[key].to(dtype)
    torch.save(data, path)
    assert "its index of songs is damaged; make one with prepare.py" in refused(path)


@pytest.mark.parametrize("key", ["vocabulary", "blocks", "songs", "song_starts", "clusters"])
@pytest.mark.parametrize("value", [None, 3, "gone"])
def test_a_damaged_entry_is_refused(tmp_path, key, value):
    path = make_dataset(tmp_path / "d.pt", [random_song(0)])
    data = torch.load(path)
    data[key] = value
    if value == "gone":
        del data[key]
    torch.save(data, path)
    assert "make one with prepare.py" in refused(path)


@pytest.mark.parametrize(("key", "value"), [
    ("song_starts", [1, 42, 84]), ("song_starts", [0, 42, 42]), ("song_starts", [0, 42]),
    ("song_starts", [[0, 42, 84]]), ("clusters", [0, 1]), ("songs", [97, 0, 97]), ("songs", [97, 0, 97, 0, 97, 0, 97]),
], ids=str)
def test_a_damaged_index_is_refused(tmp_path, key, value):
    path = make_dataset(tmp_path / "d.pt", [random_song(i) for i in range(3)])
    data = torch.load(path)
    data[key] = torch.tensor(value, dtype=data[key].dtype)
    torch.save(data, path)
    assert "its index of songs is damaged; make one with prepare.py" in refused(path)


def test_another_vocabulary_is_refused(tmp_path):
    path = make_dataset(tmp_path / "d.pt", [random_song(0)])
    assert load_dataset(path, VOCABULARY).n_songs == 1
    assert "made with another vocabulary" in refused(path, small_vocabulary())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path, zipped):
    path = make_dataset(tmp_path / "d.pt", [random_song(0)])
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for share in range(0, 100, 7):
        path.write_bytes(data[:len(data) * share // 100])
        message = refused(path)  # a name cut short in the older format looks like that of some code
        assert "damaged or not a PyTorch file; copy or make it again" in message or not zipped


@pytest.mark.parametrize("content", [b"", b"no dataset", b"MThd\0\0\0\6\0\1\0\1\0\x60", b"\x93NUMPY\1\0v\0{}", b"{}"])
def test_other_kinds_of_file_are_refused(tmp_path, content):
    (tmp_path / "d.pt").write_bytes(content)
    assert "damaged or not a PyTorch file" in refused(tmp_path / "d.pt")


class MakesFile:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [
    lambda it, path: path.write_bytes(pickle.dumps(it)), torch.save,
    lambda it, path: torch.save(it, path, _use_new_zipfile_serialization=False),
    lambda it, path: torch.save({"format": FORMAT, "version": VERSION, "blocks": it}, path)])
def test_code_in_a_file_never_runs(tmp_path, save):
    path, marker = tmp_path / "d.pt", tmp_path / "marker"
    save(MakesFile(marker), path)
    assert "holds more than tensors and plain data, so it is not loaded" in refused(path)
    assert not marker.exists()


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in refused(tmp_path / "none.pt")
    assert "a folder" in refused(tmp_path)


# ---------------------------------------------------------------- compressed


def test_a_compressed_dataset_is_the_same_dataset(tmp_path):
    songs = [random_song(i) for i in range(5)]
    plain, packed = (make_dataset(tmp_path / name, songs) for name in ("d.pt", "d.pt.xz"))
    assert sorted(tmp_path.iterdir()) == [plain, packed]  # and nothing else is left
    assert lzma.decompress(packed.read_bytes()) == plain.read_bytes()
    assert packed.stat().st_size < plain.stat().st_size / 2
    assert dataset_hash(packed) == dataset_hash(plain) == file_hash(plain)
    one, other = load_dataset(plain), load_dataset(packed)
    assert torch.equal(one.notes, other.notes) and one.songs == other.songs
    assert np.array_equal(one.song_starts, other.song_starts) and np.array_equal(one.clusters, other.clusters)
    assert make_dataset(tmp_path / "again.pt.xz", songs).read_bytes() == packed.read_bytes()


def test_what_xz_itself_compressed_is_read_and_a_bare_tensor_too(tmp_path):
    torch.save(torch.from_numpy(joined([random_song(i) for i in range(4)])[:128].reshape(4, 32, F)), tmp_path / "d.pt")
    (tmp_path / "d.pt.xz").write_bytes(lzma.compress((tmp_path / "d.pt").read_bytes(), preset=9))
    assert torch.equal(load_dataset(tmp_path / "d.pt").notes, load_dataset(tmp_path / "d.pt.xz").notes)


def test_a_truncated_compressed_file_is_refused(tmp_path):
    path = make_dataset(tmp_path / "d.pt.xz", [random_song(0)])
    data = path.read_bytes()
    for share in range(0, 100, 7):
        path.write_bytes(data[:len(data) * share // 100])
        assert "damaged or not an .xz file; copy or make it again" in refused(path)
        with pytest.raises(UserError, match=r"damaged or not an \.xz file"):
            dataset_hash(path)
    path.write_bytes(data[:90] + bytes([data[90] ^ 1]) + data[91:])
    assert "damaged or not an .xz file" in refused(path)


@pytest.mark.parametrize("content", [b"no dataset", b"PK\3\4", b"MThd\0\0\0\6\0\1\0\1\0\x60"])
def test_other_kinds_of_file_are_refused_within_and_without(tmp_path, content):
    path = tmp_path / "d.pt.xz"
    path.write_bytes(content)
    assert "damaged or not an .xz file" in refused(path)
    path.write_bytes(lzma.compress(content))
    assert "damaged or not a PyTorch file" in refused(path)
    make_dataset(tmp_path / "d.pt", [random_song(0)]).rename(path)
    assert "damaged or not an .xz file" in refused(path)


@pytest.mark.parametrize("save", [lambda it, path: path.write_bytes(pickle.dumps(it)), torch.save])
def test_code_in_a_compressed_file_never_runs(tmp_path, save):
    path, marker = tmp_path / "d.pt", tmp_path / "marker"
    save(MakesFile(marker), path)
    packed = tmp_path / "d.pt.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    assert "holds more than tensors and plain data, so it is not loaded" in refused(packed)
    assert not marker.exists()


def test_a_python_without_lzma_says_what_to_do(tmp_path, monkeypatch):
    path = make_dataset(tmp_path / "d.pt.xz", [random_song(0)])
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(UserError, match=r"built without lzma, which \.xz needs; decompress the dataset with `xz -d`"):
        load_dataset(path)


# ---------------------------------------------------------------- the split


@given(lengths=st.lists(st.integers(3, 90), min_size=2, max_size=12), block_size=st.sampled_from([16, 32, 50]),
       train_split=st.floats(0.01, 0.99))
def test_no_song_is_on_both_sides(lengths, block_size, train_split):
    starts = np.cumsum([0, *lengths])
    kept = starts[-1] // block_size * block_size
    song_of = np.repeat(np.arange(len(lengths)), lengths)[:kept]  # stands in place of every id
    dataset = Dataset(torch.from_numpy(song_of)[:, None].expand(-1, F), block_size,
                      tuple(f"song{i}" for i in range(len(lengths))), starts[:-1], np.arange(len(lengths)),
                      VOCABULARY)
    try:
        split = split_by_song(dataset, train_split)
    except UserError as err:
        assert "too few notes" in str(err)
        shortest = block_size
        while shortest // 2 >= SHORTEST_BLOCK:
            shortest //= 2
        assert all(cut < shortest or -(-cut // shortest) >= kept // shortest for cut in starts[1:-1])
        return
    train, held_out = (set(rows[..., 0].flatten().tolist()) for rows in (split.train, split.held_out))
    assert train
    assert held_out
    assert max(train) < min(held_out)
    names = {dataset.songs[i] for i in held_out}
    assert names <= set(split.held_out_songs)
    assert not {dataset.songs[i] for i in train} & set(split.held_out_songs)
    assert dataset.songs[-len(split.held_out_songs):] == split.held_out_songs
    size = split.train.shape[1]
    # All rows are used but the one across the cut (and notes that do not fill a row of halved length).
    assert kept // size - 1 <= len(split.train) + len(split.held_out) <= kept // size
    assert split.held_out.shape[1] == size
    assert size == block_size or f"rows are {size} notes long, not {block_size}" in split.notice


@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=8), train_split=st.floats(0.01, 0.99))
def test_near_duplicates_are_on_one_side(sizes, train_split):
    """Whatever the share, the cut lies between two clusters, as near to it as a cut between clusters can."""
    n_songs, length = sum(sizes), 16
    clusters = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    song_of = np.repeat(np.arange(n_songs), length)
    dataset = Dataset(torch.from_numpy(song_of)[:, None].expand(-1, F), length,
                      tuple(map(str, range(n_songs))), np.arange(n_songs) * length, clusters, VOCABULARY)
    split = split_by_song(dataset, train_split)
    held_out = set(map(int, split.held_out_songs))
    assert held_out and len(held_out) < n_songs
    assert not {clusters[i] for i in held_out} & {clusters[i] for i in range(n_songs) if i not in held_out}
    wanted = min(max(round(n_songs * train_split), 1), n_songs - 1)
    assert abs(n_songs - len(held_out) - wanted) == min(abs(cut - wanted) for cut in np.cumsum(sizes[:-1]))
    assert split.notice == ""  # every song fills a row


def test_songs_that_are_all_near_duplicates_are_split_and_it_is_said(tmp_path):
    path = make_dataset(tmp_path / "d.pt", [random_song(i, 62) for i in range(4)], 32, clusters=[5] * 4)
    split = split_by_song(load_dataset(path), 0.5)
    assert split.held_out_songs == ("song2", "song3")
    assert split.notice == "all songs are near-duplicates of each other: held-out losses will look too good"


@pytest.mark.parametrize("clusters", [None, [0, 0, 2, 3, 4, 5]])
def test_songs_go_last_with_their_near_duplicates_and_stay_what_they_are(tmp_path, clusters):
    songs = [random_song(i, 20 + 5 * i) for i in range(6)]
    dataset = load_dataset(make_dataset(tmp_path / "d.pt", songs, 16, clusters=clusters))
    ordered, n_others = with_songs_last(dataset, ["song1", "song3", "elsewhere"])
    last = ["song1", "song3"] if clusters is None else ["song0", "song1", "song3"]
    assert list(ordered.songs) == [name for name in dataset.songs if name not in last] + last
    assert n_others == 6 - len(last) and len(ordered.notes) == len(dataset.notes)
    for i, name in enumerate(ordered.songs):
        assert torch.equal(song_rows(ordered, i), song_rows(dataset, dataset.songs.index(name)))
        assert ordered.clusters[i] == dataset.clusters[dataset.songs.index(name)]
    split = split_by_song(ordered, 0.9, n_others)
    assert list(split.held_out_songs) == last
    assert with_songs_last(dataset, dataset.songs[-2:])[0] is dataset


def test_at_most_so_many_songs_are_for_training(tmp_path):
    dataset = load_dataset(make_dataset(tmp_path / "d.pt", [random_song(i, 62) for i in range(10)], 32))
    assert [len(split_by_song(dataset, 0.8, most).held_out_songs) for most in (None, 10, 8, 5, 1)] == [2, 2, 2, 5, 9]


def split_of(tmp_path, lengths, block_size, train_split=0.9):
    return split_by_song(load_dataset(make_dataset(
        tmp_path / "d.pt", [random_song(i, n) for i, n in enumerate(lengths)], block_size)), train_split)


def test_the_share_is_of_songs_and_the_row_across_the_cut_is_dropped(tmp_path):
    split = split_of(tmp_path, [30, 30, 30, 30, 40], 32, 0.8)
    assert split.held_out_songs == ("song4",)
    assert (len(split.train), len(split.held_out)) == (4, 1)  # songs of 32 rows; the cut falls between rows
    split = split_of(tmp_path, [30, 30, 30, 31, 70], 32, 0.8)  # and here one note after
    assert (len(split.train), len(split.held_out)) == (4, 1)
    assert split.notice == ""
    everything = torch.from_numpy(joined([random_song(i, n) for i, n in enumerate([30, 30, 30, 31, 70])]))
    assert torch.equal(split.train.flatten(0, 1).long(), everything[:128])
    assert torch.equal(split.held_out.flatten(0, 1).long(), everything[160:192])
    assert (split.train[0, 0] == BOS).all()
    assert (split.train[0, -1] == EOS).all()


def test_few_songs_move_the_cut_and_say_so(tmp_path):
    split = split_of(tmp_path, [40, 200, 10, 10], 32, 0.9)  # the last two have no row of their own
    assert split.held_out_songs == ("song1", "song2", "song3")
    assert split.notice == "few notes: 1 of 4 songs are for training"
    assert (len(split.train), len(split.held_out)) == (1, 6)


def test_rows_are_halved_for_a_few_short_songs(tmp_path):
    split = split_of(tmp_path, [50, 60, 142], 128, 0.67)
    assert (split.train.shape, split.held_out.shape) == ((1, 64, F), (2, 64, F))
    assert split.notice == "few notes: rows are 64 notes long, not 128"
    assert split.held_out_songs == ("song2",)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_share_must_leave_songs_on_both_sides(tmp_path, share):
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        split_of(tmp_path, [40, 40], 16, share)


def test_one_song_cannot_be_split(tmp_path):
    with pytest.raises(UserError, match="holds one song"):
        split_of(tmp_path, [40], 16)


def test_too_few_notes_to_split(tmp_path):
    with pytest.raises(UserError, match="too few notes"):
        split_of(tmp_path, [SHORTEST_BLOCK - 3, 5], 16)
