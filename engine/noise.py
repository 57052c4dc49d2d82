"""Randomness that nobody can repeat: draws of rows, and Gaussian noise on a grid. Knows no model, no seed and no run.

Whoever knows the noise can subtract it, and whoever knows which rows were drawn loses the amplification by sampling.
So both come from the operating system's generator, by way of a stream cipher under a key that is made for one use,
and nothing here is ever stored, returned or sent: there is no state that a snapshot could hold.

The analysis is of real numbers. The clipped sum and the noise are rounded to one grid before they are added, so that
the low bits of a float carry nothing (Mironov 2012); that rounding is paid for in the sensitivity. There is no formal
proof for floating-point training, and timing is not defended.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

Source: TypeAlias = Literal["os", "torch"]
Normal: TypeAlias = Callable[[int], Tensor]  # how many values: standard normal, (n,), fp32

# Pairs of values at a time: they stay in a processor's cache, and PyTorch works on so few values in one thread.
_BLOCK = 16_000
_GRID = 2.0**-20  # of the noise's standard deviation


class Stream:
    """Bits of AES-256 in counter mode under a key of its own; it refuses to be copied or stored."""

    def __init__(self) -> None:
        self._cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16))).encryptor()
        self._zeros = memoryview(bytes(12 * _BLOCK))
        self._bits = bytearray(12 * _BLOCK + 15)  # the cipher asks for room for a block less one byte

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Uniform words, (count,)."""
        found = np.empty(count, np.uint64)
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            self._draw(8 * size)
            found[start : start + size] = np.frombuffer(self._bits, np.uint64, size)
        return found

    def normal(self, count: int) -> Tensor:
        """Standard normal values, (count,), fp32: Box and Muller 1958, the radius from 53 bits, the angle from 32.

        By NumPy, in one thread: PyTorch's logarithm wakes the others for any size, which costs more than it saves.
        """
        found = np.empty(count + count % 2, np.float32)
        pairs = len(found) // 2
        for start in range(0, pairs, _BLOCK):
            size = min(_BLOCK, pairs - start)
            self._draw(12 * size)
            # Few bits would cut the tail off, where one of millions of values is looked for.
            long = (np.frombuffer(self._bits, np.int64, size) & (2**53 - 1)).astype(np.float64)
            long += 0.5
            long *= 2.0**-53
            radius = np.log(long, out=long).astype(np.float32)
            radius *= -2
            np.sqrt(radius, out=radius)
            angle = np.frombuffer(self._bits, np.int32, size, offset=8 * size).astype(np.float32)
            angle *= np.float32(2 * math.pi / 2**32)
            np.multiply(np.cos(angle), radius, out=found[start : start + size])
            np.multiply(np.sin(angle), radius, out=found[pairs + start : pairs + start + size])
        return torch.from_numpy(found[:count])

    def _draw(self, size: int) -> None:
        """Fill the first bytes of `_bits` anew."""
        self._cipher.update_into(self._zeros[:size], self._bits)

    def __reduce__(self) -> str:
        raise TypeError("secret randomness is not stored")


def drawn(rows: int, rate: float) -> npt.NDArray[np.int64]:
    """The numbers of the rows that a Poisson draw takes: each of `rows` by itself with probability `rate`."""
    if rate >= 1:
        return np.arange(rows)
    # Rounded down: a row is never likelier than the account says.
    return np.flatnonzero(Stream().words(rows) < np.uint64(math.floor(rate * 2.0**64)))


def coins(count: int) -> npt.NDArray[np.bool_]:
    """Fair coins, (count,)."""
    return (Stream().words(count) & np.uint64(1)).astype(np.bool_)


def source(name: Source) -> Normal:
    """Normal values for one use: of the cipher, or PyTorch's generator, which is faster and not cryptographic."""
    if name == "os":
        return Stream().normal
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(8), "big") >> 1)
    return lambda count: torch.randn(count, generator=generator)


def privatise(sums: Sequence[Tensor], bound: float, sigma: float, divisor: float, normal: Normal) -> None:
    """Replace sums whose joint L2 sensitivity is `bound` by (sum + noise) / divisor, in place.

    Noise has the standard deviation sigma times the sensitivity after rounding to the grid. Call it once a release.

    Args:
        sums: tensors of any shape, together one vector.
        divisor: fixed beforehand, never counted from the rows.
    """
    grid = 2.0 ** math.floor(math.log2(sigma * bound * _GRID))
    deviation = sigma * (bound + grid * math.sqrt(sum(one.numel() for one in sums)))
    for one in sums:
        flat = one.view(-1)
        for start in range(0, flat.numel(), 2 * _BLOCK):
            block = flat[start : start + 2 * _BLOCK]
            noise = _whole(normal(block.numel()).mul_(deviation / grid)).to(block.device)
            # Whole numbers of the grid, a power of two: their sum is exact until it outgrows the float's digits.
            _whole(block.div_(grid)).add_(noise).mul_(grid / divisor)


def _whole(values: Tensor) -> Tensor:
    """Round in place; on a processor by NumPy, for the reason that `normal` gives."""
    if values.device.type != "cpu":
        return values.round_()
    np.rint(values.numpy(), out=values.numpy())
    return values
