"""A text and a picture that belong together, found from each other. Knows two dual encoders; knows no instruction."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, ResNetConfig, ResNetModel

from engine.archive import SHAPES, load_checkpoint
from engine.contrastive import MOST_LOG_SCALE
from engine.errors import InvalidData
from engine.models import Base
from engine.pair_encoder import PairEncoder, PairEncoderConfig
from engine.pictures import Pictures, spread
from engine.ports import Batch, Cost, Example, Pair, Payload, Samples
from engine.resnets import resnet_config
from engine.rows import Rows
from engine.tasks.encoder_vocabulary import EncoderVocabulary
from engine.tasks.retrieval import Retrieval

_INPUTS = ("input_ids", "attention_mask", "pixel_values")
_LARGEST, _SMALLEST = 64, 8
_CAPTION_TOKENS = 16
# What the pictures of CLIP were normalised by (Radford et al. 2021), for a folder that does not say.
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class _Exportable(nn.Module):
    """The two towers as a function of three tensors; nothing crosses between them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Both embeddings, (texts, dimension) and (pictures, dimension)."""
        said = self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
        return said.text_embeds, said.image_embeds


class TextImagePairs(EncoderVocabulary, Retrieval):
    """A dual encoder trained by contrast: a pair's own text against the other texts of its batch, and pictures alike.

    The negatives of a row are the rows of its own chunk, so a window of several chunks (gradient accumulation) makes
    the gradient smoother and not the task harder; `training.batch_size` alone says how many there are. The text tower
    of `pair-encoder` is pretrained and stays as it is: what it knows would not survive the rate that a picture tower
    from scratch needs (Zhai et al. 2022, LiT, the other way round). A CLIP folder trains as a whole.
    """

    name: ClassVar[str] = "text_image_pairs"
    default_model: ClassVar[str] = "pair-encoder"

    def __init__(self, base: Base, max_length: int, pictures: Pictures) -> None:
        self.folder = _folder(base)
        self.pretrained = base.pretrained
        self.pictures = pictures
        self.config = _config(self.folder, pictures.channels)
        text: Any = self.config.text_config
        self.max_length = min(max_length, int(text.max_position_embeddings))
        self.use(Tokenizer.from_file(str(self.folder / "tokenizer.json")))

    @classmethod
    def open(cls, base: Base, labels: Sequence[str], rows: Rows, max_length: int) -> "TextImagePairs":
        """Take the pictures' size and statistics from training rows, or from a CLIP folder."""
        if base.pretrained:
            return cls(base, max_length, _pictures(_folder(base)))
        train = rows.where("train")
        pictures = Pictures.of([_pair(train.payloads[i]).image for i in spread(len(train))], _LARGEST)
        if min(pictures.size) < _SMALLEST:
            height, width = pictures.size
            raise InvalidData(
                f"{base.name} takes pictures of at least {_SMALLEST} pixels a side; these are {width} x {height}",
                remedy="enlarge the pictures, or choose a CLIP folder",
            )
        return cls(base, max_length, pictures)

    @classmethod
    def reopen(cls, folder: Path) -> "TextImagePairs":
        """The task of a checkpoint's folder; `build` then gives its weights, in its own shapes."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(Base(folder.name, folder), int(config["max_length"]), _pictures(folder))

    @classmethod
    def cost(cls, base: Base, max_length: int) -> Cost:
        """For a caption of 16 tokens and a picture of CLIP's size or, in colour, of 64 pixels; no weights are read."""
        folder, tokens = _folder(base), max(1, min(max_length, _CAPTION_TOKENS))
        config = _config(folder, 3)
        with torch.device("meta"):
            if isinstance(config, CLIPConfig):
                clip = CLIPModel(config)
                vision: Any = config.vision_config
                patches = (vision.image_size // vision.patch_size) ** 2 + 1
                seen = 2.0 * _multiplied(clip.vision_model) * patches
                read = 2.0 * _multiplied(clip.text_model) * tokens
                return Cost(_weights(clip), read + seen, int((read + seen) / 100))
            text = BertModel(config.text_config, add_pooling_layer=False)
            vision = ResNetModel(config.vision_config).eval()
            with FlopCounterMode(display=False) as counted, torch.no_grad():
                vision(pixel_values=torch.empty(1, 3, _LARGEST, _LARGEST))
        seen = float(counted.get_total_flops())
        # The text tower only goes forward: a third of what the estimate takes a row to cost in training.
        return Cost(_weights(text) + _weights(vision), seen + 2.0 * _multiplied(text) * tokens / 3, int(seen / 100))

    def build(self) -> nn.Module:
        """A CLIP model in fp32, or the text tower, held still, beside the picture's parts; of a checkpoint, its own."""
        config = copy.deepcopy(self.config)
        files: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
        if isinstance(config, CLIPConfig):
            if (self.folder / SHAPES).is_file():
                return load_checkpoint(self.folder, CLIPModel(config))
            clip: nn.Module = CLIPModel.from_pretrained(self.folder, config=config, **files)
            return clip
        model = PairEncoder(config)
        if config.projection_dim:
            load_checkpoint(self.folder, model)
        else:
            model.text_model = BertModel.from_pretrained(
                self.folder, config=config.text_config, add_pooling_layer=False, **files
            )
        model.text_model.requires_grad_(False)
        return model

    def encode(self, payloads: Sequence[Payload]) -> list[Example]:
        """(2,) of object: unpadded token ids (length,) int32, and pixels (channels, height, width) uint8."""
        pairs = [_pair(payload) for payload in payloads]
        examples = []
        for encoding, pair in zip(self.tokenizer.encode_batch_fast([one.text for one in pairs]), pairs, strict=True):
            example = np.empty(2, dtype=object)
            example[0], example[1] = np.array(encoding.ids, dtype=np.int32), self.pictures.pixels(pair.image)
            examples.append(example)
        return examples

    def read(self, example: Example) -> Sequence[int]:
        """The token ids of a pair's text."""
        found: list[int] = example[0].tolist()
        return found

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """Tokens of each text, (n,); all pictures cost the same."""
        return np.array([len(example[0]) for example in examples], dtype=np.int64)

    def collate(self, examples: Sequence[Example], labels: Sequence[int]) -> Batch:
        """`input_ids`, `attention_mask` (batch, longest) int64, `pixel_values` (batch, channels, height, width) fp32.

        `labels` (batch, 2) int64 are equal where the token ids are, and beside them where the pixels are: the number of
        the first such row of the batch.
        """
        longest = max((len(example[0]) for example in examples), default=1)
        ids = np.full((len(examples), longest), self.pad, dtype=np.int64)
        mask = np.zeros((len(examples), longest), dtype=np.int64)
        said: dict[bytes, int] = {}
        shown: dict[bytes, int] = {}
        alike = np.zeros((len(examples), 2), dtype=np.int64)
        for row, (tokens, pixels) in enumerate(examples):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
            alike[row] = said.setdefault(tokens.tobytes(), row), shown.setdefault(pixels.tobytes(), row)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "pixel_values": self.pictures.normalised([example[1] for example in examples]),
            "labels": torch.from_numpy(alike),
        }

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Text and picture embeddings side by side and the inverse temperature behind them, (batch, 2d + 1)."""
        said = model(**{name: batch[name] for name in _INPUTS})
        scale = model.get_parameter("logit_scale").float().clamp(max=MOST_LOG_SCALE).exp()
        column = scale.expand(len(batch["labels"]), 1)
        return torch.cat([said.text_embeds.float(), said.image_embeds.float(), column], dim=1)

    def exportable(self, model: nn.Module) -> nn.Module:
        """Both towers with plain attention, whose graph has no guards against empty rows."""
        attentive = model if isinstance(self.config, CLIPConfig) else model.get_submodule("text_model")
        attentive.set_attn_implementation("eager")  # type: ignore[operator]  # a method of every transformers model
        return _Exportable(model).eval()

    def samples(self, payloads: Sequence[Payload]) -> Samples:
        """The texts, and one picture more than texts: as many of the one as wanted go with as many of the other."""
        batch = self.collate(self.encode(payloads), [0] * len(payloads))
        pixels = torch.cat([batch["pixel_values"], batch["pixel_values"][:1]])
        free = {0: "batch", 1: "sequence"}
        return Samples(
            {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "pixel_values": pixels},
            {"input_ids": free, "attention_mask": free, "pixel_values": {0: "pictures"}},
            ("text_embeds", "image_embeds"),
        )

    def describe(self, folder: Path, model: nn.Module, preprocess: Sequence[Mapping[str, Any]]) -> None:
        """config.json, labels.json (none), tokenizer.json and preprocessor_config.json."""
        config = vars(model)["config"]
        own_kind = isinstance(config, PairEncoderConfig)
        content = config.to_json() if own_kind else json.loads(config.to_json_string(use_diff=True))
        own = {
            "task": self.name,
            "max_length": self.max_length,
            "preprocess": list(preprocess),
            "pad_token_id": self.pad,
            "logit_scale": round(float(model.get_parameter("logit_scale").detach().clamp(max=MOST_LOG_SCALE)), 6),
        }
        (folder / "config.json").write_text(json.dumps({**content, **own}, indent=2))
        (folder / "labels.json").write_text("[]")
        (folder / "preprocessor_config.json").write_text(json.dumps(self.pictures.processor(), indent=2))
        self.tokenizer.save(str(folder / "tokenizer.json"))


def _folder(base: Base) -> Path:
    if base.folder is None:
        raise InvalidData(f"{base.name} reads no text", remedy="choose pair-encoder or a folder in CLIP's layout")
    return base.folder


def _vision(channels: int) -> ResNetConfig:
    """resnet-small with one block a stage: on a thousand pairs two take twice as long and find no more."""
    config = resnet_config("resnet-small", channels)
    config.depths = [1 for _ in config.depths or ()]
    return config


def _pair(payload: Payload) -> Pair:
    if not isinstance(payload, Pair):
        raise TypeError("a row of pairs comes as a text with a picture")
    return payload


def _pictures(folder: Path) -> Pictures:
    """As preprocessor_config.json has it; a picture that CLIP would cut to a square is scaled to it."""
    path = folder / "preprocessor_config.json"
    about = json.loads(path.read_text()) if path.is_file() else {}
    if "image_mode" in about:  # a checkpoint of ours
        size = (int(about["size"]["height"]), int(about["size"]["width"]))
    else:
        side = int(json.loads((folder / "config.json").read_text())["vision_config"]["image_size"])
        size = (side, side)
    mean, std = about.get("image_mean", _CLIP_MEAN), about.get("image_std", _CLIP_STD)
    resample = int(about.get("resample", Image.Resampling.BICUBIC))
    return Pictures(size, about.get("image_mode", "RGB"), tuple(mean), tuple(std), resample)


def _config(folder: Path, channels: int) -> PairEncoderConfig | CLIPConfig:
    """Of a CLIP folder or a checkpoint its own; of a BERT's, with the small net for pictures beside it."""
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind == "clip":
        return CLIPConfig.from_pretrained(folder)
    if kind == "pair_encoder":
        return PairEncoderConfig.from_pretrained(folder)
    return PairEncoderConfig(BertConfig.from_pretrained(folder), _vision(channels))


def _weights(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _multiplied(model: nn.Module) -> int:
    """Weights that every token meets: all but the embeddings'."""
    embedded = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding))
    return _weights(model) - embedded
