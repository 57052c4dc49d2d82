"""Every table of the service on one metadata, to hold the migrations against. Imports the whole of `app`'s models."""

from app import idempotency
from app.artifacts import models as artifacts
from app.auth import models as auth
from app.database import Base
from app.datasets import models as datasets
from app.jobs import models as jobs

MODULES = (artifacts, auth, datasets, idempotency, jobs)
METADATA = Base.metadata
