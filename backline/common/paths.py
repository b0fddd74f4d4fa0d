"""Where the files that come with the program lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFIGS = ROOT / "configs"
DEFAULT_VOCABULARY = CONFIGS / "vocab.json"
BUNDLED_CONFIG = CONFIGS / "model_bundled.json"
BUNDLED_MODEL = ROOT / "models" / "bundled.safetensors"
BUNDLED_COPIES = ROOT / "models" / "bundled_copies.safetensors"  # index of the songs it was trained on
WEB = ROOT / "backline" / "listening" / "web"
