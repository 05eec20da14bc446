"""Functions of one float32 number, or in Python of an array, from additions, products and divisions only.

Each step is rounded to float32, and no product is fused with an addition, so every instruction set gives the same bits.
There are no branches: LLVM computes a register of elements at a time. The largest errors are about 1 to 2.3 units in
the last place; results below 2^-126 become zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dcformat.jit import device, intrinsic

F = np.float32
_ZERO, _HALF, _ONE, _TWO = F(0), F(0.5), F(1), F(2)
_INF, _NAN = F(np.inf), F(np.nan)
#: Added to a number below 2^22 and subtracted again, it rounds to a whole number, halves to even.
_ROUNDER = F(12582912)
#: From here on, every float32 is whole.
_WHOLE = F(8388608)
#: Below the first, exp is less than 2^-126; above the second, it is infinite.
_EXP_LOW, _EXP_HIGH = F(-87.33654), F(89)
_LOG2_E = F(1.44269504)
#: ln 2 as a sum: products of the first with exponents are exact.
_LN2, _LN2_REST = F(0.693359375), F(-2.12194440e-4)
_SMALLEST = F(1.1754944e-38)
_SQRT2 = F(1.41421356)


def _ir(name: str) -> Callable[[], Any]:
    """Defer the import of the code generators, and so of Numba, to the first compilation."""

    def build() -> Any:
        # The key of saved code depends on the source of each module that this import names.
        from dcformat_runtime.kernels import simd_bits, simd_widths, simd_writer

        for module in (simd_bits, simd_writer, simd_widths):
            if hasattr(module, name):
                return getattr(module, name)()
        raise LookupError(name)

    return build


@intrinsic(_ir("choose"))
def choose(condition: Any, x: Any, y: Any) -> Any:
    """Return `x` where the condition holds and `y` elsewhere."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, x, y)
    return x if condition else y


