"""Several processes make the same run as one: two and three on the CPU, where gradients go by gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import succeeds
from random_songs import TINY_MODEL, make_dataset, random_song, write_json
from several import asked_to_stop, disk_full, killed, out_of_memory, run_together, said
from training_runs import COLUMNS_OF_TIME, FILES, TINY_TRAINING, T, interrupt_after, is_stopped, table, weights

import train_pool
from backline.common.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError
from backline.training import loss_picture
from backline.training.checkpoints import load_checkpoint
from backline.training.config import LAST, LOSSES
from backline.training.distributed import Processes, SharedError

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
                                reason="this PyTorch cannot let processes talk to each other (gloo)")
SETTINGS = {"validate_steps": 2, "transpose": [-5, 6], "random_crops": True, "drop_parts": 0.3,
            "wrong_notes": 0.1}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """8 rows to train on, in steps of 3, 3 and 2, and 3 held out."""
    monkeypatch.chdir(tmp_path)
    make_dataset(Path("dataset.pt"), [random_song(i, 30) for i in range(11)], T)
    monkeypatch.setattr(loss_picture, "loss_curves", lambda _rows: b"picture")
    return tmp_path


def arguments(name: str = "run", **changes) -> list[str]:
    write_json(Path("model.json"), TINY_MODEL | {"dropout": 0.0, "heads": "gru"} | changes.pop("model", {}))
    write_json(Path(f"{name}.json"), TINY_TRAINING | SETTINGS | changes | {"filename": name})
    return ["--dataset_path", "dataset.pt", "--model_config", "model.json", "--training_args", f"{name}.json",
            "--train_split", "0.73", "-d", "cpu"]


def alone(**changes) -> Path:
    succeeds(train_pool.main, arguments("alone", **changes))
    return Path("alone")


def assert_equal_runs(run: Path, other: Path) -> None:
    """The same steps, losses and weights, up to the rounding of sums in another order."""
    rows, others = table(run), table(other)
    assert [row["steps"] for row in rows] == [row["steps"] for row in others]
    for row, expected in zip(rows, others, strict=True):
        assert row.keys() == expected.keys()
        for key in row.keys() - COLUMNS_OF_TIME:
            assert bool(row[key]) == bool(expected[key])
            assert float(row[key] or 0) == pytest.approx(float(expected[key] or 0), rel=1e-5), key
    for name, weight in weights(other).items():
        # Adam divides by the gradient's size: where that is rounding alone, a step may point anywhere.
        assert torch.allclose(weights(run)[name], weight, atol=1e-3), name
        assert (weights(run)[name] - weight).abs().mean() < 1e-5, name


@pytest.mark.parametrize(("count", "changes"), [
    (2, {}),
    # 1 + 1 + 1 rows, and at the end of an epoch 1 + 1 + 0
    pytest.param(3, {}, marks=pytest.mark.slow),
    (2, {"batch_size": 1, "accumulation": 5}),  # 3 + 2 and 2 + 1 rows: one has more batches than the other
])
def test_the_same_losses_and_weights_as_alone(count, changes):
    expected = alone(**changes)
    assert run_together(count, arguments(**changes)) == [0] * count, said(count)
    assert_equal_runs(Path("run"), expected)
    assert sorted(path.name for path in Path("run").iterdir()) == FILES
    outs = said(count)
    assert f"run: {sum(w.numel() for w in weights(expected).values()):,} parameters on {count} × cpu; " in outs[0]
    assert [line.split(":")[0] for line in outs[0].splitlines() if line.startswith("step ")] == [
        f"step {row['steps']}" for row in table(expected) if row["held_out_loss"]]
    assert outs[1:] == [""] * (count - 1)


def test_dropout_differs_between_processes_and_comes_again():
    runs = []
    for name in ("one", "other"):
        assert run_together(2, arguments(name, model={"dropout": 0.3})) == [0, 0]
        runs.append(table(Path(name)))
    for row, again in zip(*runs, strict=True):
        assert {**row, "seconds": ""} == {**again, "seconds": ""}
    draws = []
    for number in (0, 1, 2):
        torch.manual_seed(5)
        Processes("cpu", number, 3).seed_draws(seed=0, step=7)
        draws.append(torch.rand(3).tolist())
    assert len({tuple(drawn) for drawn in draws}) == 3
    torch.manual_seed(5)
    assert torch.rand(3).tolist() == draws[0]  # the first goes on as if alone


def test_the_first_plans_a_run_of_so_many_minutes_for_all():
    argv = arguments(max_minutes=0.05)
    settings = json.loads(Path("run.json").read_text())
    del settings["num_epochs"]
    write_json(Path("run.json"), settings)
    assert run_together(2, argv) == [0, 0], said(2)
    progress = load_checkpoint(Path("run") / LAST)["training"]["progress"]
    assert progress["step"] == progress["planned"] > 0
    assert f"run: {progress['planned']} steps in 0.05 minutes" in said(2)[0]
    assert said(2)[1] == ""


def test_two_asked_to_stop_are_continued_by_one():
    expected = alone()
    assert run_together(2, arguments(), asked_to_stop) == [EXIT_INTERRUPTED] * 2, said(2)
    assert said(2)[0].splitlines()[-1] == "stopped at step 2; continue with: python train_pool.py --resume run"
    assert said(2)[1] == ""
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    assert_equal_runs(Path("run"), expected)


def test_one_stopped_is_continued_by_two_and_by_three(monkeypatch):
    expected = alone()
    interrupt_after(monkeypatch, 1)
    is_stopped(arguments())
    assert run_together(2, ["--resume", "run", "-d", "cpu"], asked_to_stop) == [EXIT_INTERRUPTED] * 2, said(2)
    assert "stopped at step 2;" in said(2)[0]
    assert run_together(3, ["--resume", "run", "-d", "cpu"]) == [0, 0, 0], said(3)
    assert_equal_runs(Path("run"), expected)


@pytest.mark.parametrize(("fault", "codes", "texts"), [
    (killed, (EXIT_USER_ERROR, -9), ("error: another process of this run ended before its time", "")),
    pytest.param(out_of_memory, (EXIT_USER_ERROR, EXIT_USER_ERROR),
                 ("error: another process of this run ended before its time", "error: 2 rows of 32 notes at once"),
                 marks=pytest.mark.slow),
    pytest.param(disk_full, (EXIT_USER_ERROR, EXIT_USER_ERROR),
                 ("error: run/last.pth: cannot be written (No space left", ""), marks=pytest.mark.slow)])
def test_one_that_fails_leaves_none_hanging_and_the_last_checkpoint_whole(fault, codes, texts):
    expected = alone()
    assert tuple(run_together(2, arguments(), fault)) == codes, said(2)
    for text, out in zip(texts, said(2), strict=True):
        errors = [line for line in out.splitlines() if not line.startswith(("step ", "run: "))]
        assert len(errors) == bool(text), out
        assert not text or errors[0].startswith(text)
    assert run_together(2, ["--resume", "run", "-d", "cpu"]) == [0, 0], said(2)
    assert_equal_runs(Path("run"), expected)


@pytest.mark.parametrize(("argv", "text"), [
    (["--dataset_path", "none.pt", "-d", "cpu"], "error: none.pt: no such file"),
    (["-d", "cuda:1"], "error: device 'cuda:1' is"),
    (["--resume", "nowhere"], "error: nowhere: no run to continue here")])
def test_a_mistake_is_said_once(argv, text):
    argv = argv if "--resume" in argv else [*arguments(), *argv]
    assert run_together(2, argv) == [EXIT_USER_ERROR] * 2
    first, second = said(2)
    assert first.startswith(text)
    assert len(first.splitlines()) == 1
    assert second == ""


@pytest.mark.slow
def test_torchrun(tmp_path):
    """As people start it; all other tests give the processes the same environment in less time."""
    expected = alone()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, train_pool.__file__, *arguments()], cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(Path("run"), expected)
    assert (Path("run") / LAST).is_file()
    assert (Path("run") / LOSSES).is_file()


# ---------------------------------------------------------------- as one of them sees it


def test_alone_nothing_is_shared_or_sent():
    processes, rows, model = Processes("cpu"), torch.arange(5), torch.nn.Linear(1, 1)
    assert processes.is_first
    assert processes.share(rows) is not None
    assert processes.share(rows).tolist() == rows.tolist()
    assert processes.spread(model) is model
    assert processes.total(rows) is rows
    assert processes.agreed(lambda: 3) == 3
    with pytest.raises(UserError) as caught:
        processes.agreed(lambda: processes.__class__("gpu").device)
    assert not isinstance(caught.value, SharedError)


@pytest.mark.parametrize("n_rows", range(8))
def test_shares_are_all_rows_once_and_of_like_size(n_rows):
    shares = [Processes("cpu", number, 3).share(torch.arange(n_rows)).tolist() for number in range(3)]
    assert [row for share in shares for row in share] == list(range(n_rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_each_process_gets_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for number in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        assert Processes("auto", number, 4).device == torch.device("cuda", number)
    assert chosen == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(UserError, match="'cuda:1' is one, and 4 processes want one each"):
        _ = Processes("cuda:1", 0, 4).device
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserError, match="4 processes want a GPU each, and this machine has 2; give torchrun a lower"):
        _ = Processes("cuda", 0, 4).device


class Spread(torch.nn.Module):
    """Stands in for DistributedDataParallel."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args, **told):
        return self.model(*args, **told)


def test_a_run_that_ended_holds_no_ddp(monkeypatch):
    """Processes that part while one of them still holds it hang now and then."""
    monkeypatch.setattr(Processes, "spread", lambda _processes, model: Spread(model))
    args = train_pool.build_parser().parse_args(arguments())
    run = train_pool.new_run(args, Processes("cpu"), [])
    assert run.train() == 0
    assert run.forward is run.model
