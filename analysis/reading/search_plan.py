"""What the runs of a study say of its search and confirmation, where its own files are not at hand.

Each run says what was declared, and what seeds had been added, when it was written: those of an early session know less
than later ones, so that the union counts. Runs may be anyone's: what they say is bounded.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from study.sections import Parameter, Section

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[list[Seed], Field(max_length=1000)]


class SearchPlan(Section):
    """A run's `config.plan`.

    Attributes:
        parameters: name -> its levels or range.
        confirm_seeds: those that were declared; none without confirmation.
        extensions: the seeds of each addition to them.
    """

    parameters: dict[str, Parameter] = Field(default_factory=dict)
    confirm_seeds: Seeds = Field(default_factory=list)
    extensions: list[Seeds] = Field(default_factory=list, max_length=1000)


def fits(section: object, model: type[BaseModel]) -> bool:
    """Whether what a run says in a section of its config is as the model has it."""
    try:
        model.model_validate(section)
    except ValidationError:
        return False
    return True


def merged_plan(configs: Iterable[Mapping[str, Any]]) -> SearchPlan | None:
    """What the runs with these configs say together; None where none says anything, as older ones."""
    said = {repr(config["plan"]): config["plan"] for config in configs if "plan" in config}
    plans = sorted(map(SearchPlan.model_validate, said.values()), key=lambda plan: -len(plan.extensions))
    if not plans:
        return None
    parameters: dict[str, Parameter] = {}
    for plan in plans:
        for name, parameter in plan.parameters.items():
            parameters[name] = _merged(parameters[name], parameter) if name in parameters else parameter
    return SearchPlan.model_construct(
        parameters=parameters,
        confirm_seeds=list(dict.fromkeys(seed for plan in plans for seed in plan.confirm_seeds)),
        extensions=[list(each) for each in dict.fromkeys(tuple(seeds) for plan in plans for seeds in plan.extensions)],
    )


def _merged(one: Parameter, other: Parameter) -> Parameter:
    """All levels of both; the whole of both ranges; of levels and a range, the range."""
    if one.values is not None and other.values is not None:
        return one.model_copy(update={"values": list(dict.fromkeys([*one.values, *other.values]))})
    ranges = [each for each in (one, other) if each.values is None]
    lows, highs = [each.min or 0 for each in ranges], [each.max or 0 for each in ranges]
    scale = "log" if all(each.scale == "log" for each in ranges) else "linear"
    return ranges[0].model_copy(update={"min": min(lows), "max": max(highs), "scale": scale})
