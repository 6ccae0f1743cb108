"""What looks like a secret in a study file is refused by its place, and its value is never shown."""

import base64
import random
import secrets
import string
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import canopoint
from study.secrets import is_secret_name, refuse_secrets, secret_kind
from study.sections import Budget, Confirm, Failures, Objective, Parameter, Resources, Search, Tracking
from study.spec import CATALOG, StudySpec, load_study, parse_study
from study.training_file import read_training_file
from study.yaml_file import read_yaml, to_yaml
from trainable.config import AnnotationConfig, DataConfig, InputError, SplitConfig, SyntheticConfig, TrainConfig

LEVELS = {"points_per_image": {"role": "scientific", "values": [1]}}
STUDY: dict[str, Any] = {"study": "s", "data": {"synthetic": {}}, "parameters": LEVELS}
BASE62 = string.ascii_letters + string.digits

# Made here, so that no reader and no scanner takes them for real ones.
VALUES = {
    "W&B": "0123456789abcdef" * 2 + "01234567",
    "W&B on premises": "local-" + "0123456789abcdef" * 2 + "01234567",
    "W&B, new": "wandb_v1_" + "aB3" * 20,
    "Ray": "0123456789abcdef" * 4,
    "AWS id": "AKIA" + "0123ABCD" * 2,
    "AWS id, for some hours": "ASIA" + "0123ABCD" * 2,
    "AWS secret": "wJ4lrX/tnFM1/K7D+bPx9RfiC2EX" + "MPL3kEY0a+Bz",
    "GitHub": "ghp_" + "aB3d" * 9,
    "GitHub, fine": "github_pat_" + "aB3d" * 9,
    "GitLab": "glpat-" + "aB3d" * 5,
    "Hugging Face": "hf_" + "aBcD" * 8,
    "OpenAI": "sk-" + "aB3d" * 12,
    "OpenAI, project": "sk-proj-" + "aB3d" * 4 + "-" + "xY_2" * 6,
    "Google": "AIza" + "aB3d" * 9,
    "Slack": "xoxb-" + "1234" * 4,
    "JWT": "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----",
    "in an address": "s3://ABCDEF:hunter2@bucket/studies",
    "in an address, with a slash": "s3://ABCDEF:hun/ter2@bucket/studies",
    "in an address, after a port": "https://host:9000/x?access_key=hunter2",
    "in an address, signed": "https://host/x?a=b&X-Amz-Signature=hunter2",
    "after its name": "password=hunter2",
    "after its name, in quotes": '{"api_key": "hunter2"}',
}
NAMES = [
    "api_key", "apikey", "apiKey", "WANDB_API_KEY", "wandb.api-key", "AWS_SECRET_ACCESS_KEY", "aws_access_key_id",
    "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "token", "hf_token", "password", "db_passwd", "passphrase", "pwd", "secret",
    "secrets", "client_secret", "credential", "credentials", "private_key", "ssh_key", "key", "accountKey", "sas_token",
    "authorization", "bearer",
]  # fmt: skip
HARMLESS = [
    "studies", "/mnt/shared/studies/2024/forest", "s3://secret-forest/token/studies", "http://127.0.0.1:9000/bucket/a@b",
    "data/forest", "sk-slovakia-forest-2020-tiles/images", "hf_highforest20200101", "models/key/resnet18-f37072fd.pth",
    "resnet18-0123456789abcdef0123456789abcdef01234567.pth", "point-budget", "imagenet", "val/miou", "canopoint",
    "/mnt/Data2024/ForestTiles/Rgb10cm/Images/Subset7", "AaaaaaaaaaBbbbbbbbbbCcccccccccDddddddddd", "scene",
    "/data/token=12/x", "/mnt/shared/api_key=old/forest", "s3://bucket/key=12/forest",
    "AKIA-like", "C:\\data\\forest", "gs://bucket/prefix", "asia2024", "taskforce", "a tokenised forest", "author",
]  # fmt: skip


def refusal(value: object) -> str:
    with pytest.raises(InputError) as caught:
        refuse_secrets(value, "study.yaml")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "environment of the nodes" in message
    return message


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_names_a_secret_is_refused_at_any_depth(name: str) -> None:
    for value in ("hunter2", 31337, ["hunter2"], {"wandb": "hunter2"}, None, True):
        for place, mapping in [
            ("", {name: value}),
            ("a.b.", {"a": {"b": {name: value}}}),
            ("a.0.", {"a": [{name: value}]}),
        ]:
            message = refusal(mapping)
            assert message.startswith(f"study.yaml: {place}{name}: looks like a secret by its name; ")
            assert "hunter2" not in message
            assert "31337" not in message


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_looks_like_a_secret_is_refused_under_any_key(kind: str) -> None:
    value = VALUES[kind]
    places: list[tuple[str, object]] = [
        ("storage", {"storage": value}),
        ("tracking.project", {"tracking": {"project": f" {value}\n"}}),
        ("a.1", {"a": ["b", value]}),
        ("data.(a key)", {"data": {value: "x"}}),
    ]
    for place, mapping in places:
        message = refusal(mapping)
        assert message.startswith(f"study.yaml: {place}: holds what looks like a")
        assert value not in message
        assert "hunter2" not in message
        assert "ABCDEF" not in message


def test_made_keys_of_the_usual_kinds_are_seen() -> None:
    draw = random.Random(0)
    for _ in range(300):
        assert secret_kind(secrets.token_hex(20))
        assert secret_kind(secrets.token_hex(32))
        assert secret_kind("".join(draw.choices(BASE62, k=40)))
        assert secret_kind("".join(draw.choices(BASE62 + "/+", k=40)))
        assert secret_kind("hf_" + "".join(draw.choices(BASE62, k=34)))
        assert secret_kind("sk-proj-" + base64.urlsafe_b64encode(draw.randbytes(90)).decode())


