"""The three packages are ours, cards ship with the wheel, and built manifests never do."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("package", ["curation", "features", "training"])
def test_package_name_resolves_to_this_checkout(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py"), f"{package} was taken by {spec.origin}"


def test_lock_pins_versions_and_names_no_address() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    for line in lines:
        name, separator, version = line.partition("==")
        assert name, line
        assert separator, line
        assert version, line
        assert not set(line) & set(" /@;"), line
    assert sorted(lines) == lines


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    (path,) = folder.glob("foleyproof-*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_packages_and_cards_and_nothing_built(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    cards = {p.relative_to(ROOT / "manifests") for p in ROOT.glob("manifests/*/card.toml")}
    assert cards
    for card in cards:
        assert f"curation/cards/{card.as_posix()}" in names
        assert f"curation/cards/{card.with_name('clips.sql').as_posix()}" in names
    allowed = (".py", ".toml", ".sql", "py.typed", "README.md")
    assert all(name.endswith(allowed) for name in names), names
    assert {name.split("/")[0] for name in names} == {"curation", "features", "training"}


@pytest.mark.slow
def test_installed_wheel_finds_its_cards(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import curation.catalog.cards as c; "
        "assert c.__file__.startswith(sys.argv[1]), c.__file__; print(len(c.load_cards()))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert int(ran.stdout) == len(list(ROOT.glob("manifests/*/card.toml")))
