"""Every knob of a training run, in one place.

Two frozen dataclasses: `DataConfig` says which images and how they are split, `TrainConfig` everything else. Both are
built from plain mappings by `from_mapping`, which refuses unknown names, wrong types and impossible values with the
field, the rule and the remedy. Standard library only, so that `study` and `analysis` can import it without torch.
"""

import difflib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

IGNORE_INDEX = 255
"""Label of a pixel that carries no annotation; never a class."""

CLASS_NAMES = ("background", "forest")
"""Class index -> name, for masks thresholded at 128."""

METRIC_NAMES = ("miou", "dice", "accuracy", "precision", "recall", "boundary_f1")
"""`val/<name>` pools all pixels, `val/image_<name>` is the mean over images."""

FLOOR_NAMES = ("all_forest", "coin_flip", "image_majority")
"""What the report compares with that looks at no pixel (`metrics.floors`)."""

DENSE = "dense"
"""`points_per_image: dense`: every pixel of the training masks is labelled. The upper anchor of a point study."""

POINT_STRATEGIES = ("uniform", "per_class", "grid", "boundary_avoiding", "boundary", "clustered", "positive_only")
ENCODERS = (
    "resnet18", "resnet34", "resnet50", "resnet101",
    "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny",
)  # fmt: skip
ANNOTATION_FORMATS = ("csv", "geojson", "label_studio", "cvat", "labelme", "napari", "coco")
MAX_BANDS = 8

TRAINER_VERSION = "2"
"""Part of a trial's identity. Raise it with every change that alters the numbers a run produces."""

WEIGHTS_FILE = re.compile(r"-([0-9a-f]{8,64})\.pth$")
"""torchvision's way of naming a file of weights: the first digits of its SHA-256 stand before the suffix."""

MAX_SCENE_PIXELS = 4_000_000
"""A made landscape is held in memory whole, some 100 bytes a pixel."""


class InputError(ValueError):
    """Bad input from the user: one line with the place, the rule and the remedy. The command line exits with 2."""

    def __init__(self, message: str) -> None:
        # Names come from files and may hold line breaks or a terminal's control characters.
        super().__init__("".join(each if each.isprintable() else repr(each)[1:-1] for each in message))


