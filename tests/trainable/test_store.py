import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainable.atomic import new_folder
from trainable.config import IGNORE_INDEX, AnnotationConfig, DataConfig, InputError
from trainable.data import describe_data, load_index, load_store
from trainable.scenes import SPLITS, read_index
from trainable.store import Store, band_statistics, band_sums, open_store, pack_store, store_path

WriteFolder = Callable[..., Path]


def pack(root: Path, image_size: int = 8, annotations: AnnotationConfig | None = None) -> Store:
    """Packs a data folder beside itself."""
    index = read_index(DataConfig(root=str(root), annotations=annotations), root)
    path = store_path(root.parent / "cache" / "stores", index, image_size)
    pack_store(index, image_size, path, lambda done: None)
    return open_store(path)


def test_masks_are_split_at_128(data_folder: Path) -> None:
    # The values of a JPEG mask, 0 to 9 and 246 to 255, and both sides of the threshold; as PNG, which keeps them.
    values = np.array([*range(10), *range(246, 256), 127, 128], dtype=np.uint8)
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask.flat[: values.size] = values
    Image.fromarray(mask).save(data_folder / "masks" / "a_0.png")
    stored = pack(data_folder).masks[0].ravel()
    assert stored[: values.size].tolist() == [0] * 10 + [1] * 10 + [0, 1]
    assert not stored[values.size :].any()


@pytest.mark.parametrize(("mode", "black", "white"), [("1", 0, 1), ("RGB", (0, 0, 0), (255, 255, 255))])
def test_masks_may_be_bits_or_grey_in_three_bands(data_folder: Path, mode: str, black: int, white: int) -> None:
    mask = Image.new(mode, (8, 8), black)
    mask.paste(white, (0, 0, 4, 8))
    mask.save(data_folder / "masks" / "a_0.png")
    assert pack(data_folder).masks[0].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 8


def test_images_keep_their_values_at_their_own_size(data_folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data_folder / "images" / "a_1.png")
    store = pack(data_folder)
    np.testing.assert_array_equal(store.images[1], pixels)
    assert store.names[1] == "a_1.png"


def test_resizing_keeps_masks_sharp_and_images_smooth(data_folder: Path) -> None:
    # 8 -> 4 px: a mask takes the pixel nearest to each new centre, which Pillow rounds to rows and columns 1, 3, 5, 7;
    # a smoothed mask would lose the single pixel. The image, black and white halves, is grey on both sides of its seam.
    mask, halves = np.zeros((8, 8), dtype=np.uint8), np.zeros((8, 8, 3), dtype=np.uint8)
    mask[1, 5] = halves[:, 4:] = 255
    Image.fromarray(mask).save(data_folder / "masks" / "a_0.png")
    Image.fromarray(halves).save(data_folder / "images" / "a_0.png")
    store = pack(data_folder, image_size=4)
    assert store.images.shape == (6, 4, 4, 3)
    assert store.masks[0].tolist() == [[0, 0, 1, 0], [0] * 4, [0] * 4, [0] * 4]
    assert 0 < store.images[0, 0, 1, 0] < 128 < store.images[0, 0, 2, 0] < 255


@pytest.mark.parametrize(
    ("mode", "suffix", "num_bands"), [("L", ".tif", 1), ("L", ".png", 1), ("RGBA", ".tif", 4), ("RGB", ".jpg", 3)]
)
def test_bands(tmp_path: Path, write_folder: WriteFolder, mode: str, suffix: str, num_bands: int) -> None:
    assert pack(write_folder(tmp_path / "data", mode, suffix)).images.shape == (6, 8, 8, num_bands)


def test_a_fourth_band_keeps_its_values(tmp_path: Path, write_folder: WriteFolder) -> None:
    # Near infra-red, not transparency: colours must not be multiplied by it.
    root = write_folder(tmp_path / "data", "RGBA", ".tif")
    Image.new("RGBA", (8, 8), (200, 100, 50, 7)).save(root / "images" / "a_0.tif")
    assert pack(root).images[0, 0, 0].tolist() == [200, 100, 50, 7]


