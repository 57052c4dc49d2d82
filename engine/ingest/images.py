"""Image classification: from a ZIP of CLASS/FILE or SPLIT/CLASS/FILE to rows with the file's bytes. Knows no texts."""

import hashlib
import zipfile
from pathlib import Path, PurePosixPath

import pyarrow as pa

from engine.ingest.canonical import Canonical
from engine.ingest.findings import SPLITS, Choices, Findings, InvalidRow, Limits, Unusable
from engine.ingest.pictures import content, members_of, opened, picture
from engine.ingest.tables import too_many_rows
from engine.ingest.unpack import too_large

SCHEMA = [
    ("id", pa.string()),
    ("image", pa.binary()),
    ("label", pa.int32()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("mode", pa.string()),
]


def ingest(kind: str, source: Path, out: Path, choices: Choices, limits: Limits, findings: Findings) -> Canonical:
    """Read every picture and note every fault; gives the rows that hold, not yet finished."""
    if kind != "zip":
        raise Unusable("unknown_format", f"image classification takes a ZIP, not {kind}", "upload a ZIP of CLASS/FILE")
    for role in choices.columns:
        detail = "a ZIP of images has folders, no columns"
        findings.file(Unusable("not_applicable", detail, "leave it out", pointer=f"/{role}_column"))
    with opened(source) as archive:
        members = list(members_of(archive, findings, "CLASS/FILE or SPLIT/CLASS/FILE"))
        if len(members) > limits.max_rows:
            raise too_many_rows(limits)
        places = _layout([PurePosixPath(member.filename).parts for _, member in members])
        schema = SCHEMA if not any(split for split, _ in places) else [*SCHEMA, ("split", pa.string())]
        rows = Canonical(out, pa.schema(schema), {"image": "the file", "label": "its folder"})
        try:
            _collect(rows, archive, members, places, limits, findings)
        except Unusable as fault:
            findings.file(fault)
    return rows


def _layout(paths: list[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Split ("" where there is none) and class of each member; a folder around all of them is looked through."""
    if not paths:
        raise Unusable("no_rows", "the ZIP holds no pictures", "put them in as CLASS/FILE")
    while len({path[0] for path in paths}) == 1 and all(len(path) >= 3 for path in paths) and paths[0][0] not in SPLITS:
        paths = [path[1:] for path in paths]
    depths = {len(path) for path in paths}
    if depths == {2}:
        return [("", path[0]) for path in paths]
    if depths == {3}:
        if unknown := sorted({path[0] for path in paths if path[0].lower() not in SPLITS}):
            detail = f"{', '.join(map(repr, unknown[:10]))} are no splits"
            raise Unusable("unknown_split", detail, "name the outer folders train, valid and test")
        return [(SPLITS[path[0].lower()], path[1]) for path in paths]
    odd = next("/".join(path) for path in paths if len(path) not in (2, 3) or len(path) != len(paths[0]))
    remedy = "lay the ZIP out as CLASS/FILE or as SPLIT/CLASS/FILE throughout"
    raise Unusable("bad_layout", f"member {odd[:200]!r} does not lie in the folder of a class", remedy)


def _collect(
    rows: Canonical,
    archive: zipfile.ZipFile,
    members: list[tuple[int, zipfile.ZipInfo]],
    places: list[tuple[str, str]],
    limits: Limits,
    findings: Findings,
) -> None:
    size = 0
    first: dict[PurePosixPath, int] = {}
    for (number, member), (split, label) in zip(members, places, strict=True):
        try:
            earlier = first.setdefault(PurePosixPath(member.filename), number)
            if earlier != number:
                detail = f"member {earlier} has this name already"
                raise InvalidRow("duplicate_member", detail, "give each picture a name of its own")
            found = content(archive, member, limits)
            size += len(found)
            if size > limits.max_bytes:
                raise too_large(limits.max_bytes)
            row = {**picture(found, limits), "id": hashlib.sha256(found).hexdigest()[:16]}
        except InvalidRow as fault:
            name = f"member {member.filename[:200]!r}: "
            findings.row(number, InvalidRow(fault.code, name + fault.detail, fault.remedy))
            continue
        rows.add({**row, "label": label, "split": split or None}, len(found))
