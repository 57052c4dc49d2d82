"""Files of pictures as arrays of one size, mode and scale. Knows neither models nor tasks."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from client.preprocess import eight_bits
from engine.errors import InvalidData

LOOKED_AT = 256
_RUN = 8  # neighbours that are looked at together: they are mostly stored together
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "F"}


def spread(count: int) -> list[int]:
    """Which of `count` rows are looked at: all of few, else runs from end to end, since files go class by class."""
    if count <= LOOKED_AT:
        return list(range(count))
    starts = np.linspace(0, count - _RUN, LOOKED_AT // _RUN).astype(int).tolist()
    return [start + step for start in starts for step in range(_RUN)]


@dataclass(frozen=True)
class Pictures:
    """How pictures become tensors: `size` (height, width), `mode` "L" or "RGB", mean and deviation a channel of 0 to 1.

    `resample` is Pillow's number of the way to another size.
    """

    size: tuple[int, int]
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = int(Image.Resampling.BILINEAR)

    @classmethod
    def of(cls, contents: Sequence[bytes], at_most: int | None = None) -> "Pictures":
        """By up to 256 pictures: the commonest size (scaled down to `at_most` pixels a side), their mean and deviation.

        Raises:
            InvalidData: where there are none.
        """
        pictures = [Image.open(io.BytesIO(content)) for content in contents[:LOOKED_AT]]
        if not pictures:
            raise InvalidData("there is no training picture", remedy="give the training split at least one row a class")
        (width, height), _ = Counter(picture.size for picture in pictures).most_common(1)[0]
        if at_most is not None and max(width, height) > at_most:
            shrink = at_most / max(width, height)
            width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        mode = "L" if all(picture.mode in _GREY_MODES for picture in pictures) else "RGB"
        raw = cls((height, width), mode, (), ())
        scaled = np.stack([raw._array(picture) for picture in pictures]) / 255.0
        mean, std = scaled.mean(axis=(0, 2, 3)), scaled.std(axis=(0, 2, 3))
        return cls(
            (height, width),
            mode,
            tuple(round(float(m), 6) for m in mean),
            tuple(round(max(float(s), 1e-3), 6) for s in std),
        )

    @property
    def channels(self) -> int:
        """One for grey pictures, three for coloured ones."""
        return len(self.mean)

    def pixels(self, content: bytes) -> npt.NDArray[np.uint8]:
        """The decoded picture, (channels, height, width) uint8."""
        return self._array(Image.open(io.BytesIO(content)))

    def normalised(self, pixels: Sequence[npt.NDArray[Any]]) -> Tensor:
        """`pixel_values` (batch, channels, height, width) fp32."""
        shape = (self.channels, 1, 1)
        stacked = np.stack(pixels) if len(pixels) else np.zeros((0, self.channels, *self.size), np.uint8)
        mean, std = torch.tensor(self.mean).view(shape), torch.tensor(self.std).view(shape)
        return (torch.from_numpy(stacked).float() / 255.0 - mean) / std

    def processor(self) -> Mapping[str, Any]:
        """The content of preprocessor_config.json, by Hugging Face's keys and `image_mode`."""
        return {
            "do_resize": True,
            "size": {"height": self.size[0], "width": self.size[1]},
            "resample": self.resample,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "image_mode": self.mode,
        }

    def _array(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        converted = eight_bits(picture).convert(self.mode)
        if converted.size != (self.size[1], self.size[0]):
            converted = converted.resize((self.size[1], self.size[0]), Image.Resampling(self.resample))
        pixels = np.asarray(converted, dtype=np.uint8)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()
