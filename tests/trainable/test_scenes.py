import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from trainable.config import AnnotationConfig, DataConfig, InputError, SplitConfig
from trainable.point_files import PointAnnotation
from trainable.scenes import SPLITS, SceneIndex, read_index, split_scenes

WriteFolder = Callable[..., Path]
Break = Callable[[Path], object]


def read(root: Path, **settings: object) -> SceneIndex:
    return read_index(DataConfig(root=str(root), **settings), root)  # type: ignore[arg-type]


def lines(root: Path) -> list[str]:
    return (root / "meta_data.csv").read_text().splitlines()


def write_lines(root: Path, rows: Sequence[str]) -> None:
    (root / "meta_data.csv").write_text("\n".join(rows) + "\n")


def add_row(row: str) -> Break:
    return lambda root: write_lines(root, [*lines(root), row])


def link_outside(root: Path) -> None:
    path = root / "images" / "a_0.png"
    path.symlink_to(path.rename(root.parent / "elsewhere.png"))


def link_folder(root: Path) -> None:
    (root / "images").symlink_to((root / "images").rename(root.parent / "elsewhere"))


def empty_masks(root: Path) -> None:
    shutil.rmtree(root / "masks")
    (root / "masks").mkdir()


BAD_FOLDERS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "no folder": (shutil.rmtree, ("data.root", "data: no such folder", "meta_data.csv")),
    "no masks folder": (lambda root: shutil.rmtree(root / "masks"), ("data/masks", "no such folder")),
    "empty mask folder": (empty_masks, ("data/masks", "empty")),
    "no table": (lambda root: (root / "meta_data.csv").unlink(), ("meta_data.csv", "no such file")),
    "empty table": (lambda root: write_lines(root, []), ("meta_data.csv", "no column 'image'")),
    "no rows": (lambda root: write_lines(root, ["image,mask"]), ("meta_data.csv", "no rows")),
    "no mask column": (lambda root: write_lines(root, ["image", "a_0.png"]), ("meta_data.csv", "'mask'", "has image")),
    "table in Latin-1": (
        lambda root: (root / "meta_data.csv").write_bytes("image,mask\nä_0.png,ä_0.png\n".encode("latin-1")),
        ("meta_data.csv", "UTF-8"),
    ),
    # The header is row 1 and the six sound rows are 2 to 7.
    "absent image": (add_row("d_0.png,a_0.png"), ("row 8", "images/d_0.png", "absent")),
    "absent mask": (add_row("a_0.png,d_0.png"), ("row 8", "masks/d_0.png", "absent")),
    "short row": (add_row("a_0.png"), ("row 8", "mask must be a plain file name", "None")),
    "path upwards": (add_row("../secret.png,a_0.png"), ("row 8", "plain file name", "'../secret.png'")),
    "absolute path": (add_row("/etc/passwd,a_0.png"), ("row 8", "plain file name", "'/etc/passwd'")),
    "path of Windows": (add_row("..\\secret.png,a_0.png"), ("row 8", "plain file name")),
    "the folder itself": (add_row("..,a_0.png"), ("row 8", "image")),
    "name longer than file systems allow": (add_row(f"{'d' * 300},a_0.png"), ("row 8", "plain file name")),
    "link out of the folder": (link_outside, ("row 2", "images/a_0.png", "points outside")),
    "folder linked to another place": (link_folder, ("data/images points outside", "copy its files")),
    "duplicate row": (add_row("a_0.png,a_0.png"), ("meta_data.csv", "image a_0.png stands in 2 rows")),
    "two scenes": (lambda root: write_lines(root, lines(root)[:5]), ("2 scene(s)", "at least 3")),
}


@pytest.mark.parametrize(("spoil", "parts"), list(BAD_FOLDERS.values()), ids=BAD_FOLDERS)
def test_a_bad_folder_is_refused_with_its_place(data_folder: Path, spoil: Break, parts: tuple[str, ...]) -> None:
    read(data_folder)  # sound before
    spoil(data_folder)
    with pytest.raises(InputError) as caught:
        read(data_folder)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_name_without_scene_needs_a_column(data_folder: Path) -> None:
    (data_folder / "images" / "a_0.png").rename(data_folder / "images" / "picture.png")
    write_lines(data_folder, [line.replace("a_0.png,", "picture.png,") for line in lines(data_folder)])
    with pytest.raises(InputError, match=r"row 2: picture\.png does not start with its scene.*data\.group"):
        read(data_folder)


def with_column(root: Path, name: str, values: str) -> None:
    """Adds a column to the table: one letter per image."""
    write_lines(root, [f"{line},{value}" for line, value in zip(lines(root), [name, *values], strict=True)])


