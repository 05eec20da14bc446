"""Synthetic sounds to calibrate networks with: no recordings, only voices that are computed, noises and silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Frequencies of the first three formants of vowels, in hertz.
_VOWELS = np.array([(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)])


def voice(rng: np.random.Generator, count: int, rate: int) -> Array:
    """Return a syllable or two: consonants are bursts of noise, vowels are harmonics with formants that move."""
    time = np.arange(count) / rate
    pitch = rng.uniform(80, 300) * 2 ** np.interp(time, np.linspace(0, count / rate, 4), rng.uniform(-0.3, 0.3, 4))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    knots = np.linspace(0, count / rate, rng.integers(2, 5))
    formants = _VOWELS[rng.integers(0, len(_VOWELS), len(knots))] * rng.uniform(0.85, 1.25)
    moving = np.stack([np.interp(time, knots, formant) for formant in formants.T])
    sound = np.zeros(count)
    for harmonic in range(1, 40):
        frequency = harmonic * pitch
        gain = (1 / (1 + ((frequency - moving) / rng.uniform(60, 160)) ** 2)).sum(0) + 0.01
        sound += np.where(frequency < rate / 2, gain / harmonic**0.5, 0) * np.sin(harmonic * phase)
    for _ in range(rng.integers(0, 3)):
        start, length = rng.integers(0, count), rng.integers(count // 20, count // 4)
        burst = np.diff(rng.standard_normal(len(sound[start : start + length]) + 1))
        sound[start : start + length] += rng.uniform(0.1, 2) * burst * np.hanning(len(burst))
    edges = np.interp(time, np.linspace(0, count / rate, 7), [0, *rng.uniform(0.2, 1, 5), 0])
    return sound * edges


def clip(rng: np.random.Generator, rate: int = 16000) -> Array:
    """Return a second of sound, with a maximum of 1: a voice or none, in noise."""
    sound = np.zeros(rate)
    if rng.random() < 0.9:
        length = rng.integers(rate // 4, int(rate * 0.8))
        start = rng.integers(0, rate - length)
        sound[start : start + length] = voice(rng, length, rate)
        sound /= np.abs(sound).max() + 1e-9
    spectrum = np.fft.rfft(rng.standard_normal(rate)) / np.arange(1, rate // 2 + 2) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum)
    sound += noise / np.abs(noise).max() * 10 ** rng.uniform(-4, -0.7)
    return np.asarray(sound / np.abs(sound).max())


def cepstrum(sound: Array, rate: int = 16000, frame: int = 480, step: int = 320, kept: int = 10) -> Array:
    """Return the cepstral coefficients of mel bands, ``(frames, kept)``, as TensorFlow computes them."""
    count = (len(sound) - frame) // step + 1
    frames = np.stack([sound[k * step : k * step + frame] for k in range(count)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    spectra = np.abs(np.fft.rfft(frames * window, 512))
    logs = np.log(spectra @ _mel_bands(spectra.shape[1], rate) + 1e-6)
    bands = logs.shape[1]
    angles = np.pi / bands * (np.arange(bands) + 0.5)[:, None] * np.arange(kept)
    return np.asarray(2 * logs @ np.cos(angles) / np.sqrt(2 * bands), np.float32)


def _mel_bands(bins: int, rate: int, bands: int = 40, low: float = 20.0, high: float = 4000.0) -> Array:
    """Return the weights of triangular bands, ``(bins, bands)``."""

    def mel(frequency: Any) -> Any:
        return 1127 * np.log(1 + np.asarray(frequency) / 700)

    at = mel(np.linspace(0, rate / 2, bins))[1:, None]
    edges = np.linspace(mel(low), mel(high), bands + 2)
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return np.concatenate((np.zeros((1, bands)), np.maximum(0, np.minimum(rising, falling))))
