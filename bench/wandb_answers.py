"""How our stand-in for W&B answers GraphQL, as the real client asks it (wandb 0.31, wandb-workspaces 0.4)."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.wandb_stored import StoredRun, as_json, now

Variables = Mapping[str, Any]


class UnknownRequestError(Exception):
    """Something that the client asks and we do not know."""


@dataclass
class Answers:
    """All runs, and the answer to each question.

    Attributes:
        entity: whose key it is; the entity of runs that name none.
        runs: by (entity, project, run id), in the order of their making.
        url: of the server, for uploads and exports.
        views: W&B reports, by id.
        exports: whether the history of ended runs is to be had as Parquet, as W&B exports it, or row by row.
    """

    entity: str
    url: str = ""
    exports: bool = False
    runs: dict[tuple[str, str, str], StoredRun] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, query: str, variables: Variables) -> dict[str, Any]:
        """The `data` of a GraphQL answer.

        Raises:
            UnknownRequestError: an operation that we do not know.
        """
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        name = found[1] if found else query[:80]
        if name not in _OPERATIONS:
            raise UnknownRequestError(f"{name} {dict(variables)}")
        return _OPERATIONS[name](self, variables)

    def find(self, variables: Variables, name: str = "name") -> StoredRun | None:
        """The run that is spoken of."""
        return self.runs.get((variables.get("entity") or self.entity, variables["project"], variables[name]))

    def _viewer(self, variables: Variables) -> dict[str, Any]:
        own = {"entity": self.entity, "username": "someone", "email": "someone@example.org", "flags": "{}"}
        return {"viewer": {**own, "id": "viewer", "teams": {"edges": [{"node": {"name": self.entity}}]}}}

    def _features(self, variables: Variables) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _resume_status(self, variables: Variables) -> dict[str, Any]:
        run = self.find(variables)
        if run is None:
            return {"model": {"name": variables["project"], "entity": {"name": self.entity}, "bucket": None}}
        tail = {"historyTail": json.dumps(run.lines[-1:]), "eventsTail": "[]"}
        counts = {"historyLineCount": len(run.lines), "logLineCount": 0, "eventsLineCount": 0}
        told = {"t": run.config.get("_wandb", {}).get("value", {}).get("t", {})}
        own = {"summaryMetrics": json.dumps(run.summary), "wandbConfig": json.dumps(told)}
        bucket = {**run.node(), **own, **tail, **counts}
        return {"model": {"name": run.project, "entity": {"name": run.entity}, "bucket": bucket}}

    def _upsert(self, variables: Variables) -> dict[str, Any]:
        entity, project = variables.get("entity") or self.entity, variables.get("project")
        name = variables.get("name") or str(variables.get("id", "")).removeprefix("id-")
        known = [run for run in self.runs.values() if run.name == name and project in (None, run.project)]
        run = known[0] if known else StoredRun(entity, str(project), name)
        self.runs.setdefault((run.entity, run.project, run.name), run)
        names = {"displayName": "display_name", "groupName": "group", "jobType": "job_type", "tags": "tags",
                 "notes": "notes"}  # fmt: skip
        for theirs, ours in names.items():
            if variables.get(theirs) is not None:
                setattr(run, ours, variables[theirs])
        for theirs, ours in (("config", "config"), ("summaryMetrics", "summary")):
            if variables.get(theirs) is not None:
                setattr(run, ours, json.loads(variables[theirs]))
        run.state, run.heartbeat_at = variables.get("state") or "running", now()
        place = {"id": "1", "name": run.project, "entity": {"id": "1", "name": run.entity}}
        return {"upsertBucket": {"bucket": {**run.node(), "project": place}, "inserted": not known}}

    def _create_files(self, variables: Variables) -> dict[str, Any]:
        place = f"{self.url}/storage/{variables['entity']}/{variables['project']}/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{place}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": f"id-{variables['run']}", "uploadHeaders": [], "files": files}}

    def _list_runs(self, variables: Variables) -> dict[str, Any]:
        """A page of the runs that fit the filters; `cursor` is the number of the first one."""
        place = (variables["entity"], variables["project"])
        own = [run for key, run in self.runs.items() if key[:2] == place]
        if not own:
            return {"project": None}
        filters = json.loads(variables.get("filters") or "{}")
        fitting = [run for run in own if _fits(run, filters)]
        first = int(variables.get("cursor") or 0)
        end = first + variables["perPage"]
        edges = [{"node": run.node(), "cursor": str(first + n + 1)} for n, run in enumerate(fitting[first:end])]
        page = {"endCursor": str(end), "hasNextPage": end < len(fitting)}
        runs = {"edges": edges, "pageInfo": page}
        return {"project": {"internalId": "1", "runCount": len(fitting), "readOnly": False, "runs": runs}}

    def _one_run(self, variables: Variables) -> dict[str, Any]:
        run = self.find(variables)
        return {"project": {"run": run.node() if run else None}}

    def _parquet_history(self, variables: Variables) -> dict[str, Any]:
        """Where the history is to be had: exported, or live from its first step on."""
        run = self.find(variables, "runName")
        if run is None:
            return {"project": {"run": None}}
        if self.exports and run.state != "running" and run.lines:
            found = {"parquetUrls": [f"{self.url}/exports/{run.entity}/{run.project}/{run.name}"], "liveData": []}
        else:
            found = {"parquetUrls": [], "liveData": [{"_step": row["_step"]} for row in run.rows()[:1]]}
        return {"project": {"run": {"parquetHistory": found}}}

    def _history_page(self, variables: Variables) -> dict[str, Any]:
        """The rows of a range of steps, `maxStep` not included."""
        run = self.find(variables, "run")
        steps = range(variables["minStep"], variables["maxStep"])
        rows = [json.dumps(as_json(row)) for row in run.rows() if row["_step"] in steps] if run else []
        return {"project": {"run": {"history": rows} if run else None}}

    def _project(self, variables: Variables) -> dict[str, Any]:
        return {"project": {"id": "1", "internalId": "1"}}

    def _projects(self, variables: Variables) -> dict[str, Any]:
        named = dict.fromkeys(key[1] for key in self.runs if key[0] == variables["entity"])
        own = {"__typename": "Project", "id": "1", "createdAt": now(), "isBenchmark": False, "user": None}
        nodes = [{**own, "name": name, "entityName": variables["entity"]} for name in named]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": node} for node in nodes], "pageInfo": page}}

    def _upsert_view(self, variables: Variables) -> dict[str, Any]:
        name = variables.get("id") or f"view-{len(self.views) + 1}"
        inserted = name not in self.views
        project = {"id": "1", "name": variables["projectName"], "entityName": variables["entityName"]}
        own = {key: variables.get(key) for key in ("type", "name", "displayName", "description", "spec")}
        self.views[name] = {**own, "id": name, "project": project, "updatedAt": now()}
        return {"upsertView": {"view": self.views[name], "inserted": inserted}}


_OPERATIONS: dict[str, Callable[[Answers, Variables], dict[str, Any]]] = {
    "Viewer": Answers._viewer,
    "ServerFeaturesQuery": Answers._features,
    "RunResumeStatus": Answers._resume_status,
    "UpsertBucket": Answers._upsert,
    "CreateRunFiles": Answers._create_files,
    "Runs": Answers._list_runs,
    "Run": Answers._one_run,
    "RunHistoryKeys": Answers._one_run,
    "RunParquetHistory": Answers._parquet_history,
    "HistoryPage": Answers._history_page,
    "ProjectInternalId": Answers._project,
    "GetProjects": Answers._projects,
    "upsertView": Answers._upsert_view,
}


def _fits(run: StoredRun, filters: Mapping[str, Any]) -> bool:
    """Whether a run fits filters of the kinds that our reader sends."""
    fields = {"group": [run.group], "state": [run.state], "tags": run.tags}
    for key, wanted in filters.items():
        if key == "$and":
            if not all(_fits(run, part) for part in wanted):
                return False
        elif key not in fields or not isinstance(wanted, str):
            raise UnknownRequestError(f"filter {key}={wanted}")
        elif wanted not in fields[key]:
            return False
    return True
