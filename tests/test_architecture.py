"""The order of rooms: each imports only what stands before it, and three of them never need torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from commands import ROOT

from backline.training.config import BEST, LAST

# Rooms of backline/ and the two modules at the top that rooms may import; each imports only from earlier lines.
LEVELS = [
    ["common"],
    ["music"],
    ["folders", "layers"],
    ["engine"],
    ["tokenizer", "model", "preparation"],
    ["training"],
    ["evaluation"],
    ["generation"],  # measures a model's own songs, too: drift.py takes them from the sampler
    ["listening"],
    ["studio"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
WITHOUT_TORCH = ["common", "music", "folders"]
ROOMS = sorted(path.parent for path in (ROOT / "backline").glob("*/__init__.py"))
AT_THE_TOP = sorted(path.stem for path in ROOT.glob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def modules(room: Path) -> list[Path]:
    return sorted(room.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's name, as it is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_type_checking(node: ast.AST) -> bool:
    """Whether this is an `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(path: Path, late: bool = True) -> Iterator[str]:
    """Names of modules that a file imports; without `late`, those alone that importing the file imports."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports by a relative path"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not is_type_checking(node) and (late or not is_function):
            waiting += ast.iter_child_nodes(node)


def imported_rooms(path: Path) -> set[str]:
    """The rooms, as backline.<room>, and modules at the top that a file imports."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "backline" and len(parts) > 1:
            found.add(f"backline.{parts[1]}")
        elif parts[0] in AT_THE_TOP:
            found.add(parts[0])
    return found


def may_import(importer: str, imported: str) -> bool:
    """`importer` is a room or a module at the top; `imported` as `imported_rooms` gives them."""
    name = imported.removeprefix("backline.")
    return name == importer or (name in LEVEL and LEVEL[name] < LEVEL.get(importer, len(LEVELS)))


def test_every_room_has_its_place_in_the_order():
    assert {room.name for room in ROOMS} <= LEVEL.keys()
    elsewhere = [path for path in modules(ROOT / "backline") if path.parent not in ROOMS]
    assert [name_of(path) for path in elsewhere] == ["backline"]


def test_all_import_earlier_rooms_and_no_command_but_tokenizer_and_model():
    importers = [(room.name, path) for room in ROOMS for path in modules(room)]
    importers += [(name, ROOT / f"{name}.py") for name in AT_THE_TOP]
    found = {(name_of(path), imported) for importer, path in importers
             for imported in imported_rooms(path) if not may_import(importer, imported)}
    assert not found, "a module imports what stands beside or after it"


def test_names_of_checkpoints_are_spelled_once():
    spelled = Counter(node.value for path in [*ROOT.glob("*.py"), *modules(ROOT / "backline")]
                      for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                      if isinstance(node, ast.Constant) and node.value in (BEST, LAST))
    assert spelled == {BEST: 1, LAST: 1}


def test_rooms_without_torch_do_not_name_it():
    found = {name_of(path) for room in WITHOUT_TORCH for path in modules(ROOT / "backline" / room)
             if any(name.split(".")[0] == "torch" for name in imports(path, late=False))}
    assert not found


def test_importing_rooms_without_torch_brings_no_torch():
    names = [name_of(path) for room in WITHOUT_TORCH for path in modules(ROOT / "backline" / room)]
    code = f"import tokenizer, {', '.join(names)}, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_package_is_a_docstring():
    for path in (ROOT / "backline").rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert [type(node) for node in body] == [ast.Expr], path
        assert ast.get_docstring(ast.Module(body, [])), path


def test_at_the_top_stand_the_commands_of_the_readme_and_the_model():
    commands = re.findall(r"^\| `(\w+)\.py` \|", README, re.MULTILINE)
    assert sorted([*commands, "model"]) == AT_THE_TOP


def test_tests_stand_under_their_rooms_and_are_imported_by_none():
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    assert {path.parent.name for path in tests} <= {"tests", "benchmarks", *(room.name for room in ROOMS)}
    names = Counter(path.stem for path in tests)
    assert max(names.values()) == 1, "pytest imports them by this name"
    for path in [*modules(ROOT / "tests"), *modules(ROOT / "benchmarks")]:
        assert not names.keys() & set(imports(path)), path


def test_what_contributing_names_is_there():
    """Each row of its table names files, and what stands in them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*`backline/.*$", text, re.M)
    assert rows
    for row in rows:
        paths = [ROOT / name for name in re.findall(r"`([\w/]+\.(?:py|md))`", row)]
        contents = "".join(path.read_text(encoding="utf-8") for path in paths)
        for name in re.findall(r"`(\w+)`", row):
            assert re.search(rf"^(?:def|class) {name}\b", contents, re.M), name
