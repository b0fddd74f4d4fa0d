"""Where a run took place: what must be known to repeat it, or to make a song again to the bit.

torch is imported late: recipes and prompts are read without it.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backline.common.paths import ROOT
from backline.common.version import VERSION

if TYPE_CHECKING:
    import torch


def run_surroundings(command: Sequence[str],
                     device: torch.device,
                     processes: int) -> dict[str, Any]:
    """What a training run stores: its command line, devices, commit and library versions."""
    import torch

    is_gpu = device.type == "cuda"
    device_name = torch.cuda.get_device_name(device) if is_gpu else platform.machine()
    versions = {
        "backline": VERSION,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    return {
        "command": list(command),
        "processes": processes,
        "device": device.type,
        "device_name": device_name,
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "versions": versions,
    }


def song_surroundings(of_player: dict[str, str]) -> dict[str, str]:
    """What a song's bytes depend on besides its recipe; `of_player`: see `engine.player.Player`."""
    return {
        "backline": VERSION,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": _processor(),
        **of_player,
    }


def differences(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """A line for each entry in which two songs' surroundings differ."""
    return [f"{name} was {then.get(name, 'not there')}, is {now.get(name, 'not there')}"
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)]


def commit(folder: Path = ROOT) -> str | None:
    """The git commit of the program in `folder`, with `-dirty` if files were changed since.

    None where it is no checkout, or git is not installed or refuses.
    """
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():  # a checkout around ours has another commit
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([git, "-C", str(folder), *describe],  # noqa: S603 (no user input)
                              capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    """The processor's name where the system tells it, otherwise its kind."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = (line for line in file if line.startswith("model name"))
            line = next(lines, "")
            _, _, name = line.partition(":")
            name = name.strip()
    except OSError:
        name = platform.processor()
    return f"{platform.machine()} {name}".strip()
