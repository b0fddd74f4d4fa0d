"""Reports: a row per input, counts by reason, the exit code; and what of a run is done already."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import orjson
import pytest

from backline.common.errors import UserError
from backline.common.files import size_and_mtime
from backline.folders import report as reports
from backline.folders.inputs import WHOLE, Listing, Shard
from backline.folders.report import Report, Summary, merge_shards, reason_kind


class Run:
    """A run that copies each input into its output; an input of capital letters is dropped, with that as the reason."""

    def __init__(self, out: Path, *inputs: Path, shard: Shard = WHOLE, force: bool = False,
                 stop_after: int | None = None, **settings: object) -> None:
        self.out, self.done = out, []
        out.mkdir(exist_ok=True)
        listing = Listing(inputs, (".mid",), out, ".txt")
        with Report(out, "copied", settings, shard, force) as report:
            self.total = report.plan(listing)
            self.n_done = report.n_done
            for place, task in report.pending(listing):
                if len(self.done) == stop_after:
                    raise KeyboardInterrupt
                size, mtime_ns = size_and_mtime(task.source)
                text = Path(task.source).read_text()
                facts = {"verdict": "dropped", "reason": text, "lost": {"in files left out": 2}}
                Path(task.output).unlink(missing_ok=True)
                if not text.isupper():
                    Path(task.output).parent.mkdir(exist_ok=True)
                    Path(task.output).write_text(text)
                    facts = {"verdict": "kept", "outputs": [task.name], "notes": len(text), "lost": {"lost": 1}}
                row = {"source": task.source, "settings": report.settings, "bytes": size, **facts}
                report.add(place, task.source, orjson.dumps(row), mtime_ns)
                self.done.append(Path(task.source).name)
            self.summary = report.finish()


@pytest.fixture
def songs(tmp_path) -> Path:
    """Four inputs, one of them to be dropped."""
    folder = tmp_path / "songs"
    (folder / "z").mkdir(parents=True)
    for name, text in (("a", "one"), ("b", "TWO"), ("c", "three"), ("z/d", "four")):
        (folder / f"{name}.mid").write_text(text)
    return folder


def interrupted(after: int, out: Path, *inputs: Path, **more) -> None:
    with pytest.raises(KeyboardInterrupt):
        Run(out, *inputs, stop_after=after, **more)


def names(out: Path) -> list[str]:
    return [Path(row["source"]).name for row in rows(out)]


def rows(out: Path) -> list[dict]:
    return [orjson.loads(line) for line in (out / "report.jsonl").read_bytes().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def later(path: Path, text: str) -> None:
    """Change a file, a second after anything was written."""
    path.write_text(text)
    second = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(second, second))


# ---------------------------------------------------------------- what is said


def test_a_row_per_input_in_order_and_a_log_to_read(songs, tmp_path):
    run = Run(tmp_path / "out", songs)
    assert (run.total, run.n_done, run.done) == (4, 0, ["a.mid", "b.mid", "c.mid", "d.mid"])
    assert [row["verdict"] for row in rows(run.out)] == ["kept", "dropped", "kept", "kept"]
    assert names(run.out) == run.done
    log = (run.out / "logs.txt").read_text().splitlines()
    assert log[:4] == [f"{songs / 'a.mid'}: copied, 3 notes", f"{songs / 'b.mid'}: TWO",
                       f"{songs / 'c.mid'}: copied, 5 notes", f"{songs / 'z' / 'd.mid'}: copied, 4 notes"]
    assert log[4:] == run.summary.text().splitlines()
    assert sorted(content(run.out)) == ["a.txt", "c.txt", "logs.txt", "report.jsonl", "z/d.txt"]


def test_the_table_counts_files_by_reason_and_notes_by_where_they_went(tmp_path, capsys):
    summary = Summary(tmp_path, "tokenized")
    for bar in (3, 9):
        summary.add({"source": "x", "verdict": "dropped", "reason": f"bar {bar} is in 3/4; cut it",
                     "lost": {"in files left out": 5}})
    summary.add({"source": "y", "verdict": "dropped", "reason": "has no notes", "lost": {}})
    for _ in range(1000):
        summary.add({"source": "z", "verdict": "kept", "notes": 2, "lost": {"outside": 1, "nowhere": 0}})
    assert summary.finish() == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1,000 of 1,003 files tokenized into {tmp_path}",
        "           2    0.2%  left out: bar N is in 3/4",
        "           1    0.1%  left out: has no notes",
        "2,000 of 3,010 notes kept",
        "       1,000   33.2%  outside",
        "          10    0.3%  in files left out"]
    summary.n_others = 1200
    assert summary.text().splitlines()[-1].startswith(f"beside them {tmp_path} holds 1,200 tokenized before, from")


@pytest.mark.parametrize(("reason", "kind"), [
    ("bar 3 is in 3/4; cut the song", "bar N is in 3/4"),
    ("bar 3: piano pitch 12 is outside 21 to 108 (1 of 2)", "piano pitch N is outside 21 to 108"),
    ("bar 257 is past the last bar (256); shorten", "bar N is past the last bar"),
    ("not a MIDI file (no MThd header in it); x", "not a MIDI file"),
    ("has a note at quarter 9000000, beyond any song; x", "has a note at quarter N, beyond any song"),
    ("took longer than 60 seconds; if", "took longer than 60 seconds")])
def test_reasons_that_differ_in_their_place_are_of_one_kind(reason, kind):
    assert reason_kind(reason) == kind


@pytest.mark.parametrize(("texts", "message"), [
    (["HAS NO NOTES"], "{0}: HAS NO NOTES"),
    (["FIRST; X", "SECOND"],
     "none of 2 files could be copied; reasons are in {out}/logs.txt, the first: {0}: FIRST; X")])
def test_nothing_kept_is_an_error_with_the_first_reason(tmp_path, texts, message):
    paths = [tmp_path / f"{number}.mid" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    run = Run(tmp_path / "out", *paths)
    with pytest.raises(UserError) as error:
        run.summary.finish()
    assert str(error.value) == message.format(*paths, out=run.out)
    assert len(rows(run.out)) == len(texts)


# ---------------------------------------------------------------- repeated


def test_a_repeated_run_does_nothing_and_says_the_same(songs, tmp_path):
    before = content(Run(tmp_path / "out", songs).out)
    again = Run(tmp_path / "out", songs)
    assert (again.done, again.n_done, again.total) == ([], 4, 4)
    assert content(again.out) == before


def test_only_what_is_new_or_was_deleted_is_done_again(songs, tmp_path):
    first = Run(tmp_path / "out", songs)
    (first.out / "c.txt").unlink()
    (songs / "bb.mid").write_text("new")
    assert Run(tmp_path / "out", songs).done == ["bb.mid", "c.mid"]
    assert names(first.out) == ["a.mid", "b.mid", "bb.mid", "c.mid", "d.mid"]
    fresh = Run(tmp_path / "fresh", songs)
    assert rows(first.out) == rows(fresh.out) and (first.out / "c.txt").read_text() == "three"


@pytest.mark.parametrize(("name", "text"), [("a", "longer"), ("a", "eno"), ("a", "ONE"), ("b", "two"), ("b", "TOO")])
def test_a_changed_input_is_done_again(songs, tmp_path, name, text):
    """Kept or dropped before and after; its output of before is the run's own, and no reason to refuse."""
    run = Run(tmp_path / "out", songs)
    later(songs / f"{name}.mid", text)
    assert Run(tmp_path / "out", songs).done == [f"{name}.mid"]
    assert (run.out / f"{name}.txt").exists() != text.isupper()
    assert rows(run.out) == rows(Run(tmp_path / "fresh", songs).out)