@pytest.mark.parametrize("part", ["a", "ab ", "sk-", "eyJ-", "://:a", "local-", "-", " ", "a:", "a: ", "token", '"'])
def test_a_long_text_takes_no_long_time(part: str) -> None:
    started = time.monotonic()
    secret_kind(part * (100_000 // len(part)))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("text", HARMLESS)
def test_what_studies_hold_is_no_secret(text: str) -> None:
    assert secret_kind(text) == ""
    refuse_secrets({"storage": text}, "study.yaml")


def test_no_field_of_a_study_sounds_like_a_secret() -> None:
    sections = (StudySpec, Parameter, Search, Confirm, Budget, Failures, Objective, Resources, Tracking)
    names = {name for section in sections for name in section.model_fields}
    configs = (TrainConfig, DataConfig, SplitConfig, SyntheticConfig, AnnotationConfig)
    names |= {field.name for config in configs for field in fields(config)}
    assert len(names) > 60
    assert [name for name in names if is_secret_name(name)] == []


@pytest.mark.parametrize("path", sorted(CATALOG.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_catalog_holds_none(path: Path) -> None:
    refuse_secrets(read_yaml(path), path.name)


@pytest.mark.parametrize("result", [0.81, 1, 0, 1e-3])
@pytest.mark.parametrize("name", ["token_mixing_net", "secret_forest"])
def test_a_known_result_may_have_any_name(name: str, result: float) -> None:
    spec = parse_study({**STUDY, "objective": {"references": {name: result}}}, "study.yaml")
    assert spec.objective.references == {name: result}
    for override in (f"objective.references={{{name}: {result:g}}}", f"objective.references.{name}={result:g}"):
        assert load_study("demo", [override]).objective.references[name] == result


def test_what_is_no_number_is_no_known_result() -> None:
    for value in ("hunter2", "1 hunter2", True, [1], {"a": 1}):
        assert "hunter2" not in refusal({"objective": {"references": {"token": value}}})
    refusal({"objective.references.token": "hunter2"})
    refusal({"objective.references": "{token: 1hunter2}"})
    refusal({"references": {"token": 1}})


def test_a_folder_may_be_named_by_what_it_holds() -> None:
    data = {"root": "/data/token=1/x"}
    assert parse_study({**STUDY, "data": data}, "study.yaml").data.root == data["root"]
    assert load_study("demo", ["data={root: /data/token=1/x}"]).data.root == data["root"]
    refusal({"data": {"root": "/data/x?token=hunter2"}})
    refusal({"data": {"root": "/data\npassword=hunter2"}})


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(to_yaml(STUDY))
    return path


FILES = {
    "api_key: hunter2\n": "study.yaml: api_key: ",
    "tracking: {api_key: hunter2}\n": "study.yaml: tracking.api_key: ",
    "training: {weights: 'https://me:hunter2@host/resnet18-f37072fd.pth'}\n": "study.yaml: training.weights: ",
    "storage: 's3://me:hunter2@bucket/studies'\n": "study.yaml: storage: ",
    "tracking: [{password: hunter2}]\n": "study.yaml: tracking.0.password: ",
}
OVERRIDES = {
    "tracking.api_key=hunter2": "--set: tracking.api_key: ",
    "WANDB_API_KEY=hunter2": "--set: WANDB_API_KEY: ",
    "tracking={api_key: hunter2}": "--set: tracking: ",
    "storage=s3://me:hunter2@bucket": "--set: storage: ",
    "password:hunter2": "--set: (a key): ",
    "password: hunter2=": "--set: (a key): ",
    "study.password=hunter2": "--set: study.password: ",
    "api_key=!!int hunter2": "--set: api_key: ",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_with_one_is_refused_by_the_command_line(
    study: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    study.write_text(study.read_text() + text)
    check_refused(["study.yaml"], FILES[text], study, capsys)


@pytest.mark.parametrize("override", OVERRIDES)
def test_so_is_an_override(study: Path, capsys: pytest.CaptureFixture[str], override: str) -> None:
    check_refused(["study.yaml", "--set", override], OVERRIDES[override], study, capsys)


def check_refused(arguments: list[str], start: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "run"):
        assert canopoint.main([command, *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"canopoint: {start}")
        assert len(captured.err.splitlines()) == 1
        assert len(captured.err) < 400
        assert "hunter2" not in captured.err
    assert list(study.parent.iterdir()) == [study]


def test_so_is_a_cell(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in ("{api_key: hunter2}", "api_key:hunter2", "{points_per_image: 's3://me:hunter2@bucket'}"):
        assert canopoint.main(["confirm", "demo", "--cell", cell]) == 2
        said = capsys.readouterr().err
        assert said.startswith("canopoint: --cell: holds what looks like a")
        assert "hunter2" not in said


def test_so_is_a_training_file_and_its_hashes_are_none(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    training: dict[str, Any] = {"encoder": "resnet18", "weights": "none"}
    reproduces = {"trial_id": "0123456789ab", "result_sha256": "0123456789abcdef" * 4}
    path.write_text(to_yaml({"data": {"synthetic": {}}, "training": training, "reproduces": reproduces}))
    assert read_training_file(path).reproduces == reproduces
    training["weights"] = "https://me:hunter2@host/resnet18-f37072fd.pth"
    path.write_text(to_yaml({"data": {"synthetic": {}}, "training": training}))
    with pytest.raises(InputError) as caught:
        read_training_file(path)
    assert str(caught.value).startswith(f"{path}: training.weights: holds what looks like")
    assert "hunter2" not in str(caught.value)
