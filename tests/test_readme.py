"""The commands of the README and of PLAYING.md run as they stand, in a fresh copy of the repository."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import CAN_FORK, script_server, started
from tiny_models import tiny_model
from walkthrough import commands

from backline.generation.config import GenConfig, RuleConfig
from backline.layers.config import ModelConfig
from backline.music.chords import FIRST_VALUE
from backline.music.sheet import Levels
from backline.music.sheet_table import SheetTable
from backline.music.vocab import load_vocabulary
from backline.training.checkpoints import save_release
from backline.training.config import TrainingSettings
from clean_midi import Cleaning
from tokenizer import MidiTokenizerPooled

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLAYING = (ROOT / "PLAYING.md").read_text(encoding="utf-8")
DATA = (ROOT / "DATA.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "configs/README.md").read_text(encoding="utf-8")
LONG = re.compile("--watch|--reproduce stars|studio|critic")  # tested elsewhere, and by the walkthrough


def quick_commands() -> list[str]:
    """The scripts' commands in blocks, but those for research; all of them `make walkthrough` types too."""
    begin = README.partition("## If you do research")[0] + PLAYING
    return [command for command in dict.fromkeys(commands(begin)) if f"\n{command}\n" in begin
            and re.match(r"(\.venv/bin/)?python \w+\.py", command) and not LONG.search(command)]


@pytest.fixture(scope="module", params=["forked", pytest.param("started", marks=pytest.mark.slow)])
def script(request, tmp_path_factory):
    """Call `python argv[0] argv[1:]` in a folder: a function of both; forked, which is quicker, or started."""
    if request.param == "started" or not CAN_FORK:
        yield started
    else:
        with script_server(tmp_path_factory.mktemp("log") / "log.txt") as server:
            yield server.run


@pytest.fixture(scope="module")
def checkout(script, tmp_path_factory):
    """The files a user has, a folder of his own songs, and training settings that take seconds."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for name in ("backline", "configs", "examples", "models"):
        shutil.copytree(ROOT / name, folder / name)
    tiny = tiny_model(load_vocabulary(), block_size=512, sharpness=1, given=True, controls=True, late_layers=1)
    table = SheetTable(Levels(((1, 2, 3, 4, 5, 6, 7),) * 3), np.full((2, 16), FIRST_VALUE, np.uint8))
    facts = {"controls": table.to_facts()}
    save_release(folder / "models/bundled.safetensors", tiny, load_vocabulary(), facts)  # in its place, for speed
    random, tokenizer = np.random.default_rng(0), MidiTokenizerPooled()
    (folder / "my_midi").mkdir()
    for i in range(6):
        rows = np.stack([random.integers(4, 36, 600), random.integers(4, 36, 600), random.integers(4, 20, 600),
                         np.concatenate([random.integers(4, 51, 200), random.integers(60, 90, 200),
                                         random.integers(150, 200, 200)])], axis=1)
        midi = tokenizer.create_midi_from_tokens(rows)
        for note in itertools.chain.from_iterable(instrument.notes for instrument in midi.instruments):
            note.velocity = int(random.integers(40, 120))
        midi.dump(folder / f"my_midi/{i}.mid")
    for name, changes in (("training_args", {"num_epochs": 1}), ("training_finetune", {"max_train_steps": 2}),
                          ("genconfig", {"max_steps": 20}),
                          ("model_config", {"n_layers": 3, "d_model": 32, "emb_sizes": [8, 8, 8, 8]})):
        path = folder / f"configs/{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_documented_commands_run_in_order(script, checkout):
    assert len(quick_commands()) >= 15
    for command in quick_commands():
        done = script(checkout, command.split()[1:])
        assert done.returncode == 0, f"{command}\n{done.output}"
    for path in ("generated/2.mid", "generated/index.html", "prompt/merged.mid", "prompt/tokens/merged.json",
                 "continued/1-prompt.mid", "continued/0.png", "cleaned/2.mid", "tokens/2.json", "dataset.pt",
                 "adapted.safetensors", "mine.safetensors", "mine/5.mid",
                 "musictransformer/best.pth", "musictransformer/losses.png", "mine/2-piano.mid", "new_drums/0.png",
                 "other_middle/0.mid", "longer/0.mid", "loops/1.mid", "again/0-drums.mid", "told/2.mid",
                 "longer_loop/1.mid", "other_drums/0.mid", "other_bars/0.mid", "four_chords/2.mid"):
        assert (checkout / path).exists(), path


def test_documented_python_runs(checkout):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(1, 1, 1, 1)" in done.stdout
    assert (checkout / "listen.html").read_bytes() == (ROOT / "examples/listen.html").read_bytes()


@pytest.mark.parametrize("page", ["README.md", "PLAYING.md", "RESULTS.md", "DATA.md", "TRAINING.md",
                                  "models/MODEL_CARD.md"])
def test_options_of_documented_commands_exist(page):
    """Of all pages; that the commands of the README also run, `make walkthrough` shows."""
    found = 0
    for command in commands((ROOT / page).read_text(encoding="utf-8")):
        script = re.match(r"(?:\.venv/bin/)?python (\w+)\.py (.*)|torchrun \S+ (train_pool).py (.*)", command)
        if script and "--help" not in command:
            name, arguments = script[1] or script[3], script[2] or script[4]
            importlib.import_module(name).build_parser().parse_args(shlex.split(arguments))
            found += 1
    assert found


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("[!.]*/README.md")),
                                  ROOT / "models/MODEL_CARD.md"],
                         ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if not path.startswith("http"):
            linked = page.parent / path if path else page
            assert linked.exists(), target
            if heading:
                titles = re.findall(r"^#+ (.*)", linked.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("settings", [ModelConfig, TrainingSettings, GenConfig, RuleConfig])
def test_every_setting_is_explained(settings):
    for field in dataclasses.fields(settings):
        assert f"`{field.name}`" in SETTINGS, field.name


def test_every_choice_and_limit_of_cleaning_is_explained():
    for field in dataclasses.fields(Cleaning):
        assert f"`{field.name}`" in DATA, field.name


def test_every_stage_of_the_table_exists_and_explains_itself(checkout):
    stages = re.findall(r"^\| `(\w+\.py)` \|", README, re.MULTILINE)
    assert set(stages) == {path.name for path in ROOT.glob("*.py") if "def main(" in path.read_text(encoding="utf-8")}
    for stage in stages:
        done = subprocess.run([sys.executable, stage, "--help"], cwd=checkout, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0
        assert "Example" in done.stdout
