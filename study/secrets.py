"""Keeps secrets out of study files, which are copied to nodes, to W&B, into reports and to colleagues.

What looks like a secret by its key or by its value is refused, and no message shows it. Secrets live in the environment
of the nodes. This is a net for accidents: a password that is an ordinary word under an ordinary key passes.
"""

import itertools
import re
from collections.abc import Mapping

from trainable.config import InputError

_NAMES = re.compile(
    r"passw|passphrase|credential|secret|bearer|(?:access|account|api|auth|private|sas|shared|signing|ssh)_?key"
    r"|(?:^|_)(?:auth|authorization|cookie|key|pwd|sig|signature|token)s?(?:_|$)"
)
_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_NAMED = re.compile(r"""(?<![\w./-])([\w.-]++)["']?\s*[:=]\s*["']?(?!\d*\.\d+\b|\d(?:[\s,}]|$))[^\s/,}\]]""")
"""A name and its value inside a text, as in `?token=x`. A fraction or a digit may be a known result, and is no secret;
neither is a folder that is named `token=1`."""
_KNOWN_RESULT = "objective.references."  # below which users choose the names
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")

_BEGIN, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_VALUES = {  # each in linear time: a study file may hold any text
    "a private key": r"-----BEGIN",
    # A password may hold slashes; a port ends with one.
    "an address with a password": r"://[^/\s:@]*:(?!\d+/)[^\s@]{1,500}@",
    "an AWS key": rf"{_BEGIN}(?:AKIA|ASIA)[0-9A-Z]{{16}}{_END}",
    "a GitHub or GitLab token": rf"{_BEGIN}(?:gh[opsur]_|github_pat_|glpat-)[\w-]{{20,}}",
    "a Hugging Face token": rf"{_BEGIN}hf_[0-9A-Za-z]{{30,}}",
    "a Google key": rf"{_BEGIN}AIza[\w-]{{30,}}",
    "a Slack token": rf"{_BEGIN}xox[a-z]-[\w-]{{10,}}",
    "a web token": rf"{_BEGIN}eyJ[\w-]{{8,500}}\.[\w-]{{8,}}",
    "a W&B key": rf"{_BEGIN}wandb_v\d+_\w{{20,}}|^\s*local-[0-9a-f]{{40}}\s*$",
    "an API key": rf"{_BEGIN}sk-(?:[\w-]{{0,200}}-)?(?=[A-Za-z_]*\d)\w{{16,}}",
    "a key in hex digits": r"^\s*[0-9a-f]{32,}\s*$",  # W&B's have 40, Ray's tokens 64
}
_SECRET_ACCESS_KEY = re.compile(r"^\s*[0-9A-Za-z/+]{40}\s*$")
_MIN_CHANGES = 15
"""Random characters change between capitals, small letters and digits 24 times in 40 (sd 3); words hardly do."""


def refuse_secrets(value: object, where: str) -> None:
    """Refuses keys and values, at any depth, that look like secrets.

    Args:
        value: what a YAML file holds, or any part of it.
        where: the file or flag, for the message.

    Raises:
        InputError: names the field, never the value.
    """
    _search(value, where, ())


def secret_kind(text: str) -> str:
    """What a text looks like that is, or holds, a secret, as in "a private key"; "" where it holds none."""
    found = (kind for kind, pattern in _VALUES.items() if re.search(pattern, text))
    named = ("a secret after its name" for name in _NAMED.findall(text) if is_secret_name(name))
    return next(itertools.chain(found, named), "a secret access key" if _is_random(text) else "")


def is_secret_name(name: str) -> bool:
    """Whether a setting of that name would hold a secret: `api_key`, `wandbApiKey`, `AWS_SECRET_ACCESS_KEY`."""
    return bool(_NAMES.search(_BETWEEN_WORDS.sub("_", name).lower()))


def _search(value: object, where: str, place: tuple[str, ...]) -> None:
    if isinstance(value, Mapping):
        for key, below in value.items():
            _check_key(str(key), below, where, place)
            _search(below, where, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            _search(below, where, (*place, str(number)))
    elif isinstance(value, str) and (kind := secret_kind(value)):
        raise _refusal(where, place, f"holds what looks like {kind}")


def _check_key(key: str, value: object, where: str, place: tuple[str, ...]) -> None:
    if kind := secret_kind(key):
        raise _refusal(where, (*place, "(a key)"), f"holds what looks like {kind}")
    if is_secret_name(key) and not _is_known_result((*place, key), value):
        raise _refusal(where, (*place, key), "looks like a secret by its name")


def _is_known_result(place: tuple[str, ...], value: object) -> bool:
    """Whether it is a number under a name of the user's own; the flag --set gives the place, and any value, as text."""
    return ".".join(place).startswith(_KNOWN_RESULT) and bool(_NUMBER.fullmatch(str(value)))


def _refusal(where: str, place: tuple[str, ...], problem: str) -> InputError:
    found = ": ".join(part for part in (where, ".".join(place)) if part)
    return InputError(
        f"{found}: {problem}; a study file is copied to nodes, W&B and reports: remove it, renew it if it was shared,"
        f" and give it in the environment of the nodes, as WANDB_API_KEY or AWS_SECRET_ACCESS_KEY"
    )


def _is_random(text: str) -> bool:
    """Whether a text may be an AWS secret access key: 40 random characters, some of them perhaps slashes."""
    if not _SECRET_ACCESS_KEY.match(text):
        return False
    kinds = [(each.isdigit(), each.islower(), each.isupper()) for each in text.strip()]
    return sum(one != other for one, other in itertools.pairwise(kinds)) >= _MIN_CHANGES