def _knob(
    default: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str | int, ...] | None = None,
) -> Any:
    """A dataclass field with its rule: `above` is exclusive, `minimum` and `maximum` inclusive.

    `choices` bind the values of their own type alone: a setting may be a number in a range, or one of some words.
    """
    rule = {"above": above, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=rule)


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shares of the images in train, validation and test; whole scenes each (DESIGN.md, invariant 7)."""

    train: float = _knob(0.6, above=0, maximum=1)
    val: float = _knob(0.2, above=0, maximum=1)
    test: float = _knob(0.2, above=0, maximum=1)
    seed: int = _knob(0, minimum=0)

    def __post_init__(self) -> None:
        check_fields(self, "data.split")
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise InputError(f"data.split: train + val + test must be 1, but they add up to {total:g}")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """The made data set: `num_scenes` landscapes, each cut into `images_per_scene` square images."""

    num_scenes: int = _knob(12, minimum=3, maximum=1000)
    images_per_scene: int = _knob(12, minimum=1, maximum=1000)
    image_size: int = _knob(64, minimum=32, maximum=1024)  # pixels per side
    seed: int = _knob(0, minimum=0)

    def __post_init__(self) -> None:
        check_fields(self, "data.synthetic")
        num_pixels = self.images_per_scene * self.image_size**2
        if num_pixels > MAX_SCENE_PIXELS:
            raise InputError(
                f"data.synthetic: {self.images_per_scene} images of {self.image_size} px make a landscape of"
                f" {num_pixels} pixels; at most {MAX_SCENE_PIXELS}"
            )


@dataclass(frozen=True, kw_only=True)
class AnnotationConfig:
    """Point annotations that people made, in place of masks. They train and, in the validation split, evaluate.

    Attributes:
        format: how the annotations are written (`point_files.py` says how each format places a point in its pixel).
        path: a file, or a folder with one file per image; inside `data.root`.
        classes: class name of the files -> `background` or `forest`. These two names themselves are always known.
        default_class: class of points that carry no name.
        negatives: what to do where no point is background: `refuse`, or draw as many background points as there are
            positives (`sampled`). An unlabelled tree then teaches, and counts, as background.
        negative_distance_px: sampled background points keep this distance to every positive, pixels of the image.
    """

    format: str = _knob("csv", choices=ANNOTATION_FORMATS)
    path: str = _knob("points")
    classes: Mapping[str, str] = field(default_factory=dict)
    default_class: str | None = _knob(None, choices=CLASS_NAMES)
    negatives: str = _knob("refuse", choices=("refuse", "sampled"))
    negative_distance_px: float = _knob(10.0, minimum=0, maximum=1000)

    def __post_init__(self) -> None:
        check_fields(self, "data.annotations")
        for name, meant in self.classes.items():
            if meant not in CLASS_NAMES:
                raise InputError(
                    f"data.annotations.classes.{name}: must be one of {', '.join(CLASS_NAMES)}, got {meant!r}"
                )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images: a folder with images/, masks/ and meta_data.csv, or the made data set; exactly one of the two.

    Attributes:
        root: folder, relative to the working directory.
        synthetic: settings of the made data set.
        group: column of meta_data.csv that names the scene. Where `scene` is asked for and there is no such column,
            the scene is the part of the image's name before its first underscore.
        annotations: points made by people, where the folder has no masks/; meta_data.csv is optional then, and without
            it every file of images/ is taken.
        split: shares by scene.
        max_images: take whole scenes, in the order of the split seed, until no further one fits.
    """

    root: str | None = _knob(None)
    synthetic: SyntheticConfig | None = None
    annotations: AnnotationConfig | None = None
    group: str = _knob("scene")
    split: SplitConfig = field(default_factory=SplitConfig)
    max_images: int | None = _knob(None, minimum=3)

    def __post_init__(self) -> None:
        check_fields(self, "data")
        if self.root == "":
            raise InputError("data.root: must name a folder, got ''")
        if (self.root is None) == (self.synthetic is None):
            raise InputError("data: give either root (a folder of images) or synthetic (made data), one of the two")
        if self.annotations and self.synthetic:
            raise InputError("data.annotations: made data come with masks; remove annotations or give root")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the result of one training run, given its data.

    Attributes:
        points_per_image: labelled pixels per training image, the first n of the image's ranked list of points; or
            `dense`, every pixel of its mask: the reference arm.
        point_strategy: how the ranked list is drawn (`points.py`).
        label_flip_rate: share of points that carry a wrong class, as a careless annotator would give it.
        position_jitter_px: standard deviation, in pixels, by which a click misses its place in each direction.
        points_seed: of the draw of points, and of the images that `train_images` picks; None: the run's own `seed`.
        train_images: how many images of the training split are labelled and trained on, the first n of a ranked list;
            None: all. With the number of epochs as it is, fewer images are fewer steps, too.
        encoder: torchvision's name of it.
        weights: initial weights of the encoder: `imagenet` through torchvision's own download and cache, `none` for
            random ones, or a torchvision state dict in a file whose name ends in -HASH.pth, HASH being the first 8 or
            more hex digits of its SHA-256, as torchvision names them.
        freeze_encoder: train the decoder alone; the encoder's batch statistics stay as they came, too.
        decoder_stride: where the decoder stops; from there to the image's own size it is bilinear.
        image_size: side of the square that images and masks are resized to, pixels; a multiple of the encoder's
            stride, 32.
        augmentation: `off`; `light`: flips and quarter turns; `full`: also colour jitter and scale.
        learning_rate: the optimizer's step size.
        focal_gamma: exponent of the focal term; 0 is plain cross-entropy.
        class_weights: `none`; `balanced`: inverse to the labelled counts of the classes; `prior`: from their share
            among all points to their share among all pixels, which brings the overall class shares back that
            `per_class` points distort (not those within an image). An oracle: it counts the training masks.
        entropy_weight: weight of the mean entropy of the unlabelled pixels (Grandvalet & Bengio 2004); 0 is off.
        consistency_weight: weight of the difference between predictions for an image and its mirror image; 0 is off.
        crf_weight: weight of the gated-CRF loss (Obukhov et al. 2019); 0 is off.
        optimizer: `adam` applies weight decay as an L2 penalty, `adamw` apart from the gradient.
        schedule: `constant`, or `cosine` from the learning rate to 0 over all steps (Loshchilov & Hutter 2017). A short
            run at a constant rate ends wherever its last steps threw it, and its seeds spread widely.
        warmup_epochs: the learning rate rises from 0 over so many epochs; parts of one count too.
        weight_decay: the optimizer's.
        epochs: passes over the training images.
        batch_size: images per step.
        precision: `float32`; `bfloat16` where autocast allows it; `auto`: bfloat16 where it was measured to gain
            (`precision.py`).
        gradient_checkpointing: keep fewer activations and compute them twice: less memory, the same result.
        compile: hand the model to `torch.compile`; a minute or more before the first step.
        deterministic: the same bits on the same machine, always. Without it a GPU may pick faster algorithms.
        evaluate_test: open the test split after the last epoch. Only trials that confirm a choice do; whoever chooses
            by the test split has none any more.
        seed: seed block: draw of points, initial weights, order of images and augmentation.
        device: `cpu` or `cuda`. Devices round differently, so it belongs to the run's identity.
        num_threads: CPU threads of torch; 1 and 2 threads give different bits.
    """

    points_per_image: int | str = _knob(50, minimum=1, choices=(DENSE,))
    point_strategy: str = _knob("uniform", choices=POINT_STRATEGIES)
    label_flip_rate: float = _knob(0.0, minimum=0, maximum=1)
    position_jitter_px: float = _knob(0.0, minimum=0, maximum=1000)
    points_seed: int | None = _knob(None, minimum=0)
    train_images: int | None = _knob(None, minimum=1)
    encoder: str = _knob("resnet50", choices=ENCODERS)
    weights: str = _knob("imagenet")
    freeze_encoder: bool = _knob(False)
    decoder_stride: int = _knob(2, choices=(1, 2, 4))
    image_size: int = _knob(256, minimum=32, maximum=4096)
    augmentation: str = _knob("off", choices=("off", "light", "full"))
    learning_rate: float = _knob(1e-4, above=0, maximum=10)
    focal_gamma: float = _knob(0.0, minimum=0, maximum=20)
    class_weights: str = _knob("none", choices=("none", "balanced", "prior"))
    entropy_weight: float = _knob(0.0, minimum=0, maximum=1000)
    consistency_weight: float = _knob(0.0, minimum=0, maximum=1000)
    crf_weight: float = _knob(0.0, minimum=0, maximum=1000)
    optimizer: str = _knob("adam", choices=("adam", "adamw"))
    schedule: str = _knob("constant", choices=("constant", "cosine"))
    warmup_epochs: float = _knob(0.0, minimum=0, maximum=10_000)
    weight_decay: float = _knob(1e-3, minimum=0, maximum=1)
    epochs: int = _knob(10, minimum=1, maximum=10_000)
    batch_size: int = _knob(16, minimum=2, maximum=4096)
    precision: str = _knob("auto", choices=("auto", "float32", "bfloat16"))
    gradient_checkpointing: bool = _knob(False)
    compile: bool = _knob(False)
    deterministic: bool = _knob(True)
    evaluate_test: bool = _knob(False)
    seed: int = _knob(0, minimum=0)
    device: str = _knob("cpu", choices=("cpu", "cuda"))
    num_threads: int = _knob(1, minimum=1, maximum=1024)

    def __post_init__(self) -> None:
        check_fields(self, "training")
        if self.image_size % 32:
            raise InputError(f"training.image_size: must be a multiple of 32 (encoder stride), got {self.image_size}")
        if isinstance(self.points_per_image, int) and self.points_per_image > self.image_size**2:
            raise InputError(
                f"training.points_per_image: {self.points_per_image} is more than the {self.image_size**2} pixels of"
                f" an image; ask for fewer points or a larger image_size"
            )
        if self.points_per_image == DENSE:
            self._refuse_for_dense()
        if self.warmup_epochs > self.epochs:
            raise InputError(
                f"training.warmup_epochs: {self.warmup_epochs:g} is more than the {self.epochs} epochs; lower it"
            )
        if self.weights not in ("imagenet", "none") and not WEIGHTS_FILE.search(self.weights):
            raise InputError(
                f"training.weights: must be imagenet, none or a file named NAME-HASH.pth, HASH being the first 8 or"
                f" more hex digits of its SHA-256, got {self.weights!r}"
            )

    def _refuse_for_dense(self) -> None:
        """What draws or spoils points does nothing to a mask: two names for one run would look like two results."""
        for name in ("point_strategy", "label_flip_rate", "position_jitter_px"):
            if getattr(self, name) != self.__dataclass_fields__[name].default:
                raise InputError(
                    f"training.{name}: {getattr(self, name)} has no effect where every pixel is labelled"
                    f" (points_per_image: {DENSE}); run the dense arm as a study of its own"
                )
        if self.points_seed is not None and self.train_images is None:
            raise InputError(
                f"training.points_seed: {self.points_seed} has no effect where every pixel of every image is labelled"
                f" (points_per_image: {DENSE}); give train_images, or run the dense arm as a study of its own"
            )

    @property
    def annotation_seed(self) -> int:
        """Decides what is labelled: which images, and where."""
        return self.seed if self.points_seed is None else self.points_seed

    def to_mapping(self) -> dict[str, Any]:
        """The run's settings as plain JSON values.

        What is None is left out. Settings that came later than the first studies are None by default, which is what
        those studies did: so their trials keep their identity.
        """
        return {name: value for name, value in asdict(self).items() if value is not None}


T = TypeVar("T", DataConfig, TrainConfig)


def from_mapping(cls: type[T], mapping: object, where: str) -> T:
    """Builds a config from a user's mapping.

    Raises:
        InputError: the mapping is not one, or a name, type or value in it is not allowed.
    """
    kwargs: dict[str, Any] = dict(_checked_mapping(cls, mapping, where))
    sections = {"split": SplitConfig, "synthetic": SyntheticConfig, "annotations": AnnotationConfig}
    for name, section in sections.items() if cls is DataConfig else ():
        if kwargs.get(name) is not None:
            kwargs[name] = section(**_checked_mapping(section, kwargs[name], f"{where}.{name}"))
    return cls(**{name: _as_float(cls, name, value) for name, value in kwargs.items()})


def check_compatible(training: TrainConfig, data: DataConfig) -> None:
    """Refuses settings of a run that its data cannot serve.

    Raises:
        InputError: a setting needs masks, and the data hold points made by people.
    """
    if data.annotations is None:
        return
    without_masks = ("uniform", "per_class", "positive_only")
    if training.point_strategy not in without_masks:
        raise InputError(
            f"training.point_strategy: {training.point_strategy} places points freely, and the data hold points made by"
            f" people (data.annotations); choose among those by {', '.join(without_masks)}"
        )
    if training.class_weights == "prior":
        raise InputError(
            "training.class_weights: prior needs the classes' share of the pixels, which points made by people"
            " (data.annotations) do not tell; use balanced or none"
        )


def check_value(cls: type, name: str, value: object, where: str) -> None:
    """Refuses a value that the field `name` of `cls` cannot take.

    Raises:
        InputError: names the field, the rule and the value.
    """
    (spec,) = (f for f in fields(cls) if f.name == name)
    _check_type(_field_types(cls)[name], value, where)
    rule = spec.metadata
    if value is None or not rule:
        return
    choices = [choice for choice in rule["choices"] or () if type(choice) is type(value)]
    if choices and value not in choices:
        hint = nearest(str(value), [str(choice) for choice in choices])
        number = "a number or " if rule["minimum"] is not None else "one of "
        raise InputError(f"{where}: must be {number}{', '.join(map(str, choices))}, got {value!r}{hint}")
    if isinstance(value, int | float):
        _check_range(rule, value, where)


def check_fields(config: object, where: str) -> None:
    """Checks every field of a config against its rule."""
    for spec in fields(config):  # type: ignore[arg-type]
        check_value(type(config), spec.name, getattr(config, spec.name), f"{where}.{spec.name}")


def check_name(name: str, allowed: typing.Iterable[str], where: str, what: str = "setting") -> None:
    """Refuses a name that is not among the allowed ones, with the nearest of them as a hint."""
    allowed = list(allowed)
    if name not in allowed:
        raise InputError(f"{where}: no such {what}{known_or_nearest(name, allowed)}")


def known_or_nearest(name: str, allowed: typing.Iterable[str]) -> str:
    """The nearest allowed name as a hint, or all of them where none is near."""
    allowed = list(allowed)
    return nearest(name, allowed) or f"; known: {', '.join(allowed)}"


def nearest(name: str, allowed: typing.Iterable[str]) -> str:
    """`; did you mean ...?` for a mistyped name, or nothing where no allowed name is near."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _checked_mapping(cls: type, mapping: object, where: str) -> Mapping[str, Any]:
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where}: must be a mapping of settings, got {mapping!r}")
    names = [spec.name for spec in fields(cls)]
    for key in mapping:
        check_name(str(key), names, f"{where}.{key}")
    return mapping


