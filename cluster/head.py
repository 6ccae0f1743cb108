"""The head of a cluster: whether it is one, is of our Ray, lets us in, and keeps strangers out.

Asked before anything is staged, started or written, and with time limits of ours: Ray itself tries for a minute. A
token is sent only where the first question, which carries none, was answered as Ray answers it.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from json import JSONDecodeError, loads
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from trainable.config import InputError

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # in the order of `ray job`
ANSWER_S = 5.0  # for each question; there are at most three
MAX_ANSWER_BYTES = 65536
HOW_TO_AUTHENTICATE = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to that cluster's token"
OPEN_HEAD = (
    "answers without a token, so anyone who reaches it can run any code there (CVE-2023-48022); start Ray with"
    " RAY_AUTH_MODE=token on every node (KubeRay: authOptions.mode: token), or reach it by a tunnel to 127.0.0.1"
)


@dataclass(frozen=True)
class Head:
    """A head that lets us in.

    Attributes:
        address: as a client of it takes it: a URL of the Jobs API, or HOST:PORT for a driver.
    """

    address: str
    ray_version: str


def named_address() -> str:
    """The cluster that the environment names for a client of its Jobs API; empty where it names none."""
    return next((os.environ[name] for name in ADDRESSES if os.environ.get(name)), "")


def driver_address(given: str | None) -> str | None:
    """The cluster that a driver joins: `--address`, or RAY_ADDRESS; None for a Ray of our own.

    Raises:
        InputError: it is none that a driver can join.
    """
    address = given or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return None
    if "@" in address:
        raise InputError(f"--address: carries a name or password; {HOW_TO_AUTHENTICATE}")
    if "://" in address or address == "auto":
        raise InputError(
            f"--address {address}: a driver joins HOST:PORT of a head, as `ray start` prints it; hand the study to"
            f" http://HOST:PORT with canopoint submit, or give --address local for a Ray on this machine alone"
        )
    return address


def check_jobs_api(given: str | None) -> Head:
    """The head whose Jobs API is at `--address`, or else at RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises:
        InputError: one line; it is not there, not Ray, another Ray, does not let us in, or lets everyone in.
    """
    address = _jobs_address(given)
    place = f"--address {address}"
    status, answer = _ask(address, {}, place)
    if status == 200:
        found = _ray_version(answer, place)
        if not _is_loopback(urlsplit(address).hostname or ""):
            raise InputError(f"{place}: {OPEN_HEAD}")
        token_headers(place)  # Ray's own client sends a token all the same
    elif status == 401 and "authentication token" in answer:
        found = _ask_with_token(address, place)
    else:
        raise _not_ray(place, f"{status} {answer[:80]!r}")
    _check_version(found, place)
    return Head(address, found)


def check_head(address: str) -> Head:
    """The head at HOST:PORT, for a driver on this machine to join.

    Raises:
        InputError: one line, as above; or this machine is no node of the cluster.
    """
    from cluster.head_grpc import MissingTokenError, NoRayError, alive_nodes, ray_version, stranger_is_let_in

    place = f"--address {address}"
    host = _reachable_host(address, place)
    try:
        if stranger_is_let_in(address) and not _is_loopback(host):
            raise InputError(f"{place}: {OPEN_HEAD}")
        token_headers(place)
        _check_version(found := ray_version(address), place)
        nodes = alive_nodes(address)
    except MissingTokenError:
        raise _refused(place) from None
    except NoRayError as error:
        raise _not_ray(place, str(error)) from error
    if not any(_is_of_this_machine(node) for node in nodes):
        raise InputError(
            f"{place}: this machine is none of its nodes ({', '.join(sorted(nodes))}), and a driver runs on one; hand"
            f" the study over with canopoint submit --address http://{host}:8265, or run on a node"
        )
    return Head(address, found)


def token_headers(place: str) -> dict[str, str]:
    """The token of our environment as Ray's own clients send it; empty where RAY_AUTH_MODE is not `token`.

    Raises:
        InputError: the mode asks for a token, and there is none, or one that no header can hold.
    """
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    from ray.exceptions import AuthenticationError

    try:
        headers = dict(get_auth_headers_if_auth_enabled({}))
    except AuthenticationError as error:
        raise InputError(f"{place}: asks for a token: {_first_sentence(error)}; {HOW_TO_AUTHENTICATE}") from error
    if not all(value.isascii() and value.isprintable() for value in headers.values()):  # whose errors would repeat it
        raise InputError(f"{place}: our token is not one line of letters, digits and signs; {HOW_TO_AUTHENTICATE}")
    return headers


def _jobs_address(given: str | None) -> str:
    address = given or named_address()
    if not address:
        raise InputError("--address: is missing; give http://HOST:8265 of the cluster's head, or set RAY_ADDRESS")
    if "@" in address:
        raise InputError(f"--address: carries a name or password; {HOW_TO_AUTHENTICATE}")
    try:
        parts = urlsplit(address)
    except ValueError:  # such as a bracket that is not closed
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"--address {address}: is no address of the Jobs API; give http://HOST:8265 of the cluster's head, whose"
            f" dashboard serves it"
        )
    return address.rstrip("/")


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would carry the token elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _ask(address: str, headers: Mapping[str, str], place: str) -> tuple[int, str]:
    """(status, text) of what the Jobs API says of its version."""
    try:
        request = Request(f"{address}/api/version", headers=dict(headers))
        try:
            answer = build_opener(_NoRedirects()).open(request, timeout=ANSWER_S)
        except HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.read(MAX_ANSWER_BYTES).decode(errors="replace")
    except HTTPException as error:
        raise _not_ray(place, "no HTTP") from error
    except ValueError as error:  # of a port that is none; that of a header would repeat the header
        raise _unreachable(place, "it cannot be asked" if headers else error) from None
    except OSError as error:
        raise _unreachable(place, error.reason if isinstance(error, URLError) else error) from error


def _ask_with_token(address: str, place: str) -> str:
    if not (headers := token_headers(place)):
        raise _refused(place)
    status, answer = _ask(address, headers, place)
    if status in (401, 403):
        raise _refused(place)
    return _ray_version(answer, place)


def _ray_version(answer: str, place: str) -> str:
    try:
        return str(loads(answer)["ray_version"])
    except (JSONDecodeError, KeyError, TypeError) as error:
        raise _not_ray(place, repr(answer[:80])) from error


def _check_version(found: str, place: str) -> None:
    ours = version("ray")
    if found != ours:
        raise InputError(
            f"{place}: runs Ray {found}, and this is Ray {ours}; install ray=={found} here, or start the cluster"
            f" with Ray {ours}"
        )


def _refused(place: str) -> InputError:
    if not token_headers(place):
        return InputError(f"{place}: asks for a token, and RAY_AUTH_MODE is not set to token; {HOW_TO_AUTHENTICATE}")
    return InputError(f"{place}: does not accept our token; {HOW_TO_AUTHENTICATE}")


def _unreachable(place: str, reason: object) -> InputError:
    return InputError(f"{place}: nothing answers there ({reason}); start that cluster, or give its head's address")


def _not_ray(place: str, found: str) -> InputError:
    return InputError(
        f"{place}: what answers there is not the expected part of Ray ({found}); submit and what follows it take the"
        f" dashboard (http://HOST:8265), run takes the head (HOST:6379)"
    )


def _reachable_host(address: str, place: str) -> str:
    """The host of HOST:PORT, once a connection was accepted there."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(place, error) from error
    return host


def _is_loopback(host: str) -> bool:
    found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)


def _is_of_this_machine(host: str) -> bool:
    """Whether an address is one of ours: only those can be bound to."""
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(name)
    except OSError:
        return False
    return True


def _first_sentence(error: BaseException) -> str:
    return str(error).partition(". ")[0].rstrip(".")