def test_a_store_is_mapped_and_holds_bytes(store: Store) -> None:
    for array in (store.images, store.masks):
        assert isinstance(array, np.memmap)
        assert array.dtype == np.uint8
        assert not array.flags.writeable
    assert set(np.unique(store.masks)) == {0, 1}


def test_splits_cover_every_image_once(store: Store) -> None:
    members = np.concatenate([store.splits[split] for split in SPLITS])
    assert sorted(members.tolist()) == list(range(len(store.names))) == list(range(16))
    scenes = [{store.names[index].partition("_")[0] for index in store.splits[split]} for split in SPLITS]
    assert [len(scene) for scene in scenes] == [2, 1, 1]
    assert len(set.union(*scenes)) == 4


def test_statistics_are_those_of_the_training_split(tmp_path: Path, write_folder: WriteFolder) -> None:
    root = write_folder(tmp_path / "data", "RGBA", ".tif")
    for number, path in enumerate(sorted((root / "images").iterdir())):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 4), dtype=np.uint8)
        pixels[..., 3] = 51  # a fifth of 255, everywhere
        Image.fromarray(pixels).save(path)
    store = pack(root)
    training = store.images[store.splits["train"]].reshape(-1, 4).astype(np.float64) / 255
    np.testing.assert_allclose(store.band_mean, training.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(store.band_std, training.std(axis=0), rtol=1e-13, atol=1e-15)
    assert (store.band_mean[3], store.band_std[3]) == (0.2, 0.0)


def test_sums_of_large_bright_images_do_not_overflow() -> None:
    # 1024 x 1024 of 255: their squares add up to 6.8e10, beyond 32 bits; 2,000 such images, squared, to beyond 64.
    sums = band_sums(np.full((1024, 1024, 2), 255, dtype=np.uint8))
    assert sums.tolist() == [[255 * 1024**2] * 2, [255**2 * 1024**2] * 2]
    assert band_statistics([sums] * 2000, 1024**2) == {"band_mean": [1.0, 1.0], "band_std": [0.0, 0.0]}


def test_statistics_worked_by_hand() -> None:
    # 0, 0, 0 and 255: mean 1/4, variance 1/4 - 1/16.
    sums = band_sums(np.array([[[0], [0]], [[0], [255]]], dtype=np.uint8))
    assert band_statistics([sums], 4) == {"band_mean": [0.25], "band_std": [pytest.approx(3**0.5 / 4, rel=1e-15)]}


def test_points_become_sparse_masks(data_folder: Path) -> None:
    lines = [
        f"{path.name},{x},2,{name}"
        for path in sorted((data_folder / "images").iterdir())
        for x, name in ((1, "forest"), (6, "background"))
    ]
    (data_folder / "points.csv").write_text("\n".join(["image,x,y,class", *lines]) + "\n")
    store = pack(data_folder, image_size=32, annotations=AnnotationConfig(path="points.csv"))
    assert store.sparse
    expected = np.full((32, 32), IGNORE_INDEX)
    # The centres (1.5, 2.5) and (6.5, 2.5) of an image of 8 px lie in the pixels (6, 10) and (26, 10) of one of 32.
    expected[10, 6], expected[10, 26] = 1, 0
    for mask in store.masks:
        np.testing.assert_array_equal(mask, expected)


PACKER = """
import os, signal, sys, time
from pathlib import Path
from trainable.config import DataConfig
from trainable.scenes import read_index
from trainable.store import pack_store

root, target, go = map(Path, sys.argv[1:])
def progress(done):
    print(done, flush=True)
    while not go.exists():
        time.sleep(0.01)
index = read_index(DataConfig(root=str(root)), root)
print("ready", flush=True)
pack_store(index, 8, target, progress)
print("packed" if (target / "store.json").is_file() else "missing", flush=True)
"""


def start_packer(root: Path, target: Path, go: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PACKER, str(root), str(target), str(go)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], *lines: str) -> None:
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in lines] == list(lines)


