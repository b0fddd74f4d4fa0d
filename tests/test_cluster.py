"""The scripts for a cluster, rehearsed with a stand-in for SLURM that runs their jobs as processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from random_songs import random_song

from backline.preparation.dataset import load_dataset
from tokenizer import MidiTokenizerPooled

# Runs a job at once: the tasks of an array side by side. A script that fails is started again once, as requeued.
SBATCH = """#!{python}
import os, subprocess, sys
options = dict(arg[2:].partition("=")[::2] for arg in sys.argv[1:] if arg.startswith("--"))
script = sys.argv[-1]
with open("log.txt", "a+") as log:
    log.seek(0)
    number = len(log.readlines()) + 1
    log.write(script + " " + " ".join(sys.argv[1:-1]) + "\\n")
n = int(options["array"].partition("-")[2]) if "array" in options else 1
env = os.environ | {{"SLURM_ARRAY_TASK_COUNT": str(n), "SLURM_CPUS_PER_TASK": "0", "SLURM_JOB_ID": str(number),
                    "SLURM_JOB_NODELIST": "localhost", "SLURM_NNODES": options.get("nodes", "1")}}
with open("out.txt", "a") as out:
    for restart in range(2):
        tasks = [subprocess.Popen(["sh", script], env=env | {{"SLURM_ARRAY_TASK_ID": str(i + 1),
                 "SLURM_RESTART_COUNT": str(restart)}}, stdout=out, stderr=out) for i in range(n)]
        codes = [task.wait() for task in tasks]
        if not any(codes) or not os.path.exists("requeued"):
            break
print(number)
sys.exit(max(codes))
"""
# With a file "short-of-time" in the folder, its first job gets SIGTERM once it trains.
SRUN = """#!{python}
import os, subprocess, sys, time
nodes = [subprocess.Popen(sys.argv[1:], env=os.environ | {{"SLURM_NODEID": str(i)}})
         for i in range(int(os.environ["SLURM_NNODES"]))]
if os.path.exists("short-of-time"):
    os.unlink("short-of-time")
    while not os.path.exists("run/last.pth"):
        time.sleep(0.1)
    for node in nodes:
        node.terminate()
sys.exit(max(node.wait() for node in nodes))
"""
SCONTROL = """#!{python}
import sys
print("localhost") if sys.argv[1] == "show" else open("requeued", "w").close()
"""
TINY_MODEL = {"emb_sizes": [8, 8, 8, 8], "n_layers": 1, "n_heads": 2, "d_model": 16, "block_size": 1024}
TINY_TRAINING = {"filename": "run", "batch_size": 8, "num_epochs": 99, "max_train_steps": 40, "lr": 0.001,
                 "validate_steps": 2}
N_SONGS = 24


@pytest.fixture
def cluster(tmp_path):
    """A checkout with songs beside it, and the environment in which SLURM is the stand-in."""
    for name in ("backline", "configs", "cluster"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "midi").mkdir()
    for i in range(N_SONGS):
        rows = random_song(i, 700, 40)
        MidiTokenizerPooled().create_midi_from_tokens(rows).dump(tmp_path / f"midi/{i}.mid")
    for name, data in (("model", TINY_MODEL), ("training", TINY_TRAINING)):
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        program = tmp_path / "bin" / name
        program.write_text(text.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHON": sys.executable,
           "MIDI": "midi", "WORK": "work", "MODEL": "model.json", "TRAINING": "training.json", "SHARDS": "8",
           "NODES": "2", "PROCESSES": "4", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return tmp_path, env


def submit(folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(["sh", "cluster/submit.sh"], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_nothing_is_submitted_without_songs_and_a_place(cluster):
    folder, env = cluster
    for name in ("MIDI", "WORK"):
        done = submit(folder, {key: value for key, value in env.items() if key != name})
        assert done.returncode and name in done.stderr
    assert not (folder / "log.txt").exists()


@pytest.mark.slow
def test_eight_processes_go_from_midi_to_a_model_through_the_end_of_a_jobs_time(cluster):
    folder, env = cluster
    (folder / "short-of-time").touch()
    done = submit(folder, env)
    assert done.returncode == 0, done.stderr + (folder / "out.txt").read_text()
    assert done.stdout.startswith("clean 1, tokenize 2, prepare 3, train 4;")
    log = (folder / "log.txt").read_text().splitlines()
    assert log[1:] == ["cluster/tokenize.sbatch --parsable --array=1-8 --dependency=afterok:1",
                       "cluster/prepare.sbatch --parsable --dependency=afterok:2",
                       "cluster/train.sbatch --parsable --nodes=2 --gpus-per-node=4 --dependency=afterok:3"]
    cleaned = [json.loads(line) for line in (folder / "work/cleaned/report.jsonl").read_text().splitlines()]
    assert len(cleaned) == N_SONGS and {row["verdict"] for row in cleaned} == {"kept"}
    assert len(load_dataset(folder / "work/dataset.pt").songs) == N_SONGS
    hyperparameters = json.loads((folder / "run/hyperparameters.json").read_text())
    assert hyperparameters["processes"] == 8
    first, = hyperparameters["resumed"]  # once, where it was stopped
    assert 0 < first["step"] < TINY_TRAINING["max_train_steps"] == last_step(folder)
    before = (folder / "run/last.pth").read_bytes()
    again = submit(folder, env)
    assert again.returncode == 0, again.stderr + (folder / "out.txt").read_text()
    assert (folder / "run/last.pth").read_bytes() == before  # all of it was done


def last_step(folder: Path) -> int:
    *_, last = (folder / "run/train_losses.csv").read_text().splitlines()
    return int(last.partition(",")[0])
