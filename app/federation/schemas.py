"""Populations and rounds as they stand in requests and answers. Nothing here tells how many clients took part."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from app.answers import timestamp
from app.privacy.schemas import BudgetPut, Delta
from app.rounds.models import FederationRound, Population
from app.schemas import Name
from app.unfit import lenient
from engine.accounting import LEAST_NOISE, LEAST_RATE
from engine.aggregate import TensorShape
from engine.errors import Fault
from engine.federated import MEASURED
from engine.tensorfile import storable

MIN_CLIENTS_FLOOR = 10
FEW_CLIENTS = 1_500
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class PopulationCreate(BaseModel):
    """A federation to be made; nothing of it changes afterwards."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"name": "wards", "clients": 1000, "budget": {"epsilon": 8.0, "delta": 1e-5}}]},
    )

    # What else is right follows from the number of clients.
    stand_ins: ClassVar[Mapping[str, Any]] = {"clients": 10**9, "budget": {"epsilon": 1.0, "delta": 1e-300}}
    whatever: ClassVar[Mapping[str, frozenset[str]]] = {"clients": frozenset()}

    name: Name | None = Field(default=None, description="What people call it.")
    clients: Count = Field(description="The nominal number of clients: a public number, not a count.")
    unit: Literal["client"] = Field(default="client", description="What is protected: all that one client sends.")
    budget: BudgetPut = Field(description="The most that all rounds together may spend.")
    min_clients: Annotated[int, Field(strict=True, ge=MIN_CLIENTS_FLOOR, le=10**9)] = Field(
        default=MIN_CLIENTS_FLOOR, description="Updates that a round must have before it is closed."
    )


PopulationWanted = Annotated[PopulationCreate, lenient(lambda _: PopulationCreate)]


class PopulationShown(BaseModel):
    """A federation in answers, with what its rounds have spent and what is left."""

    id: str
    object: Literal["population"]
    name: str | None
    clients: int
    unit: str
    budget: dict[str, float]
    min_clients: int
    expected_clients: int | None
    spent: float | None
    left: float
    warnings: list[str]
    created_at: str


class Poisson(BaseModel):
    """The server draws each client by itself with this probability."""

    model_config = _FROZEN

    poisson: Annotated[Real, Field(ge=LEAST_RATE, le=1)]


Sampling: TypeAlias = Annotated[
    Annotated[Literal["none"], Tag("none")] | Annotated[Poisson, Tag("drawn")],
    Discriminator(lambda given: "drawn" if isinstance(given, Poisson | Mapping) else "none"),
]


