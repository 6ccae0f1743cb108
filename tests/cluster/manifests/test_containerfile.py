import re
import shlex
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONTAINERFILE = (files("cluster.manifests") / "Containerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, comments gone and continued lines joined."""
    lines = [line for line in CONTAINERFILE.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines()]


def arguments(instructions: list[tuple[str, str]], name: str) -> list[str]:
    return [text for instruction, text in instructions if instruction == name]


def test_every_line_is_an_instruction(instructions):
    assert {name for name, _ in instructions} == {"ARG", "FROM", "RUN", "COPY", "USER", "ENV", "WORKDIR", "CMD"}


def test_it_starts_from_a_slim_python_of_a_version_that_the_project_takes(instructions):
    assert arguments(instructions, "FROM") == ["docker.io/library/python:${PYTHON}-slim-bookworm"]
    [python] = [text.partition("=")[2] for text in arguments(instructions, "ARG") if text.startswith("PYTHON=")]
    assert python == PROJECT["project"]["requires-python"].removeprefix(">=")


def test_it_copies_the_program_by_name_and_nothing_else(instructions):
    sources = [source for text in arguments(instructions, "COPY") for source in text.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    packages = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    metadata = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    modules = {f"{name}.py" for name in PROJECT["tool"]["setuptools"]["py-modules"]}
    assert set(sources) == packages | modules | metadata
    ignored = (files("cluster.manifests") / "Containerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(sources)


def test_it_ends_as_a_user_without_rights(instructions):
    assert arguments(instructions, "USER") == ["${UID}"]
    assert "UID=1000" in arguments(instructions, "ARG")
    assert instructions.index(("USER", "${UID}")) > max(i for i, (name, _) in enumerate(instructions) if name == "RUN")


def test_versions_are_the_tested_ones_and_no_secret_is_asked_for(instructions):
    [dependencies, program] = [text for text in arguments(instructions, "RUN") if "pip install" in text]
    assert "PIP_CONSTRAINT=/build/constraints.txt" in dependencies
    assert "--no-deps" in program
    assert not re.search(r"token|secret|password|api_key|netrc|COPY \. ", CONTAINERFILE, re.IGNORECASE)


def test_the_dependencies_it_installs_are_those_of_the_project(instructions):
    [command] = [text for text in arguments(instructions, "RUN") if "tomllib" in text]
    listing = command.partition("> /build/requirements.txt")[0].replace("/build/", f"{ROOT}/")
    listing = listing.replace("python", shlex.quote(sys.executable), 1)
    found = subprocess.run(["sh", "-c", listing], capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(PROJECT["project"]["dependencies"]) <= set(found)
