"""Where the files that come with the program lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFIGS = ROOT / "configs"
DEFAULT_VOCABULARY = CONFIGS / "vocab.json"
BUNDLED_CONFIG = CONFIGS / "model_bundled.json"
BUNDLED_MODEL = ROOT / "models" / "bundled.safetensors"
# An index of the songs that the bundled model was trained on.
BUNDLED_COPIES = ROOT / "models" / "bundled_copies.safetensors"
WEB = ROOT / "backline" / "listening" / "web"
STUDIO_WEB = ROOT / "backline" / "studio" / "web"
