"""Every table of the service on one metadata, to hold the migrations against. Imports the whole of `app`'s models."""

from app import erasure, idempotency
from app.artifacts import models as artifacts
from app.auth import models as auth
from app.dashboard import models as dashboard
from app.database import Base
from app.datasets import models as datasets
from app.experiments import models as experiments
from app.jobs import models as jobs
from app.openai_tables import models as openai
from app.privacy import models as privacy
from app.rounds import models as rounds
from app.webhooks import models as webhooks

MODULES = (
    artifacts,
    auth,
    dashboard,
    datasets,
    erasure,
    experiments,
    idempotency,
    jobs,
    openai,
    privacy,
    rounds,
    webhooks,
)
METADATA = Base.metadata
