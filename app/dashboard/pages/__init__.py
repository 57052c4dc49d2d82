"""The panel's pages, a file each. `ROUTERS` is what `app.main` wires."""

from app.dashboard.pages import (
    compare,
    datasets,
    experiment_new,
    experiments,
    instructions,
    job,
    job_builder,
    jobs,
    keys,
    models,
    privacy,
    rate,
    reference,
    sign_in,
    static,
    webhooks,
)

ROUTERS = (
    static.router,
    sign_in.router,
    reference.router,
    jobs.router,
    job_builder.router,
    job.router,
    datasets.router,
    models.router,
    instructions.router,
    privacy.router,
    webhooks.router,
    keys.router,
    compare.router,
    experiment_new.router,
    experiments.router,
    rate.router,
)
