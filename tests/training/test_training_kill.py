"""A training run that is killed again and again ends, to the bit, as if it never had been."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from random_songs import TINY_MODEL, make_dataset, random_song, write_json
from several import begin, said
from training_runs import assert_same_run

import train_pool
from backline.common.files import replacing
from backline.training.checkpoints import load_checkpoint
from backline.training.config import BEST, LAST, LOSSES

KILLS = 20
# Some steps between checkpoints, so that steps are lost and made again; and validations between those.
TRAINING = {"batch_size": 3, "num_epochs": 12, "lr": 0.01, "warmup_steps": 2, "loggingsteps": 3, "validate_steps": 4,
            "transpose": [-5, 6], "random_crops": True, "drop_parts": 0.3}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_dataset(Path("dataset.pt"), [random_song(i, 30) for i in range(12)], 32)
    write_json(Path("model.json"), TINY_MODEL | {"dropout": 0.2, "heads": "gru"})
    return tmp_path


def arguments(name: str, **changes) -> list[str]:
    write_json(Path(f"{name}.json"), TRAINING | changes | {"filename": name})
    return ["--dataset_path", "dataset.pt", "--model_config", "model.json", "--training_args", f"{name}.json", "-d",
            "cpu"]


def part_of(path: Path) -> Path:
    """The name under which `path` is written before it is whole."""
    with replacing(path) as file:
        name = Path(file.name)
        path.touch()
    path.unlink()
    return name


def assert_whole(run: Path) -> None:
    """What bears a final name is complete."""
    for name in (LAST, BEST):
        if (run / name).exists():
            load_checkpoint(run / name)
    if (run / LOSSES).exists():
        rows = list(csv.DictReader((run / LOSSES).read_text().splitlines()))
        assert all(row["seconds"] for row in rows)
        assert [int(row["steps"]) for row in rows] == sorted({int(row["steps"]) for row in rows})


def command(name: str, **changes) -> list[str]:
    """How to go on with the run: from its checkpoint, or from the beginning if there is none yet."""
    return ["--resume", name, "-d", "cpu"] if Path(name, LAST).exists() else [*arguments(name, **changes), "--force"]


def wait_for(path: Path, is_running: Callable[[], bool], seconds: float) -> None:
    """Until `path` is there, the process has ended, or time is over."""
    until = time.monotonic() + seconds
    while not path.exists() and is_running() and time.monotonic() < until:
        pass


@pytest.mark.parametrize("written", [LAST, pytest.param(BEST, marks=pytest.mark.slow)])
def test_killed_while_a_checkpoint_is_written_and_at_another_moment(written):
    whole = begin(0, 1, 0, arguments("whole"))
    whole.join()
    assert whole.exitcode == 0, said(1)
    parts = part_of(Path("killed", written))
    for moment in ("written", "soon"):
        child = begin(0, 1, 0, command("killed"))
        if moment == "written":
            wait_for(parts, child.is_alive, 60)
        else:
            time.sleep(0.3)
        child.kill()
        child.join()
        assert_whole(Path("killed"))
        assert child.exitcode == -signal.SIGKILL, said(1)
    child = begin(0, 1, 0, command("killed"))
    child.join()
    assert child.exitcode == 0, said(1)
    assert_same_run(Path("killed"), Path("whole"))


@pytest.mark.slow
def test_the_command_killed_twenty_times_ends_as_if_never():
    """Through the command as people type it, the picture drawn: seconds a sitting, minutes in all."""
    changes = {"num_epochs": 50, "loggingsteps": 5, "validate_steps": 7}

    def start(options: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, train_pool.__file__, *options], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    whole = start(arguments("whole", **changes))
    whole.stdout.readline()  # printed when all is loaded
    began = time.monotonic()
    whole.communicate()
    assert whole.returncode == 0
    longest = 1.2 * (time.monotonic() - began) / KILLS
    dice, parts = random.Random(0), [part_of(Path("killed", name)) for name in (LAST, BEST)]
    kills = during_writes = 0
    for kill in range(KILLS):
        child = start(command("killed", **changes))
        if kill % 5:
            child.stdout.readline()
        time.sleep(dice.uniform(0, longest))
        if kill % 3 == 0:
            wait_for(dice.choice(parts), lambda child=child: child.poll() is None, 10)
        child.send_signal(signal.SIGKILL)
        _, err = child.communicate()
        if child.returncode == 0:
            break  # it was done
        assert child.returncode == -signal.SIGKILL, err.decode()
        kills += 1
        during_writes += any(part.exists() for part in parts)
        assert_whole(Path("killed"))
        last = Path("killed", LAST)
        step = load_checkpoint(last)["training"]["progress"]["step"] if last.exists() else "none"
        print(f"\nkill {kills}, {during_writes} while a checkpoint was written; last checkpoint: step {step}", end="")
    print()
    assert kills >= KILLS // 2
    assert during_writes
    done = start(command("killed", **changes))
    _, err = done.communicate()
    assert done.returncode == 0, err.decode()
    assert_same_run(Path("killed"), Path("whole"))
