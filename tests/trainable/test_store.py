from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainable.atomic import new_folder
from trainable.config import DataConfig, InputError
from trainable.scenes import SPLITS, read_index
from trainable.store import Store, open_store, pack_store, store_path

WriteFolder = Callable[..., Path]


def pack(root: Path, image_size: int = 8) -> Store:
    """Packs a data folder beside itself."""
    index = read_index(DataConfig(root=str(root)), root)
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
    assert np.argwhere(store.masks[0]).tolist() == [[0, 2]]
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


def test_masks_of_zeros_and_ones_are_refused(tmp_path: Path, write_folder: WriteFolder) -> None:
    root = write_folder(tmp_path / "data", mask_value=1)
    with pytest.raises(InputError, match=r"data/masks: no pixel of any mask reaches 128; forest must be 255"):
        pack(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # neither a half store nor the folders made for it


@pytest.mark.parametrize(("suffix", "kept"), [(".jpg", 0.5), (".jpg", 0.95), (".png", 0.5)])
def test_a_truncated_image_is_refused_and_nothing_left(
    tmp_path: Path, write_folder: WriteFolder, suffix: str, kept: float
) -> None:
    root = write_folder(tmp_path / "data", suffix=suffix)
    path = root / "images" / f"c_0{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)  # its pixels are nearly all of the file, so the cut is beyond the header
    Image.new("L", (64, 64), 255).save(root / "masks" / "c_0.png")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=rf"images/c_0\{suffix}: cannot be decoded"):
        pack(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_packing_twice_packs_once(data_folder: Path, tmp_path: Path) -> None:
    index, seen = read_index(DataConfig(root=str(data_folder)), data_folder), list[int]()
    for _ in range(2):
        pack_store(index, 8, tmp_path / "store", seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]  # progress, image by image, of the first time


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
