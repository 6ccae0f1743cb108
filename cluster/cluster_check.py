"""`canopoint cluster check`: a cluster checked for a study, with nothing trained."""

from cluster.head import check_head, driver_address
from cluster.local_ray import connected_ray
from cluster.preflight import check_nodes
from cluster.preflight_report import Report
from cluster.preparation import Say, pack_stores, prepare
from cluster.resources import check_cluster_fits, check_fits, cluster_nodes
from study.spec import StudySpec


def check_cluster(spec: StudySpec, address: str | None, say: Say) -> Report:
    """Checks what a run would check before its first trial, on every node that could hold one.

    The images are packed into the storage where they are not yet, as every node has to open them; nothing else stays.

    Args:
        spec: the study.
        address: of a cluster to join, HOST:PORT; else RAY_ADDRESS, or a Ray of our own.
        say: takes what is said meanwhile.

    Raises:
        InputError: the address, the study or its data are not as they must be, or no node can hold a trial. What is
            wrong with a node stands in the report.
    """
    joined = driver_address(address)
    refuse_unfit(spec, joined)
    work = prepare(spec)
    stores = pack_stores(work, say)
    if work.remote:
        work.remote.push_stores(stores.values(), say)
    with connected_ray(joined):
        return check_nodes(work, stores, say, is_own=False)


def refuse_unfit(spec: StudySpec, address: str | None) -> None:
    """Refuses a cluster that cannot be joined, or whose nodes hold no trial, before the images are read.

    Args:
        spec: the study.
        address: of a cluster, which is joined for half a second; None for this machine.

    Raises:
        InputError: says why not, or names what is asked for and what there is.
    """
    if address is None:
        check_fits(spec.resources)
        return
    check_head(address)
    with connected_ray(address):
        check_cluster_fits(spec.resources, cluster_nodes())
