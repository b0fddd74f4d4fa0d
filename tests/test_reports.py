"""Reports: a row per input, counts by reason, and the exit code."""

import json

import pytest

from errors import UserError
from reports import Report


def filled(folder) -> Report:
    with Report(folder, "tokenized") as report:
        report.kept(folder / "a.mid", notes=7)
        for name, bar in (("b.mid", 3), ("c.mid", 9)):
            report.dropped(folder / name, UserError(f"{folder / name}: bar {bar} is in 3/4; cut the song"))
        report.dropped(folder / "d.mid", UserError(f"{folder / 'd.mid'}: has no notes"))
    return report


def test_a_row_per_input_and_a_log_to_read(tmp_path):
    filled(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [row["verdict"] for row in rows] == ["kept", "dropped", "dropped", "dropped"]
    assert rows[1]["reason"] == "bar 3 is in 3/4; cut the song"
    log = (tmp_path / "logs.txt").read_text().splitlines()
    assert log[0] == f"{tmp_path / 'a.mid'}: tokenized, 7 notes"
    assert log[3] == f"{tmp_path / 'd.mid'}: has no notes"


def test_counts_by_reason_most_frequent_first(tmp_path, capsys):
    assert filled(tmp_path).finish() == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1 of 4 files tokenized into {tmp_path}",
        "      2 left out: bar N is in 3/4",
        "      1 left out: has no notes"]


def test_nothing_kept_is_an_error_with_the_reason(tmp_path):
    report = Report(tmp_path, "tokenized")
    report.dropped(tmp_path / "d.mid", UserError(f"{tmp_path / 'd.mid'}: has no notes"))
    with pytest.raises(UserError, match=r"d\.mid: has no notes"):
        report.finish()


def test_an_interrupted_run_leaves_its_report(tmp_path):
    with pytest.raises(KeyboardInterrupt), Report(tmp_path, "tokenized") as report:
        report.kept(tmp_path / "a.mid", notes=7)
        raise KeyboardInterrupt
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 1
