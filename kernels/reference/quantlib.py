"""Reference prices of the Monte Carlo kernels, from QuantLib.

    python3 -m venv v && v/bin/pip install QuantLib==1.44 && v/bin/python kernels/reference/quantlib.py

Prints what planners/tests/general.rs holds. Times are whole multiples of a day of a 360-day
year, so that no calendar rounds them.
"""

import QuantLib as ql

TODAY = ql.Date(2, ql.January, 2025)
DAYS = ql.Actual360()
ql.Settings.instance().evaluationDate = TODAY


def date(years):
    return TODAY + int(round(360 * years))


def flat(rate):
    return ql.YieldTermStructureHandle(ql.FlatForward(TODAY, rate, DAYS))


def heston(spot, rate, dividend, v0, kappa, theta, xi, rho):
    process = ql.HestonProcess(
        flat(rate), flat(dividend), ql.QuoteHandle(ql.SimpleQuote(spot)), v0, kappa, theta, xi, rho
    )
    return ql.HestonModel(process)


def european(model, sign, strike, years):
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if sign > 0 else ql.Option.Put, strike)
    option = ql.VanillaOption(payoff, ql.EuropeanExercise(date(years)))
    option.setPricingEngine(ql.AnalyticHestonEngine(model, 1e-12, 100000))
    return option.NPV()


def digital(model, strike, years, h=1e-3):
    """A call spread to the limit, Richardson extrapolated."""
    slope = lambda h: (european(model, 1, strike - h, years) - european(model, 1, strike + h, years)) / (2 * h)
    return (4 * slope(h / 2) - slope(h)) / 3


def bermudan(sign, spot, strike, rate, dividend, volatility, years, count):
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        flat(dividend),
        flat(rate),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(TODAY, ql.NullCalendar(), volatility, DAYS)),
    )
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if sign > 0 else ql.Option.Put, strike)
    dates = [date(years * k / count) for k in range(1, count + 1)]
    option = ql.VanillaOption(payoff, ql.BermudanExercise(dates))
    prices = []
    for steps in (1000, 2000):
        option.setPricingEngine(ql.FdBlackScholesVanillaEngine(process, steps, steps))
        prices.append((option.NPV(), option.delta()))
    return prices


if __name__ == "__main__":
    print("QuantLib", ql.__version__)
    usual = (100.0, 0.03, 0.01, 0.04, 1.5, 0.05, 0.5, -0.7)
    wild = (100.0, 0.02, 0.0, 0.04, 0.5, 0.04, 1.0, -0.9)
    for name, parameters in (("usual", usual), ("wild", wild)):
        model = heston(*parameters)
        for sign, strike, years in ((1, 100.0, 1.0), (-1, 90.0, 1.0), (1, 120.0, 2.0)):
            print(name, sign, strike, years, repr(european(model, sign, strike, years)))
        print(name, "digital call", 100.0, 1.0, repr(digital(model, 100.0, 1.0)))
    put = (-1, 100.0, 100.0, 0.05, 0.0, 0.2, 1.0, 12)
    call = (1, 100.0, 100.0, 0.03, 0.08, 0.25, 1.5, 9)
    for name, terms in (("american put", put), ("american call", call)):
        print(name, bermudan(*terms))
