"""Webhooks as they stand in requests and answers; a secret stands in the one answer that made it. Knows no rule."""

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

from app.answers import timestamp
from app.unfit import lenient
from app.webhooks.addresses import Refused, Target
from app.webhooks.models import PENDING, WebhookDelivery, WebhookEndpoint

PREFIX = "whsec_"
FEWEST_BYTES, MOST_BYTES = 16, 64
EventType = Literal[
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
]


def _callable(url: str) -> str:
    try:
        Target.of(url)
    except Refused as error:
        raise PydanticCustomError("webhook_url", "{detail}", {"detail": str(error), "remedy": error.remedy}) from None
    return url


def _signing(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        size = len(base64.b64decode(text.removeprefix(PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not text.startswith(PREFIX) or not FEWEST_BYTES <= size <= MOST_BYTES:
        # Never with the value: a refusal is logged and shown.
        raise PydanticCustomError(
            "webhook_secret",
            "the secret is not whsec_ with {fewest} to {most} bytes in base64 after it",
            {"fewest": FEWEST_BYTES, "most": MOST_BYTES, "remedy": "make one: echo whsec_$(openssl rand -base64 32)"},
        )
    return secret


Url = Annotated[str, AfterValidator(_callable), Field(max_length=2048, json_schema_extra={"format": "uri"})]
Secret = Annotated[SecretStr, AfterValidator(_signing)]


class JobWebhook(BaseModel):
    """Whom to tell of the end of one job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Url = Field(description="http or https, to a public address unless the operator allows private ones.")
    secret: Secret = Field(description="Signs what is sent: `whsec_` and 16 to 64 bytes in base64. Never shown again.")


class WebhookCreate(BaseModel):
    """An address to be told of every job of the tenant that ends in one of `events`; null: of all."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://example.org/hooks", "events": ["job.failed"]}]},
    )

    url: Url
    events: list[EventType] | None = Field(default=None, min_length=1, max_length=6)


Submission = Annotated[WebhookCreate, lenient(lambda _: WebhookCreate)]


class WebhookShown(BaseModel):
    """An endpoint in answers; `secret` only in the answer that made it."""

    id: str
    object: Literal["webhook"]
    url: str
    events: list[EventType] | None
    created_at: str
    secret: str | None = None


class AttemptShown(BaseModel):
    """One attempt: what the receiver answered, or why none came."""

    attempt: int
    at: str
    status_code: int | None
    error: str | None
    seconds: float


class DeliveryShown(BaseModel):
    """One event on its way to one endpoint; `id` is the `webhook-id` of every attempt."""

    id: str
    object: Literal["delivery"]
    webhook: str
    job: str
    type: EventType
    state: Literal["pending", "delivered", "failed"]
    next_try_at: str | None
    attempts: list[AttemptShown]
    created_at: str


def webhook_json(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """An endpoint without its secret."""
    return {
        "id": endpoint.id,
        "object": "webhook",
        "url": endpoint.url,
        "events": endpoint.events or None,
        "created_at": timestamp(endpoint.created_at),
    }


def delivery_json(delivery: WebhookDelivery) -> dict[str, Any]:
    """A delivery with the log of its attempts."""
    return {
        "id": delivery.id,
        "object": "delivery",
        "webhook": delivery.endpoint_id,
        "job": delivery.job_id,
        "type": delivery.type,
        "state": delivery.state,
        "next_try_at": timestamp(delivery.next_try) if delivery.state == PENDING else None,
        "attempts": delivery.log,
        "created_at": timestamp(delivery.created_at),
    }
