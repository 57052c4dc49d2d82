"""`fiftytwo submit`: check, upload, submit or only plan, and see it through. Knows no field of a spec."""

from pathlib import Path

from client import tables
from client.commands import Session, see_through, sent, upload_fields
from client.errors import ClientError, ExitCode
from client.http import Client, Json
from client.spec import check_all_but_data, spec_of


def submit(session: Session) -> ExitCode:
    """Upload the data if it is a file, submit a job, and with --wait see it through."""
    words = session.words
    spec, uploaded = spec_of(words), None
    with session.client() as client:
        if words.data and not words.data.startswith("ds_"):
            fields = upload_fields(session)
            check_all_but_data(client, spec)
            dataset = sent(session, client, Path(words.data), fields)
            spec["dataset"] = uploaded = dataset["id"]
            if words.dry_run:
                return _dry_run_of_file(session, client, spec, dataset["id"])
            session.say(f"uploaded {words.data} as {uploaded}: {dataset.get('rows')} rows")
        elif words.dry_run:
            return _dry_run(session, client, spec)
        try:
            job = client.post("/v1/jobs", spec)
        except ClientError as error:
            error.dataset = uploaded
            raise
        if words.wait or words.download:
            session.say(f"submitted {job['id']}")
            return see_through(session, client, job["id"], words.download)
    if session.json:
        session.print_json(job)
    session.say(f"submitted {job['id']} ({job['state']})\n  next: fiftytwo watch {job['id']}")
    return ExitCode.OK


def _dry_run(session: Session, client: Client, spec: Json) -> ExitCode:
    _show_plan(session, spec, client.post("/v1/jobs", spec, dry_run="true"))
    return ExitCode.OK


def _dry_run_of_file(session: Session, client: Client, spec: Json, dataset_id: str) -> ExitCode:
    """A plan needs the rows' number and columns, so the file was uploaded; it is erased again, whatever comes of it."""
    try:
        answer = client.post("/v1/jobs", spec, dry_run="true")
    except ClientError as error:
        error.dataset = _erased(client, dataset_id)
        raise
    except KeyboardInterrupt:
        _erased(client, dataset_id)
        raise
    kept = _erased(client, dataset_id)
    _show_plan(session, spec, {**answer, "dataset": kept})
    if kept is None:
        session.say("the data were uploaded for this plan alone and are erased again")
    else:
        session.say(f"the data set stays as {kept}: submit with --data {kept}, or fiftytwo datasets delete {kept}")
    return ExitCode.OK


def _show_plan(session: Session, spec: Json, answer: Json) -> None:
    if session.json:
        session.print_json(answer)
    else:
        tables.dry_run(session.out, answer, spec.get("instructions") or [])


def _erased(client: Client, dataset_id: str) -> str | None:
    """None once the data set is gone, else its id."""
    try:
        client.delete(f"/v1/datasets/{dataset_id}")
    except ClientError:
        return dataset_id
    return None
