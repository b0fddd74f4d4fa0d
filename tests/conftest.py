"""Fixtures that several test modules share, and how hypothesis runs: the same examples every time."""

import os
from pathlib import Path

# Tiny models: threads cost more than they bring. For this process and those it starts, before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

from backline.folders import workers

pytest.register_assert_rewrite("commands", "pages", "training_runs")  # their asserts say what differed
pytest_plugins = ["playing"]  # fixtures that call generate.py with tiny models

hypothesis.settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.load_profile("quick")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of corpora and reference files that lies beside the repository, and not in it."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} folder beside the repository: its reference files are not part of it")
    return folder


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files of hypothesis' examples, one after another."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(autouse=True)
def no_workers_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work in this process, which is quick; tests of the workers give -j."""
    monkeypatch.setattr(workers, "available_cores", lambda: 0)
