"""Measures the elementary functions against mpmath, to the hundredth of a unit of the last place.

    pip install mpmath
    cargo test -p tessera-kernels --test elementary -- --ignored --nocapture | python3 kernels/fit/measure.py

The test prints lines `name x y result`, doubles as hexadecimal bits; others are passed over. Results that are
zero, infinite or NaN are left to the tests. Slower and finer than tests/accuracy.rs, which looks at far more
arguments: the figures in the doc comments and in the book come from both.
"""

import struct
import sys
from mpmath import mp, mpf, atan, atan2, cos, erf, erfc, exp, expm1, log, log1p, pi, power, sin, sqrt, tan

mp.prec = 160


def double(text):
    return struct.unpack("<d", struct.pack("<Q", int(text, 16)))[0]


def unit(value):
    """The last place of the double nearest to a value."""
    bits = struct.unpack("<Q", struct.pack("<d", abs(float(value))))[0]
    return mpf(2) ** (max(bits >> 52, 1) - 1075)


def precise_trigonometry(function):
    def value(x):
        with mp.workprec(1400 if abs(x) > 1e6 else 250):
            return function(x)

    return value


def quantile_error(p, z):
    """By a Newton step, exact to first order."""
    with mp.workprec(200):
        if p <= 0.5:
            tail, side = mpf(p), -1
        else:
            tail, side = 1 - mpf(p), 1
        size = side * mpf(z)
        ours = erfc(size / sqrt(mpf(2))) / 2
        return log(ours / tail) * ours / (exp(-size * size / 2) / sqrt(2 * pi))


TRUTH = {
    "log": log, "exp": exp, "expm1": expm1, "log1p": log1p, "atan": atan, "erf": erf, "erfc": erfc,
    "sin": precise_trigonometry(sin), "cos": precise_trigonometry(cos), "tan": precise_trigonometry(tan),
    "atan2": atan2, "pow": power,
}
worst, counts = {}, {}
for line in sys.stdin:
    fields = line.split()
    if len(fields) != 4 or fields[0] not in TRUTH and fields[0] != "quantile":
        continue
    name, (x, y, result) = fields[0], map(double, fields[1:])
    if result == 0 or result != result or abs(result) == float("inf"):
        continue
    if name == "quantile":
        error = abs(quantile_error(x, result)) / unit(result)
    else:
        if name == "atan2" and (x == 0 or y == 0):
            continue
        two = name in ("atan2", "pow")
        truth = TRUTH[name](mpf(x), mpf(y)) if two else TRUTH[name](mpf(x))
        if mp.isnan(truth) or mp.im(truth) != 0:
            continue
        error = abs(mp.re(truth) - mpf(result)) / unit(mp.re(truth))
    counts[name] = counts.get(name, 0) + 1
    if error > worst.get(name, (0,))[0]:
        worst[name] = (error, x, y)
for name, (error, x, y) in worst.items():
    print(f"{name}: {float(error):.3f} ulp at {x!r}, {y!r}, of {counts[name]} arguments")
