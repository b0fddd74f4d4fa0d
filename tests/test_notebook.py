"""The notebook runs from its first cell to its last, and its cells show what the text says."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbclient
import nbformat
import pytest
from pages import TOKENIZER, V, data_in, frames, notes_of_idea, notes_of_rows

from backline.music.vocab import FIELDS

ROOT = Path(__file__).parents[1]
TOKENS = TOKENIZER(ROOT / "examples/prompt.mid")
PROMPT = TOKENIZER.ids_to_rows(TOKENS["ids"])
DRUMS = V.part_names.index("drums")


def read() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebook.ipynb", as_version=4)


def files() -> set[Path]:
    return {path for folder in (ROOT, ROOT / "examples", ROOT / "models") for path in folder.iterdir()
            if path.name != "__pycache__"}


@pytest.fixture(scope="module")
def outputs():
    """What the cells show, in order, after the run: (type, content) of each."""
    notebook, before = read(), files()
    resources = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert files() == before
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert "stderr" not in [output.get("name") for output in shown]
    return [item for output in shown if "data" in output for item in output["data"].items()]


def of_type(outputs: list[tuple[str, str]], kind: str) -> list[str]:
    return [content for found, content in outputs if found == kind]


@pytest.fixture
def tables(outputs):
    """The tables by the first cell of their heads: (head, rows)."""
    split = [[[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
             for text in of_type(outputs, "text/markdown")]
    return {head[0]: (head, rows) for head, _, *rows in split}


@pytest.fixture
def pages(outputs):
    """The ideas of each player."""
    return [data_in(frame["srcdoc"])["ideas"] for markup in of_type(outputs, "text/html") for frame in frames(markup)]


pytestmark = pytest.mark.filterwarnings("default")  # Jupyter's own machinery warns


def test_tokens_are_a_table_with_what_they_mean(tables):
    head, rows = tables["ids"]
    assert head == ["ids", *FIELDS, "in words"]
    assert rows[0] == ["(1, 1, 1, 1)", *["BOS_None"] * 4, "the song begins"]
    assert rows[1] == ["(4, 4, 5, 5)", "bar0", "start_pos0", "note_dur2", "pitch36_drums",
                       "bar 1, beat 1: drums, kick, for 0.25 beats"]
    assert rows[4][-1] == "bar 1, beat 1: piano, Bb3, for 0.5 beats"
    assert rows[-1] == ["(2, 2, 2, 2)", *["EOS_None"] * 4, "the song ends"]
    for ids, *events, _ in rows[1:-1]:
        row = [int(number) for number in re.findall(r"\d+", ids)]
        assert tuple(row) in TOKENS["ids"] and TOKENIZER.tokens_to_events([row]) == [events]


def test_the_vocabulary_is_a_table(tables):
    _, families = tables["family"]
    assert [row[:2] for row in families] == [[field, str(size)] for field, size in zip(FIELDS, V.sizes, strict=True)]
    _, parts = tables["part"]
    assert [row[0] for row in parts] == list(V.part_names)
    assert [row[2] for row in parts] == [f"{part.lowest_pitch} to {part.highest_pitch}" for part in V.parts]


def test_there_are_pictures(outputs):
    pictures = [base64.b64decode(text) for text in of_type(outputs, "image/png")]
    assert len(pictures) == 2 and all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_players_hold_the_songs(pages):
    (prompt,), (longer,), scratch, (drums,) = pages
    assert notes_of_idea(prompt) == notes_of_rows(PROMPT) and prompt["tempo"] == TOKENS["tempo"]
    assert notes_of_idea(longer, old=True) == notes_of_rows(PROMPT) and longer["bars"] == prompt["bars"] + 4
    assert [song["title"] for song in scratch] == ["seed 2", "seed 6"]
    assert all(4 <= song["bars"] <= 8 for song in scratch), "last notes may ring on for four bars"
    assert notes_of_idea(scratch[0]) != notes_of_idea(scratch[1]) and not notes_of_idea(scratch[0], old=True)
    others = [note for note in notes_of_rows(PROMPT) if note[0] != DRUMS]
    assert notes_of_idea(drums, old=True) == others
    assert {part for part, *_ in notes_of_idea(drums, old=False)} == {DRUMS}


def test_settings_change_something(tables):
    _, rows = tables["temperature"]
    nats = [float(row[1]) for row in rows]
    assert len(set(nats)) == 3 and nats == sorted(nats)


def test_losses_are_those_of_the_prompt(tables):
    head, rows = tables["in bar"]
    assert head == ["in bar", *FIELDS, "all"] and [row[0] for row in rows] == [str(bar) for bar in range(1, 9)]
    for _, *families, together in rows:
        assert float(together.strip("*")) == pytest.approx(sum(map(float, families)), abs=0.03)
    _, sounds = tables["sound"]
    chances = [float(chance) for _, chance in sounds]
    assert chances == sorted(chances, reverse=True) and sum(chances) <= 1.001
    assert all(sound in V.event_names[-1] for sound, _ in sounds)


def test_its_commands_are_the_readmes():
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    found = re.findall(r"python \w+\.py[^`\n]*", text)
    readme = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "RESULTS.md"))
    assert len(found) == 7 and all(command in readme for command in found)


def test_it_is_committed_without_outputs():
    for cell in read().cells:
        assert cell.metadata == {}
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)