def test_an_input_changed_within_the_same_second_and_length_is_noticed(songs, tmp_path):
    run = Run(tmp_path / "out", songs)
    finished = (run.out / "report.jsonl").stat().st_mtime_ns
    (songs / "a.mid").write_text("eno")
    os.utime(songs / "a.mid", ns=(finished + 1000, finished + 1000))
    assert Run(tmp_path / "out", songs).done == ["a.mid"]


def test_other_settings_are_refused_without_force(songs, tmp_path):
    run = Run(tmp_path / "out", songs, level=1)
    before = content(run.out)
    with pytest.raises(UserError, match=r"a\.txt exists already.* settings; .*--force"):
        Run(tmp_path / "out", songs, level=2)
    assert content(run.out) == before
    assert Run(tmp_path / "out", songs, level=1).done == []
    assert Run(tmp_path / "out", songs, level=2, force=True).done == run.done
    assert rows(run.out)[0]["settings"] != orjson.loads(before["report.jsonl"].splitlines()[0])["settings"]


def test_force_does_everything_again(songs, tmp_path):
    run = Run(tmp_path / "out", songs)
    (run.out / "a.txt").write_text("mine")
    assert Run(tmp_path / "out", songs).done == []
    assert Run(tmp_path / "out", songs, force=True).done == run.done
    assert (run.out / "a.txt").read_text() == "one"


