"""The panel's pages, a file each. `ROUTERS` is what `app.main` wires."""

from app.dashboard.pages import compare, experiment_new, experiments, job, job_builder, jobs, rate, sign_in, static

ROUTERS = (
    static.router,
    sign_in.router,
    jobs.router,
    job_builder.router,
    job.router,
    compare.router,
    experiment_new.router,
    experiments.router,
    rate.router,
)