def _field_types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _as_float(cls: type, name: str, value: Any) -> Any:
    """2 for a float setting becomes 2.0, so that one value has one spelling and one identity."""
    # Beyond 2^53 a float is another number; the ranges refuse it as the integer that it is.
    is_plain_int = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    return float(value) if is_plain_int and _field_types(cls)[name] is float else value


_TYPE_NAMES: dict[type, str] = {type(None): "null", Mapping: "a mapping"}


def _check_type(expected: Any, value: object, where: str) -> None:
    options = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    options = tuple(typing.get_origin(option) or option for option in options)
    accepted = (*options, int) if float in options else options
    is_stray_bool = isinstance(value, bool) and bool not in options
    if is_stray_bool or not isinstance(value, accepted):
        names = " or ".join(_TYPE_NAMES.get(option, option.__name__) for option in options)
        raise InputError(f"{where}: must be {names}, got {value!r}")


def _check_range(rule: Mapping[str, Any], value: float, where: str) -> None:
    if value != value or value in (float("inf"), float("-inf")):
        raise InputError(f"{where}: must be a finite number, got {value}")
    if rule["above"] is not None and value <= rule["above"]:
        raise InputError(f"{where}: must be greater than {rule['above']:g}, got {value}")
    if rule["minimum"] is not None and value < rule["minimum"]:
        raise InputError(f"{where}: must be at least {rule['minimum']:g}, got {value}")
    if rule["maximum"] is not None and value > rule["maximum"]:
        raise InputError(f"{where}: must be at most {rule['maximum']:g}, got {value}")