def test_of_two_processes_one_packs_and_both_have_the_store(data_folder: Path, tmp_path: Path) -> None:
    target, go = tmp_path / "cache" / "store", tmp_path / "go"
    first = start_packer(data_folder, target, go)
    wait_for(first, "ready", "1")
    second = start_packer(data_folder, target, go)
    wait_for(second, "ready")
    go.touch()
    assert first.communicate(timeout=30)[0].split() == ["2", "3", "4", "5", "6", "packed"]
    assert second.communicate(timeout=30)[0].split() == ["packed"]  # and has packed nothing itself
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["store"]


def test_a_packer_killed_half_way_leaves_nothing_to_the_next(data_folder: Path, tmp_path: Path) -> None:
    target, go = tmp_path / "cache" / "store", tmp_path / "go"
    killed = start_packer(data_folder, target, go)
    wait_for(killed, "ready", "1")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=30)
    assert (killed.returncode, target.exists()) == (-signal.SIGKILL, False)
    pack_store(read_index(DataConfig(root=str(data_folder)), data_folder), 8, target, lambda done: None)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["store"]  # neither scratch nor lock
    assert open_store(target).masks.all()


def test_a_disk_without_room_is_named_before_anything_is_decoded(data_folder: Path, tmp_path: Path) -> None:
    index = read_index(DataConfig(root=str(data_folder)), data_folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))  # no file may grow beyond: as on a full disk
    try:
        with pytest.raises(
            InputError, match=r"^storage: .*cache has no room for 0\.0 GB of pixels .*set another storage"
        ):
            pack_store(index, 256, tmp_path / "cache" / "store", lambda done: pytest.fail("decoded"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "cache").exists()


def test_packing_twice_packs_once(data_folder: Path, tmp_path: Path) -> None:
    index, seen = read_index(DataConfig(root=str(data_folder)), data_folder), list[int]()
    for _ in range(2):
        pack_store(index, 8, tmp_path / "store", seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]  # progress, image by image, of the first time


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "store.json"])
def test_a_damaged_store_is_set_aside_and_packed_anew(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    index, seen = load_index(DataConfig(root=str(data_folder)), tmp_path), list[int]()
    path = load_store(index, 8, tmp_path / "cache", seen.append)
    sound = {each.name: each.read_bytes() for each in path.iterdir()}
    # A worker only maps it. What is cut short it cannot, and says so in one line.
    (path / name).write_bytes(sound[name][: len(sound[name]) // 2])
    with pytest.raises(InputError, match=r"^[^\n]+: damaged \([^\n]+\); run again, which packs it anew$"):
        open_store(path)
    (path / name).write_bytes(sound[name][:-9] + bytes([sound[name][-9] ^ 1]) + sound[name][-8:])
    if name.endswith(".npy"):
        open_store(path)  # a flipped bit it does not see; the driver does, before
    assert load_store(index, 8, tmp_path / "cache", seen.append) == path
    assert {each.name: each.read_bytes() for each in path.iterdir()} == sound
    assert seen == [1, 2, 3, 4, 5, 6] * 2
    assert caplog.messages == [f"{path} is damaged ({name} has another checksum); set aside as {path.name}.damaged"]
    load_store(index, 8, tmp_path / "cache", lambda done: pytest.fail("packed a third time"))


def test_a_store_that_is_gone_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"store: damaged \(.*No such file.*\); run again"):
        open_store(tmp_path / "store")


def test_images_of_many_tasks_keep_their_places(tmp_path: Path) -> None:
    # 300 images of one grey each: 38 tasks, of which some end before others that began earlier.
    made = tmp_path / "data"
    for folder in ("images", "masks"):
        (made / folder).mkdir(parents=True)
    rows = ["image,mask"]
    for number in range(300):
        name = f"{number % 3}_{number:03}.png"
        Image.new("L", (4, 4), number % 256).save(made / "images" / name)
        Image.new("L", (4, 4), 255 * (number % 2)).save(made / "masks" / name)
        rows.append(f"{name},{name}")
    (made / "meta_data.csv").write_text("\n".join(rows) + "\n")
    store = pack(made, image_size=4)
    numbers = np.array([int(name[2:5]) for name in store.names])
    np.testing.assert_array_equal(store.images, np.broadcast_to((numbers % 256)[:, None, None, None], (300, 4, 4, 1)))
    np.testing.assert_array_equal(store.masks, np.broadcast_to((numbers % 2)[:, None, None], (300, 4, 4)))


def test_the_path_tells_data_and_sizes_apart(data_folder: Path, tmp_path: Path) -> None:
    index = read_index(DataConfig(root=str(data_folder)), data_folder)
    Image.new("L", (8, 8), 200).save(data_folder / "masks" / "a_0.png")
    other = read_index(DataConfig(root=str(data_folder)), data_folder)
    paths = {store_path(tmp_path, which, size) for which in (index, other) for size in (32, 64)}
    assert len(paths) == 4


def test_the_first_of_two_that_make_a_folder_wins(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store"
    with new_folder(path) as mine:
        (mine / "file").write_text("mine")
        with new_folder(path) as theirs:
            (theirs / "file").write_text("theirs")
    assert (path / "file").read_text() == "theirs"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_older_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(OSError, match="disk"), new_folder(tmp_path / "old" / "new" / "store"):
        raise OSError("the disk is full")
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


TREES = Path("../shared/data/urban_trees")
FOREST = Path("../shared/data/forest")


@pytest.mark.skipif(not TREES.is_dir(), reason="../shared/data/urban_trees is absent")
def test_real_trees_pack_with_four_bands_and_their_points(tmp_path: Path) -> None:
    annotations = AnnotationConfig(format="csv", path="csv", default_class="forest", negatives="sampled")
    config = DataConfig(root=str(TREES), annotations=annotations)
    index = load_index(config, tmp_path)
    store = open_store(load_store(index, 256, tmp_path, lambda done: None))
    assert (store.images.shape, store.sparse) == ((60, 256, 256, 4), True)
    # At its own size every image is stored as it is in the file, whose pixels stand behind its tags, row by row.
    path = TREES / "images" / store.names[7]
    assert store.images[7].tobytes() in path.read_bytes()
    for position, name in enumerate(store.names):
        trees = np.loadtxt(TREES / "csv" / f"{Path(name).stem}.csv", delimiter=",", skiprows=1, ndmin=2, dtype=int)
        assert {(y, x) for x, y in trees} == {
            tuple(place) for place in np.argwhere(store.masks[position] == 1).tolist()
        }
    described = describe_data(config, index, tmp_path / store_path(tmp_path, index, 256).name)
    assert described["splits"]["val"]["num_points"]["background"] > 0
    assert json.loads(json.dumps(described, allow_nan=False)) == described


@pytest.mark.skipif(not FOREST.is_dir(), reason="../shared/data/forest is absent")
def test_real_forest_packs_without_a_warning(tmp_path: Path) -> None:
    index = load_index(DataConfig(root=str(FOREST), max_images=100), tmp_path)
    store = open_store(load_store(index, 256, tmp_path, lambda done: None))
    assert store.warnings == ()
    for position, pair in list(enumerate(index.pairs))[::10]:
        with Image.open(pair.image) as image, Image.open(pair.mask) as mask:
            np.testing.assert_array_equal(store.images[position], np.asarray(image))
            np.testing.assert_array_equal(store.masks[position], np.asarray(mask.convert("L")) >= 128)
