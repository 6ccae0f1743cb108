"""The import rules name every module of `trainable`: one that is forgotten would not be held to them."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {f"trainable.{path.stem}" for path in (ROOT / "trainable").glob("*.py")} - {"trainable.__init__"}
RULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

SHARED = {"trainable.config", "trainable.atomic", "trainable.holder", "trainable.sealed", "trainable.storage_url"}


@pytest.mark.parametrize(
    ("begins", "kind", "but"),
    [
        ("study is pure", "forbidden_modules", SHARED),
        ("analysis runs on a laptop", "forbidden_modules", SHARED),
        # geo.py asks for rasterio and pyproj by name when it is first used; tune_trainable.py knows Ray.
        ("The core of trainable", "source_modules", {"trainable.geo", "trainable.tune_trainable"}),
    ],
)
def test_every_module_is_named(begins: str, kind: str, but: set[str]) -> None:
    (rule,) = (rule for rule in RULES if rule["name"].startswith(begins))
    assert {name for name in rule[kind] if name.startswith("trainable.")} == MODULES - but


@pytest.mark.parametrize(
    "package",
    [
        "study",
        "trainable",
        "cluster",
        "cluster/manifests",
        "analysis",
        "analysis/reading",
        "analysis/report",
        "analysis/export",
    ],
)
def test_every_module_is_on_the_map(package: str) -> None:
    design = (ROOT / "docs" / "DESIGN.md").read_text()
    names = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
    assert {name for name in names if f"{name} " not in design and f"{name}," not in design} == set()
