"""The command that screens inputs with a downloaded model. Knows no server."""

from pathlib import Path

from client import tables
from client.artifact import Input, Package
from client.commands import Session
from client.detector import Detector
from client.errors import ExitCode
from client.inference import is_file


def detect(session: Session) -> ExitCode:
    """Say which inputs look manipulated, by the detector that a downloaded model carries; no server is needed."""
    words = session.words
    package = Package(words.folder, threads=words.threads)
    pictured = package.task == "image_classification"
    inputs: list[Input] = [Path(word) if pictured or is_file(word) else word for word in words.input]
    found = Detector.read(package).screen(
        inputs, target_fpr=words.target_fpr, signals=words.signals, control=words.control
    )
    if session.json:
        session.print_json({"detections": [one.json() for one in found.detections], "summary": dict(found.summary)})
    else:
        tables.detections(session.out, words.input, found)
    return ExitCode.OK
