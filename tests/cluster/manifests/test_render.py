import re

import pytest
import yaml

from cluster.manifests import KINDS, render
from cluster.manifests.text import default_image, resource_name
from study.spec import load_study
from study.yaml_file import parse_yaml
from trainable.config import InputError

CANARIES = {
    "WANDB_API_KEY": "canary-wandb",
    "AWS_SECRET_ACCESS_KEY": "canary-aws",
    "AWS_ACCESS_KEY_ID": "canary-id",
    "RAY_AUTH_TOKEN": "canary-token",
    "RAY_AUTH_TOKEN_PATH": "/canary/path",
    "GOOGLE_APPLICATION_CREDENTIALS": "/canary/google.json",
}
HOSTILE = "x'\"$(touch pwned)`id`\nEOF\n---\n#SBATCH --uid=0\nkind: Pod: *a"


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_of_the_environment_is_in_it(kind, rendered, monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    assert "canary" not in rendered(kind, "tracking.mode=online")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_study_gives_the_same_text(kind, rendered):
    text = rendered(kind)
    assert text == rendered(kind)
    assert text.endswith("\n")
    assert "\t" not in text


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "slurm"])
def test_it_is_yaml_with_the_image_below_a_comment_that_says_how_to_use_it(kind, rendered):
    image = "registry.example.org:5000/lab/canopoint:2@sha256:" + 64 * "0"
    text = rendered(kind, image=image)
    assert list(yaml.safe_load_all(text))
    assert f"image: {image}" in text
    assert default_image() in rendered(kind)
    assert re.search(r"^#   (kubectl apply -f|ray up) FILE", text, re.MULTILINE)
    assert not re.search(r"^\s*(- )?[*&]", text, re.MULTILINE), "aliases are not for readers"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_study_says_stays_what_it_is(kind, rendered):
    text = rendered(kind, f"data.group={yaml.safe_dump(HOSTILE)}")
    outside = text.split("# The rest is the same")[0] if kind == "slurm" else text
    assert not re.search(r"^(#SBATCH --uid|EOF|kind: Pod)", outside.replace(HOSTILE, ""), re.MULTILINE)
    if kind != "slurm":
        assert all(each.get("kind") != "Pod" for each in yaml.safe_load_all(text))


@pytest.mark.parametrize(
    "image", ["", "a b", "a;id", "$(id)", "-v", "a\nb", "UPPER/case", "x" * 600, "a:b:c", "a@sha256:1", "über"]
)
def test_what_is_no_image_is_refused(image, rendered):
    with pytest.raises(InputError, match="--image") as error:
        rendered("kuberay", image=image)
    assert "\n" not in str(error.value)


def test_slurm_takes_no_image(rendered):
    with pytest.raises(InputError, match="--image"):
        rendered("slurm", image="canopoint:1")


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match="did you mean kuberay"):
        render("kubray", load_study("demo", []))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "slurm"])
def test_folders_of_this_machine_do_not_travel(kind):
    with pytest.raises(InputError, match=r"storage: studies is relative"):
        render(kind, load_study("demo", []))


@pytest.mark.parametrize(
    "name", ["demo", "Demo", "DEMO", "a.b", "a_b", "a-b", "1", "a" * 64, "a" * 63 + "b", "Z" * 64, "a--b", "a-"]
)
def test_names_are_valid_everywhere(name):
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", resource_name(name))
    assert len(resource_name(name)) <= 40


def test_different_studies_have_different_names():
    names = ["demo", "Demo", "a.b", "a_b", "a-b", "a" * 64, "a" * 63 + "b", "a--b", "a-"]
    assert resource_name("demo") == "canopoint-demo"
    assert len({resource_name(name) for name in names}) == len(names)


def test_the_study_is_in_it_with_its_overrides(rendered):
    documents = list(
        yaml.safe_load_all(rendered("kuberay", "training.epochs=3", f"data.group={yaml.safe_dump(HOSTILE)}"))
    )
    study = parse_yaml(documents[0]["data"]["study.yaml"], "study.yaml")
    assert study["training"]["epochs"] == 3
    assert study["data"]["group"] == HOSTILE
    assert study["storage"] == "/shared/studies"
