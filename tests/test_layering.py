"""Imports go one way: training → features → curation, and down the rooms inside each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Which rooms there are, from the roof down; the ground floor is every module directly under the package.
ROOMS = {
    "curation": ["corpus", "decision", "matching", "media", "catalog", "ground"],
    "features": ["exchange", "extraction", "store", "weights", "encoders", "inputs", "ground"],
    "training": ["run", "state", "data", "ground", "model"],
}
# of the house: they lead to every room
DOORS = {"cli", "commands", "__init__", "launch", "ema", "export", "curve"}
ABOVE = {"shards": "store"}  # modules of a name that people import, and the room they are of
FOREIGN = {
    "curation": {"numpy", "pyarrow", "duckdb", "pandas", "av", "imagehash", "numba", "scipy", "PIL",
                 "yt_dlp", "click", "rich", "jinja2", "ray"},
    "features": {"torch", "torchaudio", "open_clip", "safetensors", "numpy", "pyarrow", "click", "rich"},
    "training": {"torch", "safetensors", "numpy", "click", "rich", "matplotlib", "tensorboard"},
}  # fmt: skip
OWN = {"curation": {"curation"}, "features": {"curation", "features"},
       "training": {"curation", "features", "training"}}  # fmt: skip
# Of curation, the other packages see its ground floor and, of media, what finds and decodes files and
# what a scan says of them.
GROUND = {"clip", "manifest", "verdict", "tasks", "files", "errors", "progress", "tables", "console",
          "options", "transport", "partfile", "ray_actors", "ray_engine", "closing"}  # fmt: skip
MEDIA = {"answer", "audio_hash", "carried", "container", "decode", "decoder", "facts", "folder",
         "frames", "headers", "lists", "locate", "one_pass", "prints", "ridden", "serving",
         "together"}  # fmt: skip


def _modules() -> list[Path]:
    return sorted(path for package in FOREIGN for path in (ROOT / package).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import, expected absolute ones"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _room(module: str) -> int:
    """The place of a module's room among those of its package."""
    package, name = [*module.split("."), ""][:2]
    rooms = ROOMS[package]
    name = ABOVE.get(name, name) if package == "features" else name
    return rooms.index(name if name in rooms else "ground")


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_what_its_package_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name in _imports(path):
        top = name.split(".")[0]
        if top in FOREIGN:
            assert top in OWN[package], f"{path} imports {name}: imports go down the chain only"
        elif top not in sys.stdlib_module_names:
            assert top in FOREIGN[package], f"{path} imports {name}, {package} may not"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_downwards_only(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in _imports(path):
        if name.startswith("curation.") and parts[0] != "curation":
            room, module = [*name.split("."), ""][1:3]
            assert room in GROUND | {"media", "__version__"}, f"{path}: {name}"
            assert room != "media" or module in MEDIA, f"{path}: {name}"
        if name.startswith(f"{parts[0]}.") and parts[0] in ROOMS and parts[1] not in DOORS:
            mine = _room(".".join(parts))
            assert _room(name) >= mine, f"{path} imports {name}: rooms import downwards"


@pytest.mark.parametrize(
    "module",
    ["curation.cli", "features.cli", *(f"training.{door}" for door in ("launch", "ema", "export"))],
)
def test_help_imports_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'duckdb', 'av', 'pandas', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
