"""Which libraries are installed: to play takes fewer of them than the whole toolkit."""

from __future__ import annotations

import importlib.util

INSTALL_ALL = "pip install -r requirements.txt"
# What requirements.txt has besides requirements-play.txt: how it is imported, and what it is called.
NOT_FOR_PLAYING = {"torch": "PyTorch", "matplotlib": "matplotlib",
                   "datasketch": "datasketch", "sklearn": "scikit-learn"}
INSTALL_PLAYERS = "pip install -r requirements-play.txt"


def is_installed(library: str) -> bool:
    """Whether a library can be imported; it is not imported."""
    return importlib.util.find_spec(library) is not None
