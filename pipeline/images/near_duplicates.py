"""Finds images that are nearly the same: perceptual hashes give candidates, small thumbnails confirm them.

Different images may share a hash, such as two calm seas. So the thumbnails of each candidate pair are compared, as a
whole and in detail, and images without contrast are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Thumbnails: TypeAlias = NDArray[np.uint8]  # (N, SIDE, SIDE), grey
IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]

SIDE = 32
# The standard deviation of a thumbnail, in grey levels. Below it the image is sky, sea or paper with noise.
CONTRAST = 6.0
# Measured on aerial and underwater photographs: turned copies at half the size and JPEG quality 30 to 50 have 0.9 and
# more, most copies at 0.3 of the size too; every pair of different files above 0.7 showed the same scene.
SIMILARITY = 0.8
# 63 bits in 7 bands of 9: two hashes that differ in at most 6 bits agree in a whole band, so no such pair is missed.
_BANDS, _BAND_BITS, _MOST_BITS = 7, 9, 6
_MOST_AT_ONCE = 2_000_000  # pairs in memory at a time
_COARSE = 4  # lowest frequencies per axis, which are not details


class NearPairs(NamedTuple):
    """P pairs of images, each once, the smaller row first.

    Attributes:
        first, second: (P,) rows, ascending.
        similarity: (P,) from SIMILARITY to 1, see `similarity_of`.
    """

    first: IntArray
    second: IntArray
    similarity: FloatArray


def thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) grey pixels, stretched to (SIDE, SIDE) by averaging areas."""
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def near_pairs(thumbnails: Thumbnails, *, turned: bool) -> NearPairs:
    """All pairs of nearly the same images, also in other sizes, qualities and aspect ratios.

    Args:
        thumbnails: (N, SIDE, SIDE); those with a standard deviation below CONTRAST are in no pair.
        turned: also find quarter turns and mirror images.
    """
    rows = np.flatnonzero(thumbnails.std(axis=(1, 2)) >= CONTRAST)
    kept = thumbnails[rows]
    hashes = _hashes(kept, turned=turned)  # (V, N)
    best: dict[tuple[int, int], float] = {}
    for turn, codes in enumerate(hashes):
        first, second = _candidates(hashes[0], codes)
        for start in range(0, len(first), 20_000):
            part = slice(start, start + 20_000)
            similarity = similarity_of(kept[first[part]], turn_thumbnails(kept[second[part]], turn))
            for i, j, value in zip(first[part].tolist(), second[part].tolist(), similarity.tolist(), strict=True):
                if value >= SIMILARITY:
                    best[i, j] = max(value, best.get((i, j), 0.0))
    pairs = np.array(sorted(best), np.int64).reshape(-1, 2)
    values = np.array([best[i, j] for i, j in pairs.tolist()], np.float32)
    return NearPairs(rows[pairs[:, 0]], rows[pairs[:, 1]], values)


def turn_thumbnails(thumbnails: Thumbnails, turn: int) -> Thumbnails:
    """(N, SIDE, SIDE) in one of the eight positions of a square: bit 0 mirrors, bit 1 flips, then bit 2 transposes."""
    turned = thumbnails[:, :, ::-1] if turn & 1 else thumbnails
    turned = turned[:, ::-1] if turn & 2 else turned
    return turned.transpose(0, 2, 1) if turn & 4 else turned


def similarity_of(ours: Thumbnails, theirs: Thumbnails) -> FloatArray:
    """(P,) the correlation of P pairs of thumbnails, or of their details where that is smaller.

    Details are thumbnails without the lowest frequencies: two different pictures of one horizon differ in them.
    """
    a, b = ours.astype(np.float32), theirs.astype(np.float32)
    return np.minimum(_correlation(a, b), _correlation(_details(a), _details(b)))


def _correlation(a: FloatArray, b: FloatArray) -> FloatArray:
    a, b = (x.reshape(len(x), -1) - x.mean(axis=(1, 2))[:, None] for x in (a, b))
    product = np.einsum("nd,nd->n", a, b)
    scale = np.sqrt(np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b))
    return np.asarray(product / np.maximum(scale, 1e-6), np.float32)


def _details(thumbnails: FloatArray) -> FloatArray:
    waves = _waves(_COARSE)
    project = waves.T @ waves
    return np.asarray(thumbnails - project @ thumbnails @ project, np.float32)


def _waves(count: int) -> FloatArray:
    """(count, SIDE) the first rows of the orthonormal discrete cosine transform (DCT-II)."""
    return np.asarray(cv2.dct(np.eye(SIDE, dtype=np.float32), flags=cv2.DCT_ROWS).T[:count], np.float32)


def _hashes(thumbnails: Thumbnails, *, turned: bool) -> NDArray[np.uint64]:
    """(V, N) perceptual hashes: the signs of the 8 x 8 lowest frequencies without the mean; V is 8 positions, or 1.

    Mirroring an image changes the sign of its odd frequencies, and transposing it transposes them, so one transform
    gives the hashes of all eight positions.
    """
    waves = _waves(8)
    coefficients = waves @ thumbnails.astype(np.float32) @ waves.T  # (N, 8 vertical, 8 horizontal)
    odd = np.where(np.arange(8) % 2, -1, 1).astype(np.float32)
    hashes = []
    for turn in range(8 if turned else 1):
        one = coefficients * odd if turn & 1 else coefficients
        one = one * odd[:, None] if turn & 2 else one
        one = one.transpose(0, 2, 1) if turn & 4 else one
        bits = (one.reshape(-1, 64)[:, 1:] > 0).astype(np.uint64)
        # Neighbouring frequencies go into different bands, so that all bands carry similar information.
        order = np.arange(63).reshape(_BAND_BITS, _BANDS).T.ravel()
        hashes.append(bits[:, order] @ (np.uint64(1) << np.arange(63, dtype=np.uint64)))
    return np.stack(hashes)


def _candidates(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> tuple[IntArray, IntArray]:
    """Rows i < j, each pair once, where `ours[i]` and `theirs[j]` differ in at most _MOST_BITS bits."""
    found = [np.empty(0, np.int64)]
    mask = np.uint64((1 << _BAND_BITS) - 1)
    for band in range(_BANDS):
        shift = np.uint64(band * _BAND_BITS)
        for i, j in _sharing((ours >> shift) & mask, (theirs >> shift) & mask):
            near = (i < j) & (np.bitwise_count(ours[i] ^ theirs[j]) <= _MOST_BITS)
            found.append(i[near] * len(ours) + j[near])
    codes = np.unique(np.concatenate(found))
    return codes // max(1, len(ours)), codes % max(1, len(ours))


def _sharing(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> Iterator[tuple[IntArray, IntArray]]:
    """Blocks of all (i, j) with ours[i] == theirs[j]."""
    order = np.argsort(ours, kind="stable")
    start = np.searchsorted(ours[order], theirs, side="left")
    counts = np.searchsorted(ours[order], theirs, side="right") - start
    ends = np.cumsum(counts)
    low = 0
    while low < len(theirs):
        done = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + _MOST_AT_ONCE)))
        block = counts[low:high]
        j = np.repeat(np.arange(low, low + len(block)), block)
        within = np.arange(len(j)) - np.repeat(np.cumsum(block) - block, block)
        yield order[start[j] + within], j
        low = high