@intrinsic(_ir("power_of_two"))
def power_of_two(n: Any) -> Any:
    """Return 2^n for a whole float32 from -126 to 127."""
    return ((n.astype(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)


@intrinsic(_ir("exponent"))
def exponent(x: Any) -> Any:
    """Return the exponent of a positive float32, which is -127 for 0 and 128 for infinity and NaN."""
    return ((x.view(np.int32) >> np.int32(23) & np.int32(0xFF)) - np.int32(127)).astype(np.float32)


@intrinsic(_ir("fraction"))
def fraction(x: Any) -> Any:
    """Return the number from 1 to 2 that has the fraction of a float32."""
    return (x.view(np.int32) & np.int32(0x7FFFFF) | np.int32(0x3F800000)).view(np.float32)


@intrinsic(_ir("with_sign"))
def with_sign(x: Any, y: Any) -> Any:
    """Return the absolute value of `x` with the sign of `y`."""
    return np.copysign(x, y)


@intrinsic(_ir("square_root"))
def square_root(x: Any) -> Any:
    """Return the square root, NaN for negative numbers."""
    return np.sqrt(x)


@device
def rounded(x: Any) -> Any:
    """Return the nearest whole number, halves to even."""
    size = abs(x)
    near = with_sign((size + _WHOLE) - _WHOLE, x)
    return choose(size < _WHOLE, near, x)


@device
def floor(x: Any) -> Any:
    """Return the greatest whole number that is not above `x`."""
    near = rounded(x)
    return choose(near > x, near - _ONE, near)


@device
def ceil(x: Any) -> Any:
    """Return the least whole number that is not below `x`."""
    near = rounded(x)
    return with_sign(choose(near < x, near + _ONE, near), x)


@device
def sign(x: Any) -> Any:
    """Return -1, 0 or 1, or NaN."""
    return choose(abs(x) > _ZERO, with_sign(_ONE, x), x)


@device
def lesser(x: Any, y: Any) -> Any:
    """Return the minimum, NaN if either is NaN."""
    return choose((x < y) | (x != x), x, y)


@device
def greater(x: Any, y: Any) -> Any:
    """Return the maximum, NaN if either is NaN."""
    return choose((x > y) | (x != x), x, y)


@device
def exp(x: Any) -> Any:
    """Return e^x."""
    bounded = choose(x > _EXP_LOW, x, _EXP_LOW)
    bounded = choose(bounded < _EXP_HIGH, bounded, _EXP_HIGH)
    n = _halvings(bounded)
    low = choose(n < F(127), n, F(127))
    y = _multiple(bounded, n) * power_of_two(low) * choose(n > F(127), _TWO, _ONE)
    y = choose(x >= _EXP_LOW, y, _ZERO)
    return choose(x == x, y, x)


@device
def _halvings(x: Any) -> Any:
    """Return the whole number n with which 2^n is closest to e^x."""
    return (x * _LOG2_E + _ROUNDER) - _ROUNDER


@device
def _multiple(x: Any, n: Any) -> Any:
    """Return e^x / 2^n, for the n of `_halvings`."""
    r = (x - n * _LN2) - n * _LN2_REST
    p = F(1.9875691500e-4) * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    return (p * (r * r) + r) + _ONE


@device
def sigmoid(x: Any) -> Any:
    """Return ``1 / (1 + exp(-x))``."""
    # This exp needs no upper bound, and no care for large results.
    size = -abs(x)
    bounded = choose(size > _EXP_LOW, size, _EXP_LOW)
    n = _halvings(bounded)
    e = choose(size >= _EXP_LOW, _multiple(bounded, n) * power_of_two(n), _ZERO)
    e = choose(x == x, e, x)
    return choose(x >= _ZERO, _ONE, e) / (_ONE + e)


@device
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    size = abs(x)
    z = x * x
    p = F(-5.70498872745e-3) * z + F(2.06390887954e-2)
    p = p * z + F(-5.37397155531e-2)
    p = p * z + F(1.33314422036e-1)
    p = p * z + F(-3.33332819422e-1)
    near = p * z * x + x
    far = with_sign(_ONE - _TWO / (exp(size + size) + _ONE), x)
    return choose(size >= F(0.625), far, near)


@device
def erf(x: Any) -> Any:
    """Return the error function."""
    size = abs(x)
    z = x * x
    p = F(-5.96761703e-4) * z + F(4.99119423e-3)
    p = p * z + F(-2.67681349e-2)
    p = p * z + F(1.12819925e-1)
    p = p * z + F(-3.76125336e-1)
    p = p * z + F(1.28379166e-1)
    near = p * x + x
    size = choose(size < F(4), size, F(4))
    q = F(-1.72853470e-5) * size + F(3.83197126e-4)
    q = q * size + F(-3.88396438e-3)
    q = q * size + F(2.42546219e-2)
    q = q * size + F(-1.06777877e-1)
    q = q * size + F(-6.34846687e-1)
    q = q * size + F(-1.28717512e-1)
    q = q * size - size
    far = with_sign(_ONE - exp(q), x)
    far = choose(x == x, far, x)
    return choose(abs(x) > F(0.927734375), far, near)


@device
def log(x: Any) -> Any:
    """Return the natural logarithm, NaN for negative numbers."""
    m = fraction(x)
    e = exponent(x)
    large = m > _SQRT2
    m = choose(large, m * _HALF, m) - _ONE
    e = choose(large, e + _ONE, e)
    z = m * m
    p = F(7.0376836292e-2) * m + F(-1.1514610310e-1)
    p = p * m + F(1.1676998740e-1)
    p = p * m + F(-1.2420140846e-1)
    p = p * m + F(1.4249322787e-1)
    p = p * m + F(-1.6668057665e-1)
    p = p * m + F(2.0000714765e-1)
    p = p * m + F(-2.4999993993e-1)
    p = p * m + F(3.3333331174e-1)
    y = ((m * z * p + _LN2_REST * e) - _HALF * z + m) + _LN2 * e
    y = choose(x >= _SMALLEST, y, -_INF)
    y = choose(x >= _ZERO, y, _NAN)
    y = choose(x < _INF, y, x)
    return choose(x == x, y, x)
