"""Does numpy's and QuantLib's part of `compare paths`: one request a line, one answer a line.

A request is `normals GENERATOR COUNT`, `paths GENERATOR COUNT` or `quantlib COUNT`; its answer is the seconds
that this thread computed and a value to check, which is the mean square of normals or the price of the call.
Starting up and speaking are outside the seconds. The first line it writes tells the versions.
"""

import math
import platform
import sys
import time

import numpy as np
import QuantLib as ql

SPOT, STRIKE, RATE, VOLATILITY, YEARS = 100.0, 100.0, 0.05, 0.2, 1.0
# Elements worked on together: 128 KiB stay in the second-level cache. One array of all is slower.
BLOCK = 1 << 14

generators = {name: np.random.Generator(getattr(np.random, name)(1)) for name in ("PCG64", "Philox", "SFC64")}
block = np.empty(BLOCK)


def normals(name, count):
    draw = generators[name].standard_normal
    start = time.thread_time()
    for _ in range(count // BLOCK):
        draw(out=block)
    return time.thread_time() - start, float(block @ block) / BLOCK


def paths(name, count):
    draw = generators[name].standard_normal
    start = time.thread_time()
    deviation = VOLATILITY * math.sqrt(YEARS)
    discount = math.exp(-RATE * YEARS)
    # The spot and the discount are part of the exponent: two passes fewer.
    drift = (RATE - VOLATILITY**2 / 2) * YEARS + math.log(SPOT * discount)
    total = squares = 0.0
    for _ in range(count // BLOCK):
        draw(out=block)
        np.multiply(block, deviation, out=block)
        np.add(block, drift, out=block)
        np.exp(block, out=block)
        np.subtract(block, STRIKE * discount, out=block)
        np.maximum(block, 0.0, out=block)
        total += block.sum()
        squares += block @ block
    mean = total / count
    variance = squares / count - mean * mean
    seconds = time.thread_time() - start
    assert 0.0 < variance < 1000.0
    return seconds, float(mean)


def quantlib_call():
    today = ql.Date(21, 11, 2026)
    ql.Settings.instance().evaluationDate = today
    days = ql.Actual365Fixed()
    spot = ql.QuoteHandle(ql.SimpleQuote(SPOT))
    rate = ql.YieldTermStructureHandle(ql.FlatForward(today, RATE, days))
    dividend = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, days))
    volatility = ql.BlackConstantVol(today, ql.NullCalendar(), VOLATILITY, days)
    process = ql.BlackScholesMertonProcess(spot, dividend, rate, ql.BlackVolTermStructureHandle(volatility))
    payoff = ql.PlainVanillaPayoff(ql.Option.Call, STRIKE)
    return ql.VanillaOption(payoff, ql.EuropeanExercise(today + 365)), process


option, process = quantlib_call()


def quantlib(count):
    engine = ql.MCEuropeanEngine(process, "pseudorandom", timeSteps=1, requiredSamples=count, seed=1)
    option.setPricingEngine(engine)
    start = time.thread_time()
    price = option.NPV()
    return time.thread_time() - start, price


def answer(request):
    match request.split():
        case ["normals", name, count]:
            return normals(name, int(count))
        case ["paths", name, count]:
            return paths(name, int(count))
        case ["quantlib", count]:
            return quantlib(int(count))
    raise ValueError(f"no such request: {request!r}")


print(f"numpy {np.__version__}, QuantLib {ql.__version__}, Python {platform.python_version()}", flush=True)
for line in sys.stdin:
    print(*answer(line), flush=True)
