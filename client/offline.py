"""The commands that need a downloaded folder and no server: screen inputs, check the folder against its receipt."""

from dataclasses import asdict
from pathlib import Path

from client import account, tables
from client.artifact import Input, Package
from client.commands import Session
from client.detector import Detector
from client.errors import ExitCode
from client.inference import is_file
from client.verify import verify as checked


def detect(session: Session) -> ExitCode:
    """Say which inputs look manipulated, by the detector that a downloaded model carries; no server is needed."""
    words = session.words
    package = Package(words.folder, threads=words.threads)
    pictured = package.task == "image_classification"
    inputs: list[Input] = [Path(word) if pictured or is_file(word) else word for word in words.input]
    session.warn_of_files(package, words.input)
    found = Detector.read(package).screen(
        inputs, target_fpr=words.target_fpr, signals=words.signals, control=words.control
    )
    if session.json:
        session.print_json({"detections": [one.json() for one in found.detections], "summary": dict(found.summary)})
    else:
        tables.detections(session.out, words.input, found)
    return ExitCode.OK


def verify(session: Session) -> ExitCode:
    """Check a downloaded folder against its receipt: signature, every file, and with --data the score."""
    words = session.words
    pinned = words.receipt_key or account.pinned_key()
    found = checked(Path(words.folder), pinned, Path(words.data) if words.data else None)
    if session.json:
        session.print_json(asdict(found))
    session.say(f"{words.folder} is what its receipt says: {len(found.files)} files and the signature hold")
    if found.measured:
        session.say(
            "measured again: accuracy {accuracy} on {n} rows; the receipt says {claimed}".format(**found.measured)
        )
    if not found.pinned:
        session.say("unpinned: the key came with the file\n  next: fiftytwo login, or verify with --key")
    return ExitCode.OK
