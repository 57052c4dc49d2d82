"""The one reader of an exported model: a downloaded folder or its ZIP in, logits and predictions out.

`fiftytwo predict` and the engine's evaluation both read through this, so a score in a receipt is what a user gets.
Knows files, ONNX Runtime and tokenizers; knows neither torch nor the server.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image, UnidentifiedImageError
from tokenizers import Encoding, Tokenizer

from client.archive import unpacked
from client.canonical import canonical_text
from client.errors import BadPackage, BadUsage
from client.preprocess import image_array, normalize_text, sized_image

Input = str | bytes | Path | tuple["str | Path", "bytes | Path"]
"""A text, a picture, or a pair of the two; a path is read."""
Feeds = dict[str, npt.NDArray[Any]]

# Every entry that `preprocess` may hold, by name: (text, parameters) -> text.
_TEXT_STEPS: Mapping[str, Callable[..., str]] = {"text_normalization": normalize_text, "canonical_text": canonical_text}
_OUTPUTS = {"text_image_pairs": ["text_embeds", "image_embeds"]}
_RANKS = "fiftytwo predict FOLDER PICTURE... TEXT... ranks the texts for each picture"


@dataclass(frozen=True)
class Prediction:
    """An answer: the winning label, and the score (softmax, sums to 1) of every label."""

    label: str
    scores: Mapping[str, float]

    @property
    def score(self) -> float:
        """The winning label's score."""
        return self.scores[self.label]


