"""What tests of several rooms share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bench.wandb_server import WandbServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator["WandbServer"]:
    """A W&B server of ours, which the real client logs to and reads from; a request that it does not know fails."""
    from bench.wandb_server import wandb_server  # W&B takes a third of a second, which most tests can do without

    with wandb_server() as started:
        for name, value in {**started.environment, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        yield started
        assert started.unknown == []