@pytest.mark.parametrize(("column", "settings"), [("scene", {}), ("site", {"group": "site"})])
def test_a_column_names_the_scenes(data_folder: Path, column: str, settings: dict[str, str]) -> None:
    with_column(data_folder, column, "xyzxyz")
    found = {pair.image.name: pair.scene for pair in read(data_folder, **settings).pairs}
    assert found == dict(zip(["a_0.png", "a_1.png", "b_0.png", "b_1.png", "c_0.png", "c_1.png"], "xyzxyz", strict=True))


def test_without_a_column_the_name_does(data_folder: Path) -> None:
    assert [pair.scene for pair in read(data_folder).pairs] == ["a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize(
    ("values", "rule"), [("xyzxy ", "row 7: site is empty"), ("", "no column 'site'; it has image, mask")]
)
def test_a_column_asked_for_must_be_there_and_full(data_folder: Path, values: str, rule: str) -> None:
    if values:
        with_column(data_folder, "site", values)
        write_lines(data_folder, [line.rstrip() for line in lines(data_folder)])
    with pytest.raises(InputError, match=rule):
        read(data_folder, group="site")


@pytest.mark.parametrize(
    ("mode", "suffix", "num_bands"), [("L", ".png", 1), ("RGB", ".jpg", 3), ("RGB", ".tif", 3), ("RGBA", ".tif", 4)]
)
def test_bands_are_counted(tmp_path: Path, write_folder: WriteFolder, mode: str, suffix: str, num_bands: int) -> None:
    assert read(write_folder(tmp_path / "data", mode, suffix)).num_bands == num_bands


def scene_sizes(seed: int) -> Counter[str]:
    """Between 3 and 200 scenes of 1 to 36 images, as the real data's 190 have."""
    rng = np.random.default_rng(seed)
    return Counter({f"scene{i}": int(rng.integers(1, 37)) for i in range(rng.integers(3, 201))})


@pytest.mark.parametrize("seed", range(20))
def test_scenes_stay_whole_and_shares_come_near(seed: int) -> None:
    sizes, config = scene_sizes(seed), SplitConfig(seed=seed)
    split_of = split_scenes(sizes, config)
    assert split_of.keys() == sizes.keys()  # a scene has one split, so none is in two
    filled = Counter({split: 0 for split in SPLITS})
    for scene, split in split_of.items():
        filled[split] += sizes[scene]
    assert min(filled.values()) > 0
    # A split that has its share gets no further scene, so it exceeds it by less than one. What the two others have too
    # much, the third lacks: less than two scenes.
    for split in SPLITS:
        assert abs(filled[split] - getattr(config, split) * sizes.total()) <= 2 * max(sizes.values())


def test_equal_scenes_are_split_exactly() -> None:
    # Ten scenes of 7 images at 0.6 / 0.2 / 0.2.
    split_of = split_scenes(Counter({f"scene{i}": 7 for i in range(10)}), SplitConfig())
    assert Counter(split_of.values()) == {"train": 6, "val": 2, "test": 2}


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1000, 1, 1), (1, 1, 1000), (500, 400, 1, 1)])
def test_no_split_is_empty_however_uneven_the_scenes(sizes: tuple[int, ...]) -> None:
    named = Counter({f"scene{i}": size for i, size in enumerate(sizes)})
    for seed in range(20):
        assert set(split_scenes(named, SplitConfig(seed=seed)).values()) == set(SPLITS)


def test_the_split_depends_on_its_seed_and_not_on_the_order() -> None:
    sizes = scene_sizes(0)
    shuffled = list(sizes.items())
    random.Random(1).shuffle(shuffled)
    assert split_scenes(Counter(dict(shuffled)), SplitConfig()) == split_scenes(sizes, SplitConfig())
    assert split_scenes(sizes, SplitConfig(seed=1)) != split_scenes(sizes, SplitConfig())


def test_the_index_knows_its_splits(data_folder: Path) -> None:
    # Three scenes, three splits: one each.
    index = read(data_folder)
    assert sorted(index.scenes(split) for split in SPLITS) == [["a"], ["b"], ["c"]]
    assert {pair.scene for pair in index.pairs if pair.split == "val"} == set(index.scenes("val"))


def reverse_rows(root: Path) -> None:
    write_lines(root, [lines(root)[0], *reversed(lines(root)[1:])])


def change_byte(root: Path) -> None:
    path = root / "masks" / "c_1.png"
    path.write_bytes(path.read_bytes() + b"\0")


def rename_scene(root: Path) -> None:
    with_column(root, "scene", "aabbcd")


@pytest.mark.parametrize(("change", "same"), [(reverse_rows, True), (change_byte, False), (rename_scene, False)])
def test_the_fingerprint_covers_what_a_run_sees(data_folder: Path, change: Break, same: bool) -> None:
    before = read(data_folder).fingerprint
    change(data_folder)
    assert (read(data_folder).fingerprint == before) == same


def test_the_fingerprint_does_not_depend_on_the_place(tmp_path: Path, data_folder: Path) -> None:
    shutil.copytree(data_folder, tmp_path / "copy")
    assert read(tmp_path / "copy").fingerprint == read(data_folder).fingerprint