class Package:
    """An exported model, ready to answer.

    Args:
        source: the folder that `model.zip` was unpacked into, or the ZIP itself.
        threads: processor threads of ONNX Runtime.

    Raises:
        BadPackage: a file is missing or malformed, or the package needs a newer client.
    """

    def __init__(self, source: Path | str, *, threads: int = 1) -> None:
        self.folder = unpacked(self, Path(source))
        self.config: dict[str, Any] = _read_json(self.folder, "config.json", dict)
        self.labels = [str(label) for label in _read_json(self.folder, "labels.json", list)]
        self.task = str(self.config.get("task"))
        if (self.folder / "adapter_config.json").is_file():
            how = "MODEL_CARD.md shows how PEFT loads it; the artifact `checkpoint` is the whole model"
            raise BadPackage(f"{self.folder} holds an adapter, which does not run without its base", remedy=how)
        if self.task == "causal_lm":
            how = f"AutoModelForCausalLM.from_pretrained({str(self.folder)!r}) of transformers; a gguf: ollama create"
            raise BadPackage(f"{self.folder} holds a language model, which this client does not run", remedy=how)
        if self.task not in _READERS:
            raise BadPackage(
                f"the model in {self.folder} is of the task {self.task!r}; this client reads {', '.join(_READERS)}",
                remedy="install the newest client: pip install --upgrade fiftytwo",
            )
        self._feeds = _reader(self.task, self.folder, self.config)
        self._session = open_session(self.folder / "model.onnx", threads)
        self.threads = threads

    def batches(self, inputs: Sequence[Input], batch_size: int = 32) -> Iterator[npt.NDArray[np.float32]]:
        """The logits of `inputs`, (rows, labels) a batch, in order."""
        for start in range(0, len(inputs), batch_size):
            yield self.answer(self.feeds(inputs[start : start + batch_size]))

    @property
    def texts(self) -> "_TextReader":
        """What turns texts into tokens."""
        if not isinstance(self._feeds, _TextReader):
            raise BadUsage(f"a model of {self.task} has no tokens alone", remedy="give a model that reads texts")
        return self._feeds

    @property
    def pictures(self) -> "_ImageReader":
        """What turns pictures into arrays."""
        if not isinstance(self._feeds, _ImageReader):
            raise BadUsage(f"a model of {self.task} has no pictures alone", remedy="give a model of pictures")
        return self._feeds

    def feeds(self, inputs: Sequence[Input]) -> Feeds:
        """What the file is fed for one batch of inputs, by name."""
        return self._feeds(inputs)

    def answer(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """The logits of one batch, (rows, labels); of pairs both embeddings side by side, (rows, 2 dimensions)."""
        return np.asarray(np.concatenate(self._run(feeds), axis=1), dtype=np.float32)

    def _run(self, feeds: Feeds) -> list[npt.NDArray[np.float32]]:
        return list(self._session.run(_OUTPUTS.get(self.task, ["logits"]), feeds))

    def answers(self, inputs: Sequence[Input], batch_size: int = 32) -> npt.NDArray[np.float32]:
        """The logits of every input, (rows, labels).

        Args:
            inputs: texts (a path is read as one text), or pictures as paths or as the bytes of an image file.
            batch_size: rows a run; each batch is padded to its longest text.
        """
        parts = list(self.batches(inputs, batch_size))
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), dtype=np.float32)

    def predict(self, inputs: Sequence[Input], batch_size: int = 32) -> list[Prediction]:
        """The label and the score of every label, for every input."""
        if self.task == "text_image_pairs":
            raise BadUsage("a model of pairs gives no labels", remedy=_RANKS)
        scores = softmax(self.answers(inputs, batch_size).astype(np.float64))
        return [
            Prediction(self.labels[int(row.argmax())], dict(zip(self.labels, row.tolist(), strict=True)))
            for row in scores
        ]

    def rank(self, pictures: Sequence[Input], texts: Sequence[Input]) -> list[Prediction]:
        """For every picture the text that goes best with it, and a score of every text; for a model of pairs.

        Scores are a softmax over these texts at the temperature that was learned: they say which, not whether.
        """
        reader = self._feeds
        if not isinstance(reader, _PairReader) or not pictures or not texts:
            raise BadUsage("texts are ranked for pictures by a model of pairs, given some of both", remedy=_RANKS)
        read = list(dict.fromkeys(read_text(text) for text in texts))
        text, image = self._run({**reader.text(read), **reader.image(pictures)})
        scale = np.exp(float(self.config.get("logit_scale", 0.0)))
        scores = softmax(scale * (image.astype(np.float64) @ text.astype(np.float64).T))
        return [Prediction(read[int(row.argmax())], dict(zip(read, row.tolist(), strict=True))) for row in scores]


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores along the last axis that sum to 1."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def read_text(one: Input) -> str:
    """A text as given, as UTF-8 bytes, or as the whole content of a UTF-8 file."""
    try:
        if isinstance(one, Path):
            return one.read_text(encoding="utf-8-sig")
        if isinstance(one, tuple):
            raise BadUsage("a pair is no text", remedy="give the text alone")
        return (one if isinstance(one, bytes) else one.encode("utf-8")).decode("utf-8")  # a shell makes surrogates
    except UnicodeError as error:
        raise BadUsage(f"the input is not UTF-8: {error}", remedy="save the text as UTF-8") from error
    except OSError as error:
        raise BadUsage(f"cannot read the input: {error}", remedy="check the path") from error


def replay(steps: Sequence[Mapping[str, Any]], text: str) -> str:
    """Do to a text what training did to every text: the steps of `preprocess`, in order."""
    for step in steps:
        text = _TEXT_STEPS[step["name"]](text, **step.get("parameters", {}))
    return text


