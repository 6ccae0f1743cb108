"""What the GCS, the part of Ray's head that drivers join, says of itself: three questions, each with a time limit.

`ray.init` asks the same things, but for up to a minute, and with a token where we want to know what it does without.
"""

import os
from typing import Any

ANSWER_S = 4.0
ALIVE = 0  # of GcsNodeInfo.GcsNodeState
NO_PROXY = (("grpc.enable_http_proxy", 0),)


class NoRayError(RuntimeError):
    """What answers is no GCS, or none that is well."""


class MissingTokenError(RuntimeError):
    """It asks for a token, and got none, or another one."""


def stranger_is_let_in(address: str) -> bool:
    """Whether it answers who comes without a token, and without a certificate where TLS is asked for."""
    import grpc

    try:
        with grpc.insecure_channel(address, options=NO_PROXY) as channel:
            _call(channel, "CheckAlive")
    except MissingTokenError:
        return False
    except NoRayError:
        if _uses_tls():  # it does not even understand us without a certificate
            return False
        raise
    return True


def ray_version(address: str) -> str:
    """The version of Ray that it runs.

    Raises:
        MissingTokenError: it does not let us in.
        NoRayError: it is none.
    """
    return str(_ask(address, "CheckAlive").ray_version)


def alive_nodes(address: str) -> set[str]:
    """The addresses of the cluster's nodes; errors as above."""
    return {node.node_manager_address for node in _ask(address, "GetAllNodeInfo", state_filter=ALIVE).node_info_list}


def _uses_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _ask(address: str, method: str, **fields: Any) -> Any:
    """Asks as Ray itself does: with our token and certificate, where the environment names them."""
    from ray._private.grpc_utils import init_grpc_channel
    from ray.exceptions import AuthenticationError

    try:
        with init_grpc_channel(address, options=NO_PROXY) as channel:
            return _call(channel, method, **fields)
    except AuthenticationError as error:  # our environment asks for a token and has none
        raise MissingTokenError(str(error)) from error


def _call(channel: Any, method: str, **fields: Any) -> Any:
    """Asks one question; what is in it and in the answer stands in Ray's gcs_service.proto."""
    import grpc
    from ray.core.generated import gcs_service_pb2

    request, reply = (getattr(gcs_service_pb2, f"{method}{kind}") for kind in ("Request", "Reply"))
    call = channel.unary_unary(
        f"/ray.rpc.NodeInfoGcsService/{method}",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )
    try:
        return call(request(**fields), timeout=ANSWER_S)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise MissingTokenError(str(error.details())) from error
        raise NoRayError(f"gRPC says {error.code().name}") from error