class RoundCreate(BaseModel):
    """A round to be opened: the public numbers of its one release."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "population": "pop_01JZX0M5K2N8Q4R6T9V1W3Y5Z7",
                    "clip_norm": 0.5,
                    "noise_multiplier": 1.0,
                    "expected_clients": 20,
                }
            ]
        },
    )

    stand_ins: ClassVar[Mapping[str, Any]] = {"population": "pop_0", "clip_norm": 1.0, "expected_clients": 1}

    population: str = Field(min_length=1, max_length=64)
    base: str | None = Field(default=None, max_length=64, description="`art_...`: a checkpoint or an aggregate.")
    tensors: dict[str, TensorShape] | None = Field(
        default=None, min_length=1, max_length=10_000, description="Without a base; null: those of the first update."
    )
    format: Literal["delta", "weights"] = Field(default="delta", description="weights: measured from the base.")
    clip_norm: Annotated[Real, Field(gt=0, le=1e6)] = Field(description="L2 bound on one client's update.")
    noise_multiplier: Annotated[Real, Field(ge=LEAST_NOISE, le=1e3)] | None = None
    epsilon: Annotated[Real, Field(ge=0.1, le=20)] | None = Field(
        default=None, description="Of this release: in place of noise_multiplier."
    )
    delta: Delta | None = Field(default=None, description="null: the population's.")
    expected_clients: Count = Field(description="What the noisy sum is divided by, whoever came.")
    sampling: Sampling = "none"

    @field_validator("tensors")
    @classmethod
    def _storable(cls, tensors: dict[str, TensorShape] | None) -> dict[str, TensorShape] | None:
        for name in tensors or ():
            try:
                storable(name)
            except ValueError as error:
                detail = "a tensor's name is no text in UTF-8" if isinstance(error, UnicodeError) else str(error)
                told = {"remedy": "give the tensor another name"}
                raise PydanticCustomError("wrong_name", "{detail}", {"detail": detail, **told}) from error
        return tensors

    @property
    def sampling_rate(self) -> float:
        """The probability with which a client is drawn."""
        return 1.0 if isinstance(self.sampling, str) else self.sampling.poisson


RoundWanted = Annotated[RoundCreate, lenient(lambda _: RoundCreate)]


def relation_faults(sent: Mapping[str, Any]) -> list[Fault]:
    """What does not go together among the fields of a round as they were sent, be each of them right or not."""
    given = {name for name, value in sent.items() if value is not None}
    faults = []
    if len({"noise_multiplier", "epsilon"} & given) != 1:
        pointer = "/epsilon" if "epsilon" in given else "/noise_multiplier"
        detail = "noise_multiplier and epsilon follow from each other"
        faults.append(Fault(pointer, "one_of_two", detail, "give exactly one of them"))
    if {"base", "tensors"} <= given:
        faults.append(Fault("/tensors", "one_of_two", "the base says what the tensors are", "leave tensors out"))
    if sent.get("format") == "weights" and "base" not in given:
        remedy = "name a base, or send format delta"
        faults.append(Fault("/base", "missing_base", "weights are measured from a base", remedy))
    return faults


class RoundShown(BaseModel):
    """A round in answers."""

    id: str
    object: Literal["round"]
    population: str
    base: str | None
    format: str
    clip_norm: float
    noise_multiplier: float
    epsilon: float | None
    delta: float
    expected_clients: int
    sampling: str | dict[str, float]
    tensors: dict[str, Any] | None
    state: Literal["open", "closed"]
    job: str | None
    warnings: list[str]
    created_at: str
    closed_at: str | None
    links: dict[str, str]


class UpdateShown(BaseModel):
    """What a client is told of its update: that it is taken, and no more."""

    object: Literal["update"]
    round: str
    client: str
    sha256: str
    size_bytes: int


class CohortShown(BaseModel):
    """Whether a client was drawn for a round."""

    object: Literal["cohort"]
    round: str
    client: str
    drawn: bool


def population_json(
    population: Population, budget: Mapping[str, float | None], spent: float | None, left: float
) -> dict[str, Any]:
    """A population as it stands in answers."""
    return {
        "id": population.id,
        "object": "population",
        "name": population.name,
        "clients": population.clients,
        "unit": population.unit,
        "budget": budget,
        "min_clients": population.min_clients,
        "expected_clients": population.expected_clients,
        "spent": spent,
        "left": left,
        "warnings": few_clients(population.clients),
        "created_at": timestamp(population.created_at),
    }


def few_clients(clients: int) -> list[str]:
    """What is known of so few clients."""
    if clients >= FEW_CLIENTS:
        return []
    return [f"{clients} clients are few, so the noise weighs much: {MEASURED}"]


def round_json(one: FederationRound, epsilon: float | None, warnings: list[str]) -> dict[str, Any]:
    """A round as it stands in answers."""
    own = f"/v1/rounds/{one.id}"
    job = {"job": f"/v1/jobs/{one.job_id}"} if one.job_id is not None else {"close": f"{own}/close"}
    return {
        "id": one.id,
        "object": "round",
        "population": one.population_id,
        "base": one.base,
        "format": one.format,
        "clip_norm": one.clip_norm,
        "noise_multiplier": one.noise_multiplier,
        "epsilon": epsilon,
        "delta": one.delta,
        "expected_clients": one.expected_clients,
        "sampling": "none" if one.sampling_rate == 1 else {"poisson": one.sampling_rate},
        "tensors": one.tensors,
        "state": one.state,
        "job": one.job_id,
        "warnings": warnings,
        "created_at": timestamp(one.created_at),
        "closed_at": timestamp(one.closed_at),
        "links": {"self": own, **job},
    }