def check_steps(steps: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a `preprocess` list that this client cannot replay exactly.

    Raises:
        BadPackage: an unknown step, or a parameter that the step does not know.
    """
    for step in steps:
        name = step.get("name")
        try:
            replay([step], "probe")
        except (KeyError, TypeError, ValueError) as error:
            raise BadPackage(
                f"the model replays {name!r} with {step.get('parameters')}, which this client does not know",
                remedy="this model was made by a newer server: pip install --upgrade fiftytwo",
            ) from error


class _TextReader:
    """Texts to `input_ids` and `attention_mask`, (rows, tokens) int64."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.steps = config.get("preprocess") or []
        check_steps(self.steps)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise BadPackage(f"{folder} has no tokenizer.json", remedy="download the model again")
        self.tokenizer = Tokenizer.from_file(str(path))
        padding = self.tokenizer.padding or {}
        pad_id = int(padding.get("pad_id", config.get("pad_token_id") or 0))
        pad_token = padding.get("pad_token") or self.tokenizer.id_to_token(pad_id) or "[PAD]"
        # The file may carry a fixed length from the base model; a batch is padded to its own longest row.
        self.tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, length=None)
        self.tokenizer.enable_truncation(max_length=int(config["max_length"]))

    def __call__(self, inputs: Sequence[Input]) -> Feeds:
        rows = self.encode(inputs)
        return {
            "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
        }

    def encode(self, inputs: Sequence[Input]) -> list[Encoding]:
        """The tokens of texts, cut and padded as the file is fed them."""
        return list(self.tokenizer.encode_batch([replay(self.steps, read_text(one)) for one in inputs]))


class _ImageReader:
    """Image files to `pixel_values`, (rows, channels, height, width) float32."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        for step in config.get("preprocess") or []:
            raise BadPackage(
                f"the model replays {step.get('name')!r} on pictures, which this client does not know",
                remedy="this model was made by a newer server: pip install --upgrade fiftytwo",
            )
        self.processor: dict[str, Any] = _read_json(folder, "preprocessor_config.json", dict)
        self.array(sized_image(Image.new("RGB", (8, 8)), self.processor))  # a wrong one is noticed here

    def __call__(self, inputs: Sequence[Input]) -> Feeds:
        return {"pixel_values": np.stack([self.array(self.picture(one)) for one in inputs])}

    def picture(self, one: Input) -> Image.Image:
        """A picture in the mode and the size that the model takes."""
        if isinstance(one, tuple):
            raise BadUsage("a pair is no picture", remedy="give the picture alone")
        try:
            with Image.open(BytesIO(one) if isinstance(one, bytes) else one) as image:
                return sized_image(image, self.processor).copy()  # read while the file is open
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
            name = "the input" if isinstance(one, bytes) else str(one)
            raise BadUsage(f"cannot read {name} as a picture: {error}", remedy="give a PNG or JPEG file") from error

    def array(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """(channels, height, width), as the file is fed it."""
        return image_array(picture, self.processor)


class _PairReader:
    """Pairs of a text and a picture to the inputs of both towers."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.text = _TextReader(folder, config)
        self.image = _ImageReader(folder, {})  # what is replayed is done to texts

    def __call__(self, inputs: Sequence[Input]) -> Feeds:
        pairs = [one for one in inputs if isinstance(one, tuple)]
        if len(pairs) < len(inputs):
            raise BadUsage("a model of pairs takes texts with pictures", remedy=_RANKS)
        return {**self.text([text for text, _ in pairs]), **self.image([picture for _, picture in pairs])}


_READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Callable[[Sequence[Input]], Feeds]]] = {
    "text_classification": _TextReader,
    "image_classification": _ImageReader,
    "text_image_pairs": _PairReader,
}


def _reader(task: str, folder: Path, config: Mapping[str, Any]) -> Callable[[Sequence[Input]], Feeds]:
    """What turns inputs into what the file is fed; raises BadPackage where its files are no such thing."""
    try:
        return _READERS[task](folder, config)
    except BadPackage:
        raise
    except Exception as error:  # tokenizers raises Exception itself, and a wrong configuration raises any kind
        raise BadPackage(f"{folder} is malformed: {error!r}", remedy="download the model again") from error


def _read_json(folder: Path, name: str, kind: type) -> Any:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadPackage(f"{folder} has no readable {name}: {error}", remedy="download the model again") from error
    if not isinstance(content, kind):
        raise BadPackage(f"{folder / name} is not a JSON {kind.__name__}", remedy="download the model again")
    return content


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime's reader of one file, on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads look busy to every other process of the machine and to a measurement of processor time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own kinds, which share no base but Exception
        raise BadPackage(f"ONNX Runtime cannot load {path}: {error}", remedy="download the model again") from error
