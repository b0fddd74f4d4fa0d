"""Votes of blind pages: read back, counted, and with an interval that others compute alike."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from backline.common.errors import UserError
from backline.listening.votes import COLUMNS, Share, Vote, folder_shares, read_votes, wilson

HEAD = ",".join(COLUMNS) + "\n"


def written(folder, text: str):
    path = folder / "votes.csv"
    path.write_bytes(text.encode())
    return path


def test_votes_are_read_as_the_page_writes_them(tmp_path):
    rows = '1,real,out/0.mid,"my, ""real"" songs/a.mid",second\n3,real,b/1.mid,out/2.mid,neither\n'
    path = written(tmp_path, HEAD + rows)
    assert read_votes(path) == [Vote("real", "out/0.mid", 'my, "real" songs/a.mid', "second"),
                                Vote("real", "b/1.mid", "out/2.mid", "neither")]
    assert read_votes(written(tmp_path, "\ufeff" + HEAD.replace("\n", "\r\n"))) == []  # as spreadsheets save it


@pytest.mark.parametrize(("text", "message"), [
    ("", "its first line must be"), ("pair,answer\n", "its first line must be"),
    (HEAD + "1,real,a/0.mid\n", "row 2 needs"), (HEAD + "1,real,a/0.mid,b/0.mid,third\n", "row 2 needs"),
    (HEAD + '1,"real\n', "not a CSV file of votes")])
def test_bad_files_are_named_on_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_votes(written(tmp_path, text))
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "votes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a CSV file"):
        read_votes(tmp_path / "votes.csv")


def test_shares_are_counted_by_folder_wherever_a_song_stood():
    votes = [Vote("prefer", "a/0.mid", "b/5.mid", "first"), Vote("prefer", "b/1.mid", "a/2.mid", "second"),
             Vote("prefer", "b/3.mid", "a/3.mid", "first"), Vote("prefer", "a/4.mid", "b/4.mid", "neither")]
    shares = folder_shares(votes)
    assert [(folder, share.chosen, share.n) for folder, share in shares.items()] == [("a", 2, 3), ("b", 1, 3)]
    assert shares["a"].low == pytest.approx(1 - shares["b"].high)


@pytest.mark.parametrize(("votes", "message"), [
    ([], "nothing and 0 folders"), ([Vote("real", "a/0.mid", "b/0.mid", "neither")], "no vote decides"),
    ([Vote("real", "a/0.mid", "b/0.mid", "first"), Vote("prefer", "a/0.mid", "b/0.mid", "first")], "one question"),
    ([Vote("real", "a/0.mid", "b/0.mid", "first"), Vote("real", "a/0.mid", "c/0.mid", "first")], "3 folders"),
    ([Vote("real", "a/0.mid", "a/1.mid", "first"), Vote("real", "a/0.mid", "b/0.mid", "first")], "two folders")])
def test_votes_that_do_not_belong_together(votes, message):
    with pytest.raises(UserError, match=message):
        folder_shares(votes)


@pytest.mark.parametrize(("chosen", "n"), [(0, 1), (1, 1), (0, 20), (3, 7), (50, 100), (999, 1000)])
def test_the_interval_is_wilsons(chosen, n):
    interval = binomtest(chosen, n).proportion_ci(method="wilson")
    assert wilson(chosen, n) == Share(chosen, n, chosen / n, pytest.approx(interval.low, abs=1e-9),
                                      pytest.approx(interval.high, abs=1e-9))
