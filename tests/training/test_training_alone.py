"""Training needs few packages: it runs where none is installed but those that the README names for a GPU's machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from commands import ROOT
from random_songs import TINY_MODEL, make_dataset, random_song, write_json

from backline.common.errors import EXIT_INTERRUPTED
from backline.training.checkpoints import load_model
from backline.training.config import BEST, LAST, LOSSES, PICTURE

NEEDED = ("torch", "numpy", "tqdm", "safetensors", "matplotlib")

# What a process does before its commands: all other packages are as if they were not there.
WITHOUT = '''
import json, signal, sys
absent = set(json.loads(sys.argv[1]))

class Without:
    """A finder of modules that finds none of those."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
try:
    import orjson
except ModuleNotFoundError:
    pass
else:
    sys.exit("nothing is absent")
'''
COMMANDS = """
import train_pool, release
from backline.training import run as training
plain = training.Run.step

def step(run, rows):
    losses = plain(run, rows)
    if run.progress.step == 2:
        signal.raise_signal(signal.SIGINT)
    return losses

training.Run.step = step
for command, argv, code in json.loads(sys.argv[2]):
    assert {"train_pool": train_pool, "release": release}[command].main(argv) == code
"""


def absent() -> list[str]:
    """The modules of every package installed here that is none of the needed ones and not needed by one."""
    there, left = set(), list(NEEDED)
    while left:
        name = left.pop()
        if name in there:
            continue
        there.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # one that only other systems need
            continue
        left += [distribution(text) for text in requirements if "extra ==" not in text]
    owners = metadata.packages_distributions()
    return [module for module, names in owners.items()
            if not there & set(map(distribution, names)) and not (ROOT / f"{module}.py").exists()]


def distribution(requirement: str) -> str:
    """The name in a requirement, as all spellings of it are written."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def alone(*commands: tuple[str, str, int]) -> str:
    """What commands print, in a process of their own without the other packages; the last of each is its exit code.

    Step 2 of a run is its last.
    """
    commands = [(name, arguments.split(), code) for name, arguments, code in commands]
    done = subprocess.run([sys.executable, "-c", WITHOUT + COMMANDS, json.dumps(absent()), json.dumps(commands)],
                          check=False, capture_output=True, text=True,
                          env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_needs_no_package_but_a_few(tmp_path, monkeypatch):
    """A run with all that a model can be taught is made of a compressed dataset, stopped, continued and released."""
    monkeypatch.chdir(tmp_path)
    assert {"orjson", "symusic", "mido", "miditoolkit", "pychord", "pebble", "datasketch", "scipy"} <= set(absent())
    make_dataset(Path("songs.pt.xz"), [random_song(i, 200, n_bars=20) for i in range(10)], 64)
    model, training = (json.loads((ROOT / f"configs/{name}.json").read_text())
                       for name in ("model_teacher", "training_gpu"))
    assert model["controls"] and model["given"] and training["optimizer"] == "muon" and training["given_tasks"]
    write_json(Path("model.json"), model | TINY_MODEL | {"n_layers": 3})
    write_json(Path("training.json"), training | {
        "filename": "run", "batch_size": 4, "row_notes": 32, "max_minutes": 0, "max_train_steps": 4, "compile": False})
    out = alone(
        ("train_pool", "--dataset_path songs.pt.xz --model_config model.json --training_args training.json -d cpu",
         EXIT_INTERRUPTED),
        ("train_pool", "--resume run -d cpu", 0),
        ("release", f"run/{LAST} mine.safetensors", 0),
        ("train_pool", "--dataset_path songs.pt.xz -fp mine.safetensors --training_args training.json -d cpu --force",
         EXIT_INTERRUPTED))
    assert out.count("stopped at step 2; continue with: python train_pool.py --resume run") == 2
    assert "run: 4 steps" in out
    assert {LAST, BEST, LOSSES, PICTURE} < {path.name for path in Path("run").iterdir()}
    assert load_model(Path("mine.safetensors"))[2]["step"] == 4