def test_the_fingerprint_covers_the_split(data_folder: Path) -> None:
    # With three scenes two seeds may agree by chance; of ten, some do not.
    fingerprints = {read(data_folder, split=SplitConfig(seed=seed)).fingerprint for seed in range(10)}
    assert 1 < len(fingerprints) <= 6  # the orders of three


def test_max_images_takes_whole_scenes(write_folder: WriteFolder, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    with_column(root, "scene", "abcdee")  # sizes 1, 1, 1, 1 and 2
    for seed in range(5):
        index = read(root, max_images=4, split=SplitConfig(seed=seed))
        scenes = Counter(pair.scene for pair in index.pairs)
        # Either the four single ones, or e first and two single ones; never half of e.
        assert scenes["e"] in (0, 2)
        assert scenes.total() == 4
        assert index.num_available == 6


def test_too_few_images_for_three_scenes_are_refused(data_folder: Path) -> None:
    with pytest.raises(InputError, match=r"data.max_images: 5 images hold fewer than 3 whole scenes"):
        read(data_folder, max_images=5)  # two scenes of two images


@pytest.fixture
def point_folder(data_folder: Path) -> Path:
    """Images alone, each with one point of either class."""
    shutil.rmtree(data_folder / "masks")
    (data_folder / "meta_data.csv").unlink()
    lines = [
        f"{path.name},{x},2,{name}" for path in images(data_folder) for x, name in ((1, "forest"), (6, "background"))
    ]
    (data_folder / "points.csv").write_text("\n".join(["image,x,y,class", *lines]) + "\n")
    return data_folder


def images(root: Path) -> list[Path]:
    return sorted((root / "images").iterdir())


def read_points(root: Path, **settings: object) -> SceneIndex:
    return read(root, annotations=AnnotationConfig(path="points.csv"), **settings)


def test_points_need_neither_masks_nor_a_table(point_folder: Path) -> None:
    for name in (".DS_Store", "a_0.png.aux.xml", "a_0.PGW"):  # the desktop's, and those of GDAL
        (point_folder / "images" / name).touch()
    index = read_points(point_folder)
    assert index.sparse
    assert index.warnings == ()
    assert [pair.image.name for pair in index.pairs] == [f"{scene}_{number}.png" for scene in "abc" for number in "01"]
    assert [pair.scene for pair in index.pairs] == ["a", "a", "b", "b", "c", "c"]
    # Pixels 1 and 6 of row 2, at their centres.
    assert index.pairs[0].points == (PointAnnotation(2.5, 1.5, 1), PointAnnotation(2.5, 6.5, 0))
    assert {pair.mask for pair in index.pairs} == {None}


def test_a_table_may_name_the_images_and_scenes_of_points(point_folder: Path) -> None:
    (point_folder / "meta_data.csv").write_text("image,site\na_1.png,x\nb_0.png,y\nb_1.png,z\n")
    index = read_points(point_folder, group="site")  # points of the other images are there, and not used
    assert [(pair.image.name, pair.scene) for pair in index.pairs] == [
        ("a_1.png", "x"),
        ("b_0.png", "y"),
        ("b_1.png", "z"),
    ]


@pytest.mark.parametrize(
    ("spoil", "settings", "parts"),
    [
        (lambda root: None, {"group": "site"}, ("meta_data.csv: no such file", "and site")),
        (lambda root: (root / "images" / "picture.png").touch(), {}, ("data/images: picture.png", "data.group")),
        (lambda root: (root / "images" / "a_0.bmp").touch(), {}, ("images/a_0.bmp", "replace or remove it")),
    ],
)
def test_a_folder_without_table_is_refused_with_its_place(
    point_folder: Path, spoil: Break, settings: dict[str, str], parts: tuple[str, ...]
) -> None:
    spoil(point_folder)
    with pytest.raises(InputError) as caught:
        read_points(point_folder, **settings)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_folder_of_hidden_files_is_empty(point_folder: Path) -> None:
    for path in images(point_folder):
        path.rename(path.with_name("." + path.name))
    with pytest.raises(InputError, match=r"data/images: holds no image"):
        read_points(point_folder)


@pytest.mark.parametrize(("old", "new"), [("1,2,forest", "2,2,forest"), ("1,2,forest", "1,2,background")])
def test_the_fingerprint_covers_the_points(point_folder: Path, old: str, new: str) -> None:
    before, points = read_points(point_folder).fingerprint, (point_folder / "points.csv").read_text()
    (point_folder / "points.csv").write_text(points.replace(f"a_0.png,{old}", f"a_0.png,{new}"))
    assert read_points(point_folder).fingerprint != before
    (point_folder / "points.csv").write_text(points.replace("image,x,y,class", "image, x, y, class"))
    assert read_points(point_folder).fingerprint == before  # another file, the same points
