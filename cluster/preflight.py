"""Preflight: what every node that can hold a trial must have, checked before the first one.

A trial on a wrong node fails again and again, or trains with other code and says nothing; storage that is not shared
shows at the first checkpoint. So all those nodes are asked at once, in two rounds: the second reads what the first one
wrote. Nodes that hold no trial, as a head without CPUs, are not asked; nor are those that a cluster adds later.

A Ray of our own is this process's own machine, user, files and packages: nothing of that can differ, nor is it asked
for. What is left there is memory, the GPU where the study asks for one, and W&B.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, build_opener

from cluster import node_checks
from cluster.node_tasks import Answer, ask
from cluster.preflight_report import Report
from cluster.preflight_rules import (
    DRIVER,
    different_store,
    different_versions,
    slow_store,
    storage_problems,
    too_little_disk,
    too_little_memory,
    trial_bytes,
    wrong_clock,
)
from cluster.preflight_tokens import folder_of_tokens
from cluster.preparation import Say, Work
from cluster.resources import Node, cluster_nodes, num_fitting
from study.design import initial_weights

ANSWER_S = 60.0  # the first task on a node unpacks the job's files and starts a Python, perhaps from a network disk
FETCH_S = 600.0  # packed images out of an object store, or 200 MB of weights
WANDB_S = 5.0
SAME_CODE = "install there what the driver has, or run all nodes from one image; submit takes our own code along"


def check_nodes(work: Work, stores: Mapping[int, Path], say: Say, *, is_own: bool) -> Report:
    """Checks the connected cluster for a study.

    Args:
        work: the study; its folder need not exist.
        stores: image size -> packed store, as the driver has it.
        say: takes what is worth knowing and is no problem.
        is_own: whether it is a Ray of our own.

    Returns:
        What was found. A node that gives no answer is a problem like any other.
    """
    preflight = _Preflight(work, stores)
    nodes = [node for node in cluster_nodes() if num_fitting(work.spec.resources, node.resources)]
    if is_own:
        for node in nodes:
            preflight.judge_memory(node, node_checks.free_memory())
    else:
        nodes = preflight.compare(nodes)
        preflight.open_stores(nodes)
        preflight.fetch_weights(nodes)
    preflight.use_gpus(nodes)
    preflight.reach_wandb()
    for note in preflight.report.notes:
        say(f"note: {note}")
    return preflight.report


class _Preflight:
    """The checks of one study; what they find goes into the report."""

    def __init__(self, work: Work, stores: Mapping[int, Path]) -> None:
        self.report = Report()
        self._spec, self._folder = work.spec, work.folder
        self._stores = {work.place(path): node_checks.describe_store(str(path)) for path in stores.values()}

    def compare(self, nodes: list[Node]) -> list[Node]:
        """Asks nodes for what must be as it is here, and judges it; returns those that answered."""
        with folder_of_tokens(self._spec.url or self._folder) as (folder, unwritable):
            first = ask(nodes, node_checks.look, lambda node: (folder, node.node_id), ANSWER_S)
            nodes = self._answering(first)
            names = [DRIVER, *(node.node_id for node in nodes)]
            second = ask(nodes, node_checks.look_again, lambda _: (folder, names), ANSWER_S)
            unread = {DRIVER: node_checks.unread_tokens(folder, names)}
        nodes = self._answering(second)
        unread |= {node.node_id: second[node].value["unread"] for node in nodes}
        unwritten = {node.node_id: first[node].value["storage"] for node in nodes}
        if unwritable:  # which tells nothing of the nodes
            self.report.judge(_driver(), "storage", unwritable, "make it writable here, or set another storage")
        else:
            self._judge_storage(nodes, storage_problems(unwritten, unread))
        versions = node_checks.versions()
        for node in nodes:
            self._judge(node, first[node], second[node], versions)
        return nodes

    def open_stores(self, nodes: list[Node]) -> None:
        """Has every node open the packed stores; out of an object store, it copies them first, before any trial."""
        able = self._able(nodes)
        answers = ask(able, node_checks.describe_stores, lambda _: (list(self._stores),), FETCH_S)
        for node in able:
            found = answers[node].value or {}
            what = [different_store(place, self._stores[place], found[place]) for place in found]
            remedy = "look whether that node sees the driver's storage; a store that is removed is packed anew"
            self.report.judge(node.name, "data", answers[node].problem or "; ".join(filter(None, what)), remedy)

    def fetch_weights(self, nodes: list[Node]) -> None:
        """Has every node get the initial weights to hand."""
        trainings = [each.to_mapping() for each in initial_weights(self._spec) if each.weights != "none"]
        able = self._able(nodes) if trainings else []
        answers = ask(able, node_checks.fetch_weights, lambda _: (trainings,), FETCH_S)
        for node in able:
            what = answers[node].problem or answers[node].value
            self.report.judge(node.name, "weights", what, "put the file there, or let that node download it")

    def use_gpus(self, nodes: list[Node]) -> None:
        """Has every node's GPU multiply, in a task that holds what a trial would; busy ones show that they can."""
        share = self._spec.resources.gpus_per_trial
        if not share:
            return
        free = _free_gpus()
        able = self._able(nodes)
        idle = [node for node in able if free.get(node.node_id, 0.0) >= share]
        answers = ask(idle, node_checks.use_gpu, lambda _: (), ANSWER_S, num_gpus=share)
        remedy = "mend its driver or torch, or start its Ray with --num-gpus=0"
        for node in able:
            answer = answers.get(node)
            what = answer.problem or answer.value if answer else ""
            self.report.judge(node.name, "GPU", what, remedy, otherwise="ok" if answer else "busy")

    def reach_wandb(self) -> None:
        """Asks the W&B server for anything at all, from here: workers never speak to it."""
        is_online = self._spec.tracking.mode == "online"
        what = unreachable_wandb() if is_online else ""
        remedy = "check the network or WANDB_BASE_URL, or mirror later with --set tracking.mode=offline"
        self.report.judge(_driver(), "W&B", what, remedy, otherwise="ok" if is_online else "offline")

    def judge_memory(self, node: Node, free: float) -> None:
        """Judges the memory that is free there."""
        num_trials = self._num_trials(node)
        fitting = int(free / trial_bytes(self._spec))
        remedy = f"free some, or --set resources.max_concurrent={max(1, fitting)}"
        self.report.judge(node.name, "memory", too_little_memory(free, num_trials, self._spec), remedy)
        if note := slow_store(free, num_trials, self._spec, self._store_bytes):
            self.report.notes.append(f"{node.name}: {note}")

    def _able(self, nodes: list[Node]) -> list[Node]:
        """Those that have no problem so far: what another check would find there follows from it."""
        return [node for node in nodes if not self.report.failed(node.name)]

    def _answering(self, answers: Mapping[Node, Answer]) -> list[Node]:
        for node, answer in answers.items():
            remedy = "look at that node, or take it out of the cluster"
            self.report.judge(node.name, "answer", answer.problem, remedy)
        return [node for node, answer in answers.items() if not answer.problem]

    def _judge_storage(self, nodes: list[Node], problems: Mapping[str, str]) -> None:
        remedy = f"mount the driver's {self._folder.parent} there, or set storage to a URL such as s3://BUCKET/PREFIX"
        for node in nodes:
            self.report.judge(node.name, "storage", problems.get(node.node_id, ""), remedy)

    def _judge(self, node: Node, first: Answer, second: Answer, versions: Mapping[str, str]) -> None:
        """Judges all but the storage."""
        found = first.value
        self.report.judge(node.name, "versions", different_versions(versions, found["versions"]), SAME_CODE)
        copied = self._store_bytes if self._spec.url else 0
        disk = too_little_disk(found["free_disk"], self._num_trials(node), self._spec, copied)
        where = "where CANOPOINT_CACHE is" if self._spec.url else f"where {self._folder} is"
        self.report.judge(node.name, "disk", disk, f"free some {where}")
        self.judge_memory(node, found["free_memory"])
        clock = wrong_clock(second.value["time_s"], second.sent_s, second.received_s)
        self.report.judge(node.name, "clock", clock, "set it, as by starting chrony or systemd-timesyncd there")

    @property
    def _store_bytes(self) -> int:
        """Of all packed stores of the study."""
        return sum(sum(each.get("sizes", {}).values()) for each in self._stores.values())

    def _num_trials(self, node: Node) -> int:
        """Trials that may run there side by side."""
        fitting = num_fitting(self._spec.resources, node.resources)
        return min(fitting, self._spec.resources.max_concurrent or fitting)


def unreachable_wandb() -> str:
    """Why W&B's server gives no answer, whatever it may be; empty where it does."""
    address = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        # An opener of our own: that of `urlopen` keeps the proxies of its first use in this process.
        build_opener().open(Request(address, method="HEAD"), timeout=WANDB_S).close()
    except HTTPError:  # an answer nonetheless
        return ""
    except (OSError, ValueError) as error:
        return f"{address} does not answer ({getattr(error, 'reason', error)})"
    return ""


def _driver() -> str:
    """This process among the nodes of the report."""
    return f"{DRIVER} on {socket.gethostname()}"


def _free_gpus() -> dict[str, float]:
    """Node id -> GPUs that nobody uses now."""
    from ray._private.state import available_resources_per_node  # `ray.available_resources` adds the nodes up

    found = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {node: each.get("GPU", 0.0) for node, each in found.items()}
