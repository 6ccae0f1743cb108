import logging
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainable.checkpoint import Arrays, load_latest, pack_files, pack_state, save, unpack_files, unpack_state

Damage = Callable[[float, Path], None]
Run = tuple[nn.Sequential, torch.optim.Adam]


def make_run(seed: int) -> Run:
    """A network with all kinds of state: weights, running statistics, counters, moments; laid out as in training."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    model = model.to(memory_format=torch.channels_last)
    return model, torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3, fused=True)


def train(run: Run, steps: int) -> None:
    model, optimizer = run
    images = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def weights(run: Run) -> dict[str, Tensor]:
    return run[0].state_dict()


def save_epochs(folder: Path, *epochs: int) -> Path:
    """Leaves all checkpoints there, as a process killed before it removes the older ones; returns the newest."""
    contents = {}
    for epoch in epochs:
        newest = save(folder, epoch, {"epoch": np.array(epoch)})
        contents[newest] = newest.read_bytes()
    for path, content in contents.items():
        path.write_bytes(content)
    return newest


def test_a_run_goes_on_bit_by_bit(tmp_path: Path) -> None:
    run = make_run(seed=0)
    train(run, steps=3)
    save(tmp_path, 3, pack_state(*run))
    found = load_latest(tmp_path)
    assert found is not None
    again = make_run(seed=1)
    unpack_state(found[1], *again)
    torch.testing.assert_close(weights(again), weights(run), rtol=0, atol=0)
    torch.testing.assert_close(again[1].state_dict(), run[1].state_dict(), rtol=0, atol=0)
    train(run, steps=2)
    train(again, steps=2)  # where a lost moment or step count would show
    torch.testing.assert_close(weights(again), weights(run), rtol=0, atol=0)


def test_without_the_optimizer_it_would_not() -> None:
    run, again = make_run(seed=0), make_run(seed=1)
    train(run, steps=3)
    unpack_state({name: array.copy() for name, array in pack_state(run[0], None).items()}, *again)
    train(run, steps=1)
    train(again, steps=1)
    assert not torch.equal(weights(again)["0.weight"], weights(run)["0.weight"])


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, np.inf, np.nan])
def test_every_float_survives(tmp_path: Path, value: float) -> None:
    arrays: Arrays = {"model/x": np.array([value], dtype=np.float32), "model/n": np.array(7)}
    save(tmp_path, 12, arrays)
    found = load_latest(tmp_path)
    assert found is not None
    assert found[0] == 12
    assert {name: array.tobytes() for name, array in found[1].items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }


def test_small_files_travel_with_it(tmp_path: Path) -> None:
    files = {"metrics.jsonl": b'{"epoch": 1}\n', "empty": b"", "counts.npz": bytes(range(256))}
    run = make_run(seed=0)
    save(tmp_path, 1, {**pack_state(run[0], None), **pack_files(files)})
    found = load_latest(tmp_path)
    assert found is not None
    assert unpack_files(found[1]) == files
    unpack_state(found[1], *make_run(seed=1))  # they are no part of the state
    assert unpack_files({}) == {}


def test_it_is_a_plain_archive_without_pickle(tmp_path: Path) -> None:
    run = make_run(seed=0)
    train(run, steps=1)
    with np.load(save(tmp_path, 1, pack_state(*run)), allow_pickle=False) as archive:
        assert {"model/0.weight", "model/1.running_mean", "optimizer/0/exp_avg", "optimizer/0/step"} < set(archive)


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 10):
        newest = save(tmp_path, epoch, {"epoch": np.array(epoch)})
    assert list(tmp_path.iterdir()) == [newest]


def test_where_the_disk_is_full_the_older_one_stays(tmp_path: Path) -> None:
    older = save(tmp_path, 1, {"epoch": np.array(1)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # a larger file than that fails as on a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            save(tmp_path, 2, {"weights": np.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [older]
    found = load_latest(tmp_path)
    assert found is not None
    assert found[0] == 1


def test_of_several_the_newest_serves(tmp_path: Path) -> None:
    save_epochs(tmp_path, 2, 9, 10)  # 10 comes before 9 in the alphabet, unless padded
    found = load_latest(tmp_path)
    assert found is not None
    assert found[0] == 10


def flip(position: float, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def cut(kept: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * (len(content) - 1))])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("older", [None, 1])
def test_a_damaged_one_is_set_aside_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Damage, where: float, older: int | None
) -> None:
    path = save_epochs(tmp_path, *([older] if older else []), 2)
    damage(where, path)
    with caplog.at_level(logging.WARNING):
        found = load_latest(tmp_path)
    assert (found and found[0]) == older
    assert not path.exists()
    assert path.with_name(f"{path.name}.damaged").exists()
    assert f"{path} is damaged" in caplog.text


def test_a_name_that_is_not_ours_is_not_trusted(tmp_path: Path) -> None:
    save(tmp_path, 1, {"epoch": np.array(1)}).rename(tmp_path / "state-1.npz")
    assert load_latest(tmp_path) is None


def test_the_scratch_of_a_killed_writer_does_not_disturb(tmp_path: Path) -> None:
    (tmp_path / ".writing-1").write_bytes(b"half of an archive")
    assert load_latest(tmp_path) is None
    save(tmp_path, 1, {"epoch": np.array(1)})
    found = load_latest(tmp_path)
    assert found is not None
    assert found[0] == 1


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "checkpoint") is None