def test_a_file_of_somebody_else_is_never_replaced_and_the_refused_run_leaves_no_trace(songs, tmp_path):
    out = tmp_path / "out"
    (out / "z").mkdir(parents=True)
    (out / "z" / "d.txt").write_text("mine")
    for inputs in ([songs], [songs / "a.mid", songs]):
        with pytest.raises(UserError, match=r"z/d\.txt exists already.*; repeat .*, or --force"):
            Run(out, *inputs)
        assert content(out) == {"z/d.txt": b"mine"} and sorted(path.name for path in out.iterdir()) == ["z"]
    assert Run(out, songs, force=True).done == ["a.mid", "b.mid", "c.mid", "d.mid"]


@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_never_replaced_even_by_force(tmp_path, force):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.mid").write_text("two")
    (tmp_path / "x").mkdir()
    for inputs in ([tmp_path / "a.txt"], [tmp_path / "b.mid", tmp_path / "x" / ".." / "a.txt"]):
        with pytest.raises(UserError, match=r"a\.txt would replace the file it is made of, or another input"):
            Run(tmp_path, *inputs, force=force)
        assert content(tmp_path) == {"a.txt": b"one", "b.mid": b"two"}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_place_of_an_output_is_named(songs, tmp_path, force):
    (tmp_path / "out" / "a.txt").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a\.txt: a folder, where a file is to be written"):
        Run(tmp_path / "out", songs, force=force)
    assert content(tmp_path / "out") == {}


@pytest.mark.parametrize("text", ["nothing of the kind\n", '{"no": "source"}\n', "[1]\n", '{"source": 3}\n'])
def test_a_report_of_something_else_is_refused_and_kept(songs, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"report\.jsonl: not a report of an earlier run; move it away"):
        Run(tmp_path / "out", songs)
    assert content(tmp_path / "out") == {"report.jsonl": text.encode()}


