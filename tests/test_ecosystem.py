"""What people and sites expect of a toolkit: a citation, a model card, a version, a workflow; and that they agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml
from commands import ROOT
from huggingface_hub import ModelCard

from backline.common.version import VERSION

COMMANDS = sorted(path.name for path in ROOT.glob("*.py") if path.name != "model.py")


def test_the_citation_names_the_version_and_the_title_of_the_readme():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)
    assert cited["version"] == VERSION and re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    title, = re.findall(r"title\s+= \{(.*)\}", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert cited["title"] == title
    assert cited["license"] == "MIT" and (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT")


def test_the_model_cards_header_is_the_hubs_and_has_the_cards_figure():
    text = (ROOT / "models/MODEL_CARD.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    result, = card.data.eval_results
    loss, = re.findall(r"held-out loss \| (\S+) nats per note", text)
    assert str(result.metric_value) == loss.rstrip("0")
    songs, = re.findall(r"nats per note \(95 %: \S+\) on (\d+) songs", text)
    assert result.dataset_name.startswith(f"{songs} held-out songs")
    assert card.data.license == "mit" and card.data.library_name == "backline"


def test_the_workflow_runs_what_the_readme_says_on_three_systems():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    systems = {name.partition("-")[0] for name in job["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    run = [step["run"].split()[1] for step in job["steps"] if "run" in step]
    assert run == ["generate", "test"] and set(run) <= set(targets)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_its_version(command):
    done = subprocess.run([sys.executable, ROOT / command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"Backline {VERSION}\n")


def test_two_lines_import_the_tokenizer_from_another_folder(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    path, = re.findall(r"`(sys\.path\.insert\(0, \"/path/to/backline\"\))`", text)
    lines = ["import sys", path.replace("/path/to/backline", ROOT.as_posix()),
             "from tokenizer import MidiTokenizerPooled", "print(MidiTokenizerPooled().vocab['n_tokens'])"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, env={}, capture_output=True,
                          text=True, check=False)
    assert done.stdout == "[260, 36, 132, 227]\n", done.stderr


@pytest.mark.parametrize(("system", "python"), [("Windows_NT", ".venv/Scripts/python"), ("", ".venv/bin/python")])
def test_make_finds_the_environments_python_on_each_system(tmp_path, system, python):
    for name in ("Makefile", *(path.name for path in ROOT.glob("requirements*.txt"))):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-n", "test", "PYTHON=python", f"OS={system}"],
                          cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "python -m venv .venv"
    assert f"{python} -m pip install" in done.stdout and any(line.startswith(f"{python} -m pytest") for line in lines)
