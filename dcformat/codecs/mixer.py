"""Logistic mixing, the heart of coder 3 (spec, "Coder 3"): how a mixer predicts a decision, and learns from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.logistic import LOG, MAX_ODDS, SQUASH, STRETCH
from dcformat.codecs.rangecoder import COUNT_MASK, code_bit, update
from dcformat.jit import device

Array = npt.NDArray[Any]

INPUTS = 5
#: Maximum number of bits that a bit model averages over.
LIMIT = 510
#: TRUST[n]: the share of a bit model's log-odds that counts after it has seen n bits, in 1/256.
TRUST = np.array([2560 * n // (10 * n + 18) for n in range(512)], np.int64)
#: LEARNING[n]: the step of a set of weights that has been used n times; the last step holds for all further uses.
LEARNING = np.array([4 + 75 // (n + 4) for n in range(128)], np.int64)
SYMBOL_LEARNING = np.array([6 + 155 // (n + 4) for n in range(128)], np.int64)


@device
def log(number):  # type: ignore[no-untyped-def]
    """Return about 256 * log2(number)."""
    extra = 0
    while number >= 8192:
        number >>= 1
        extra += 256
    return LOG[number] + extra


@device
def within(number, least, greatest):  # type: ignore[no-untyped-def]
    """Return the number, or the nearest one in range."""
    return min(max(number, least), greatest)


class Mixer(NamedTuple):
    """Bit models, and the weights that sum their predictions: a set of five for each context.

    Attributes
    ----------
    models : int32
        Bit models.
    places, inputs : int64 ``(5,)``
        For the current decision: the bit models that see it, and the log-odds to sum. Elements and code symbols share
        these arrays.
    weights : int64
    used : int64
        How often each set of weights has been used.
    learning : int64 ``(128,)``
        The step of a set of weights, by the number of its uses.
    """

    models: Array
    places: Array
    inputs: Array
    weights: Array
    used: Array
    learning: Array


@device
def mixed_odds(mixer, choice):  # type: ignore[no-untyped-def]
    """Return the log-odds that a set of weights predicts from the inputs."""
    total = 0
    for k in range(INPUTS):
        total += mixer.weights[INPUTS * choice + k] * mixer.inputs[k]
    return within(total >> 16, -MAX_ODDS, MAX_ODDS)


@device
def train(mixer, choice, error):  # type: ignore[no-untyped-def]
    """Move a set's weights along the inputs, in proportion to the error in 1/65536 of a bit."""
    step = error * mixer.learning[mixer.used[choice]]
    for k in range(INPUTS):
        mixer.weights[INPUTS * choice + k] += (mixer.inputs[k] * step + 131072) >> 18
    if mixer.used[choice] < 127:
        mixer.used[choice] += 1


@device
def odds_of(models, index):  # type: ignore[no-untyped-def]
    """Return a bit model's log-odds, weakened if it has seen few bits."""
    state = np.int64(models[index])
    return (STRETCH[state >> 19] * TRUST[state & COUNT_MASK]) >> 8


@device
def code_signed(stream, interval, mixer, contexts, signed, symbol):  # type: ignore[no-untyped-def]
    """Code a code symbol: its sign in contexts 0 .. 4, and each bit of its magnitude in contexts 5 .. 9."""
    bits, negatives, positives = signed
    negative = 1 if symbol < negatives else 0
    if stream.decode and not (negatives and positives):
        negative = 1 if negatives else 0
    magnitude = negatives - 1 - symbol if negative else symbol - negatives
    node = 1
    for step in range(bits + 1):
        shift = bits - step
        if step:
            bit = (magnitude >> shift) & 1
            coded = (((node << 1) | 1) << shift) - (1 << bits) < (negatives if negative else positives)
            if stream.decode and not coded:
                bit = 0
        else:
            bit = negative
            coded = negatives > 0 and positives > 0
        if coded:
            for k in range(INPUTS):
                if step:
                    tree = contexts[5 + k]
                    if k == 0 or k == 4:
                        tree = (tree << 1) | negative
                    mixer.places[k] = (tree << bits) + node + 125
                else:
                    mixer.places[k] = contexts[k]
                mixer.inputs[k] = odds_of(mixer.models, mixer.places[k])
            p = SQUASH[mixed_odds(mixer, min(step, 8)) + MAX_ODDS]
            bit, interval = code_bit(stream, interval, within(p, 32, 65504), bit)
            train(mixer, min(step, 8), (bit << 16) - p)
            for k in range(INPUTS):
                update(mixer.models, mixer.places[k], LIMIT, bit)
        if step:
            node = (node << 1) | bit
        else:
            negative = bit
    return negative, node - (1 << bits), interval
