"""Fits the polynomials of kernels/src/elementary and prints them as Rust arrays.

    pip install mpmath && python3 kernels/fit/elementary.py [NAME...]

Each fit interpolates at Chebyshev nodes in 60 digits, which is within a small factor of the minimax
polynomial, writes it in powers of the variable, rounds the coefficients to doubles and prints the largest
error of the rounded polynomial, times the weight with which it enters the result. Coefficients are copied by hand: nothing here
runs in a build.
"""

import sys
from mpmath import mp, mpf, atan, cos, erf, erfc, erfinv, exp, expm1, log, pi, sin, sqrt

mp.dps = 60


def interpolate(function, low, high, terms):
    """Monomial coefficients of the interpolant at the Chebyshev nodes of [low, high]."""
    nodes = [(low + high) / 2 + (high - low) / 2 * cos(pi * (2 * i + 1) / (2 * terms)) for i in range(terms)]
    values = [function(node) for node in nodes]
    # Newton's divided differences, then expansion.
    for level in range(1, terms):
        for i in range(terms - 1, level - 1, -1):
            values[i] = (values[i] - values[i - 1]) / (nodes[i] - nodes[i - level])
    coefficients = [mpf(0)] * terms
    for i in range(terms - 1, -1, -1):
        shifted = [mpf(0)] + coefficients[:-1]
        coefficients = [s - nodes[i] * c for s, c in zip(shifted, coefficients)]
        coefficients[0] += values[i]
    return coefficients


def evaluate(coefficients, x):
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def fit(name, function, low, high, terms, weight=lambda x: 1):
    low, high = mpf(low), mpf(high)
    done = [mpf(float(c)) for c in interpolate(function, low, high, terms)]
    worst = mpf(0)
    for i in range(400):
        x = low + (high - low) * (1 - cos(pi * (i + mpf(1) / 2) / 400)) / 2
        worst = max(worst, abs(evaluate(done, x) - function(x)) * weight(x))
    print(f"// {name}: [{float(low):.6}, {float(high):.6}], error {float(worst):.2e}")
    print(f"const {name}: [f64; {terms}] = [")
    for c in done:
        print(f"    {float(c)!r},")
    print("];")
    return done


def split(name, value, parts=2):
    value = mpf(value)
    for part in range(parts):
        high = mpf(float(value))
        print(f"// {name} {part}: {float(high)!r} bits {hex(bits(float(high)))}")
        value -= high


def bits(x):
    import struct

    return struct.unpack("<Q", struct.pack("<d", x))[0]


LN2 = log(mpf(2))


def exp_rest():
    half = LN2 / 2 * (1 + mpf(2) ** -20)
    fit("Q", lambda r: (expm1(r) - r) / r**2 if r else mpf(1) / 2, -half, half, 12, lambda r: r * r)


def trigonometry():
    edge = (pi / 4 + mpf(10) ** -6) ** 2
    fit("SIN", lambda z: (sin(sqrt(z)) - sqrt(z)) / sqrt(z) ** 3, mpf(10) ** -20, edge, 7, lambda z: z)
    fit("COS", lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2, mpf(10) ** -15, edge, 7, lambda z: z * z)
    split("PI_2", pi / 2, 4)
    mp.dps = 420
    value = 2 / mp.pi
    print("const TWO_OVER_PI: [u64; 20] = [")
    for _ in range(20):
        value *= mpf(2) ** 64
        word = int(mp.floor(value))
        value -= word
        print(f"    {word:#018x},")
    print("];")
    mp.dps = 60


def arc():
    edge = (sqrt(mpf(2)) - 1 + mpf(10) ** -6) ** 2
    fit("ATAN", lambda z: (atan(sqrt(z)) - sqrt(z)) / sqrt(z) ** 3, mpf(10) ** -20, edge, 12, lambda z: z)
    split("PI_4", pi / 4, 2)


def logarithm():
    edge = mpf("0.02945")

    def rest(z):
        s = sqrt(z)
        return (mp.atanh(s) / s - 1 - z / 3 - z * z / 5) / z**3

    fit("TAIL", rest, mpf(10) ** -12, edge, 7, lambda z: z**3)
    split("third", mpf(1) / 3)
    split("fifth", mpf(1) / 5)
    split("LN2", LN2, 3)
    high = mpf(float(LN2))
    import math

    b = bits(float(LN2)) & ~((1 << 21) - 1)
    import struct

    h = mpf(struct.unpack("<d", struct.pack("<Q", b))[0])
    print("LN2 high 32:", float(h), hex(b))
    split("LN2 rest", LN2 - h, 2)


def error_small():
    c0 = 2 / sqrt(pi)
    split("TWO_OVER_ROOT_PI", c0)
    fit("ERF", lambda z: (erf(sqrt(z)) / sqrt(z) - c0) / z, mpf(10) ** -20, mpf("0.2501"), 9, lambda z: z)


def scaled_erfc(x):
    return exp(x * x) * erfc(x)


def error_tail():
    low, high, middle = 1 / (mpf("27.31") + 4), 1 / (mpf("0.4999") + 4), mpf(1) / 8

    def g(v):
        x = 1 / (v + middle) - 4
        return (x + mpf(1) / 2) * scaled_erfc(x)

    split("G_MIDDLE", g(mpf(0)))
    slope = lambda v: (g(v) - g(mpf(0))) / v if v else mp.diff(g, 0)
    fit("G", slope, low - middle, high - middle, 21, lambda v: abs(v) / g(v))
    fit("G_SLOPE", lambda v: mp.diff(g, v), low - middle, high - middle, 5)


def quantile_of(w):
    """The z whose upper tail probability is exp(-w^2 / 2), by Newton's iteration on its logarithm."""
    z = w - (log(w) + mpf("0.9")) / w if w > 2.5 else mpf("0.6745") + (w - 1.665) * 1.3
    while True:
        tail = erfc(z / sqrt(2)) / 2
        step = (log(tail) + w * w / 2) * tail / (exp(-z * z / 2) / sqrt(2 * pi))
        z += step
        if abs(step) < mpf(10) ** -30:
            return z


def quantile():
    split("ROOT_TWO_PI", sqrt(2 * pi))
    centre = lambda q: (sqrt(mpf(2)) * erfinv(2 * sqrt(q)) / sqrt(q) - sqrt(2 * pi)) / q
    fit("CENTRE", centre, mpf(10) ** -16, mpf("0.0625"), 14, lambda q: q)
    # Middles are short, so that subtracting one is exact.
    for name, low, high, middle in [
        ("NEAR", "1.6651", "3.25", "2.4375"), ("A", "3.25", "5", "4.125"), ("B", "5", "9", "7"),
        ("C", "9", "18", "13.5"), ("D", "18", "38.7", "28.25"),
    ]:
        middle = mpf(middle)
        value, slope = quantile_of(middle), None
        # z' = w P / phi(z) with P = exp(-w^2/2).
        density = exp(-value * value / 2) / sqrt(2 * pi)
        slope = middle * exp(-middle * middle / 2) / density
        split(name + " value", value)
        split(name + " slope", slope)
        rest = lambda v: (quantile_of(v + middle) - value - slope * v) / v**2 if abs(v) > 1e-9 else None
        fit(name, rest, mpf(low) - middle, mpf(high) - middle, 20, lambda v: v * v / quantile_of(v + middle))


NAMES = {
    "exp": exp_rest, "trig": trigonometry, "atan": arc, "log": logarithm, "erf": error_small,
    "erfc": error_tail, "quantile": quantile,
}
if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        NAMES[name]()