def test_a_report_of_an_earlier_version_does_not_end_in_a_traceback(songs, tmp_path):
    """Its rows knew neither settings nor bytes."""
    (tmp_path / "out").mkdir()
    row = {"source": str(songs / "a.mid"), "verdict": "kept", "output": str(tmp_path / "out" / "a.txt"), "notes": 3}
    (tmp_path / "out" / "report.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    (tmp_path / "out" / "a.txt").write_text("one")
    with pytest.raises(UserError, match=r"exists already|not a report"):
        Run(tmp_path / "out", songs)


def test_rows_of_other_inputs_are_carried_over_before_those_of_the_run(songs, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.mid").write_text("more")
    Run(tmp_path / "out", songs)
    run = Run(tmp_path / "out", tmp_path / "more")
    assert run.done == ["x.mid"]
    assert names(run.out) == ["a.mid", "b.mid", "c.mid", "d.mid", "x.mid"]
    assert run.summary.text().startswith("1 of 1 files copied")
    assert Run(tmp_path / "out", songs).n_done == 4
    assert names(run.out) == ["x.mid", "a.mid", "b.mid", "c.mid", "d.mid"]
    (songs / "a.mid").unlink()
    Run(tmp_path / "out", songs)
    assert names(run.out) == ["x.mid", "a.mid", "b.mid", "c.mid", "d.mid"]  # what it gave is still there


# ---------------------------------------------------------------- continued


@pytest.mark.parametrize("after", range(5))
def test_an_unfinished_run_goes_on_where_it_was(songs, tmp_path, after):
    expected = content(Run(tmp_path / "undisturbed", songs).out)
    if after < 4:
        interrupted(after, tmp_path / "out", songs)
        assert not (tmp_path / "out" / "report.jsonl").exists()
    else:
        Run(tmp_path / "out", songs)
    run = Run(tmp_path / "out", songs)
    assert (run.n_done, len(run.done)) == (after, 4 - after)
    found = content(run.out)
    assert found.pop("logs.txt").decode().replace("/out", "/undisturbed") == expected.pop("logs.txt").decode()
    assert found == expected


def test_an_unfinished_run_with_other_settings_is_refused_and_begun_again_by_force(songs, tmp_path):
    out = tmp_path / "out"
    interrupted(2, out, songs, level=1)
    before = content(out)
    with pytest.raises(UserError, match=rf"^{out}: an unfinished run with other settings lies here; .*--force"):
        Run(out, songs, level=2)
    assert content(out).keys() == before.keys()
    assert Run(out, songs, level=1).n_done == 2
    interrupted(2, tmp_path / "other", songs, level=1)
    assert Run(tmp_path / "other", songs, level=2, force=True).n_done == 0


def test_an_unfinished_run_by_force_stays_one(songs, tmp_path):
    """What it has not yet done again counts as not done, though nobody says --force a second time."""
    Run(tmp_path / "out", songs)
    (tmp_path / "out" / "c.txt").write_text("mine")
    interrupted(1, tmp_path / "out", songs, force=True)
    run = Run(tmp_path / "out", songs)
    assert (run.n_done, run.done) == (1, ["b.mid", "c.mid", "d.mid"])
    assert (run.out / "c.txt").read_text() == "three"


def test_an_unfinished_run_whose_input_changed_does_it_again(songs, tmp_path):
    interrupted(3, tmp_path / "out", songs)
    later(songs / "a.mid", "eno")
    assert Run(tmp_path / "out", songs).done == ["a.mid", "d.mid"]


def test_an_unfinished_run_repeated_with_other_inputs_counts_these_alone(songs, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.mid").write_text("more")
    interrupted(2, tmp_path / "out", songs)
    run = Run(tmp_path / "out", tmp_path / "more")
    assert run.summary.text().startswith("1 of 1 files copied")
    assert names(run.out) == ["a.mid", "b.mid", "x.mid"]


def test_what_no_worker_brought_to_an_end_is_tried_again(songs, tmp_path):
    """With a longer time limit, perhaps, or a newer parser."""
    Run(tmp_path / "out", songs)
    path = tmp_path / "out" / "report.jsonl"
    first, second, *others = map(orjson.loads, path.read_bytes().splitlines())
    path.write_bytes(b"\n".join(map(orjson.dumps, [first, second | {reports.NO_RESULT: True}, *others])))
    assert Run(tmp_path / "out", songs).done == ["b.mid"]
    assert Run(tmp_path / "out", songs).done == []


def test_two_runs_into_one_folder_do_not_mix(songs, tmp_path):
    (tmp_path / "out").mkdir()
    with Report(tmp_path / "out", "copied", {}) as report:
        report.plan(Listing([songs], (".mid",), tmp_path / "out", ".txt"))
        with pytest.raises(UserError, match="another run is writing here"):
            Run(tmp_path / "out", songs)
        with pytest.raises(UserError, match="another run is writing here"):
            Run(tmp_path / "out", songs, force=True)
    assert Run(tmp_path / "out", songs).n_done == 0


def test_a_million_rows_need_no_memory_while_they_are_counted(songs, tmp_path, monkeypatch):
    """Rows come from the store one at a time."""
    taken = []
    Run(tmp_path / "out", songs)
    original = reports.Report.rows
    monkeypatch.setattr(reports.Report, "rows", lambda self: (taken.append(1) or row for row in original(self)))
    Run(tmp_path / "out", songs)
    assert len(taken) == 4


# ---------------------------------------------------------------- shards


@pytest.mark.parametrize(("of", "order"), [(2, [1, 2]), (3, [3, 1, 2]), (6, [6, 5, 4, 3, 2, 1])])
def test_shards_merge_into_the_report_of_the_whole_run(songs, tmp_path, of, order):
    expected = content(Run(tmp_path / "whole", songs).out)
    inputs = Listing([songs], (".mid",), tmp_path / "whole", ".txt")
    shutil.move(tmp_path / "whole", tmp_path / "put aside")
    for number in order:
        assert merge_shards(tmp_path / "whole", "copied", of, inputs) is None
        Run(tmp_path / "whole", songs, shard=Shard(number, of))
    summary = merge_shards(tmp_path / "whole", "copied", of, inputs)
    assert summary.text().startswith("3 of 4 files copied")
    found = content(tmp_path / "whole")
    assert {name: data for name, data in found.items() if "-of-" not in name} == expected
    assert Run(tmp_path / "whole", songs).done == []  # the whole run takes the shards' work over


def test_new_inputs_of_a_sharded_run_move_no_other(songs, tmp_path):
    """Every shard finds its own work again, and the merged report has a row for each input once."""
    inputs = Listing([songs], (".mid",), tmp_path / "out", ".txt")
    for number in (1, 2):
        Run(tmp_path / "out", songs, shard=Shard(number, 2))
    (songs / "a0.mid").write_text("new")
    (songs / "c.mid").unlink()
    done = [name for number in (1, 2) for name in Run(tmp_path / "out", songs, shard=Shard(number, 2)).done]
    assert done == ["a0.mid"]
    assert merge_shards(tmp_path / "out", "copied", 2, inputs).n_rows == 4


def test_a_continued_run_replaces_nothing_that_it_had_not_planned(songs, tmp_path):
    interrupted(1, tmp_path / "out", songs)
    (songs / "y.mid").write_text("new")
    (tmp_path / "out" / "y.txt").write_text("mine")
    with pytest.raises(UserError, match=r"y\.txt exists already"):
        Run(tmp_path / "out", songs)
    assert (tmp_path / "out" / "y.txt").read_text() == "mine"


def test_shards_are_not_merged_while_one_is_unfinished(songs, tmp_path):
    inputs = Listing([songs], (".mid",), tmp_path / "out", ".txt")
    Run(tmp_path / "out", songs, shard=Shard(1, 2))
    interrupted(1, tmp_path / "out", songs, shard=Shard(2, 2))
    assert merge_shards(tmp_path / "out", "copied", 2, inputs) is None
    assert Run(tmp_path / "out", songs, shard=Shard(2, 2)).n_done == 1
    assert merge_shards(tmp_path / "out", "copied", 2, inputs).n_kept == 3
    interrupted(0, tmp_path / "out", songs, shard=Shard(1, 2), force=True)
    assert merge_shards(tmp_path / "out", "copied", 2, inputs) is None
