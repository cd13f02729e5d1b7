"""Keyed permutations: any element of a shuffled range by itself, without storing the shuffle.

One decision: a Feistel network over the smallest power of two that holds the range, walked until it lands inside ("cycle
walking"; Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Fewer than two steps per element on average, no
memory, and the same result on every machine and NumPy version: the order of a run is part of its identity, so the golden
vectors in the tests may change only together with VERSION.

Costs about 1 us per element (six rounds of 64-bit mixing in NumPy); nothing is stored.
"""

import numpy as np

VERSION = 1
_NUM_ROUNDS = 6  # even, so that halves of unequal width end where they began
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the increment of splitmix64 (Steele et al. 2014)


def mix(values: np.ndarray | int) -> np.ndarray:
    """splitmix64's finaliser: uint64 in, well-mixed uint64 out (Steele, Lea, Flood 2014)."""
    z = np.asarray(values, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is the point
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def derive_key(seed: int, *parts: np.ndarray | int) -> np.ndarray:
    """A uint64 key from a seed and any number of integers (or broadcastable integer arrays)."""
    key = mix(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) ^ _GOLDEN)
    with np.errstate(over="ignore"):
        for part in parts:
            key = mix(key * _GOLDEN + np.asarray(part).astype(np.uint64) + np.uint64(1))
    return key


def permute(values: np.ndarray, size: int, key: np.ndarray | int) -> np.ndarray:
    """Where each of `values` (int, in [0, size)) goes in the permutation of range(size) named by `key`.

    `key` is a uint64 or an array of them, one per value (each key is a permutation of its own). Returns int64, same shape.
    """
    walked = np.array(values, dtype=np.uint64)
    if size <= 1:
        return walked.astype(np.int64)
    keys = np.broadcast_to(np.asarray(key, dtype=np.uint64), walked.shape)
    outside = np.arange(walked.size)
    flat, flat_keys = walked.reshape(-1), keys.reshape(-1)
    while outside.size:
        flat[outside] = _feistel(flat[outside], size, flat_keys[outside])
        outside = outside[flat[outside] >= np.uint64(size)]
    return walked.astype(np.int64)


def _feistel(values: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of [0, 2**bits), the smallest power of two that holds `size` (at least 4)."""
    bits = max(2, (size - 1).bit_length())
    left_bits, right_bits = bits // 2, bits - bits // 2
    round_numbers = np.arange(_NUM_ROUNDS, dtype=np.uint64)
    left = values >> np.uint64(right_bits)
    right = values & np.uint64((1 << right_bits) - 1)
    for offset in round_numbers * _GOLDEN:
        round_key = mix(keys + offset)
        left, right = right, left ^ (mix(right ^ round_key) & np.uint64((1 << left_bits) - 1))
        left_bits, right_bits = right_bits, left_bits
    return (left << np.uint64(right_bits)) | right
