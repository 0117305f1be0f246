"""Writes the winds and damages that tests/catastrophe.rs compares with: `python3 catastrophe.py`.

The formulas are those of the papers as CLIMADA 6.1 applies them (climada/hazard/trop_cyclone and
climada/entity/impact_funcs/trop_cyclone.py), written out here in plain numpy:

- Holland (1980), Monthly Weather Review 108, 1212-1218: B from equations 5 and 6 at the gradient level, bounded by
  1 and 2.5; the gradient wind of equation 4; the surface wind is 0.9 of it. CLIMADA's model "H1980".
- Holland (2008), Monthly Weather Review 136, 3432-3445: b of equation 11, bounded by 0.81 and 2.025. CLIMADA's
  model "H08", in which the storm's speed is taken out of the profile before its motion is added as a vector.
- Motion fades outside the radius of maximum wind as that radius over the distance.
- Emanuel (2011), Weather, Climate, and Society 3, 261-268: damage with 25.7 and 74.7 m/s.

Where CLIMADA and what its wind module imports (numpy, scipy, xarray, pint) are installed, `--climada` runs its own
functions on the same cases and prints how far they are from what is written: 6.1.0 was at most 5e-15 away, and 5e-16
in the 1980 model.
"""

import csv
import sys
from pathlib import Path

import numpy as np

here = Path(__file__).parent
DENSITY, TO_SURFACE, ROTATION = 1.15, 0.9, 7.292115e-5


def cases():
    random = np.random.Generator(np.random.Philox(2025))
    count = 60
    lat = random.uniform(8, 45, count) * np.where(np.arange(count) % 5 == 4, -1, 1)
    bearing = random.uniform(0, 2 * np.pi, count)
    radius = random.uniform(12, 90, count)
    return {
        "lat": lat,
        "deficit_hpa": random.uniform(8, 100, count),
        "rise_hpa_h": random.uniform(-2, 2, count),
        "wind_ms": random.uniform(20, 80, count),
        "motion_east": random.uniform(-10, 10, count),
        "motion_north": random.uniform(-10, 10, count),
        "radius_km": radius,
        "distance_km": radius * np.exp(random.uniform(np.log(0.3), np.log(3.3), count)),
        "east": np.sin(bearing),
        "north": np.cos(bearing),
    }


def around(b, reduction, case):
    distance, radius = case["distance_km"] * 1000, case["radius_km"] * 1000
    turning = ROTATION * np.sin(np.radians(np.abs(case["lat"]))) * distance
    x = (radius / distance) ** b
    root = np.sqrt(b / DENSITY * x * case["deficit_hpa"] * 100 * np.exp(-x) + turning**2)
    return reduction * (root - turning)


def total(swirl, case):
    share = np.minimum(1, case["radius_km"] / case["distance_km"])
    swirl = swirl * np.where(case["lat"] < 0, -1, 1)
    east = -swirl * case["north"] + case["motion_east"] * share
    north = swirl * case["east"] + case["motion_north"] * share
    return np.hypot(east, north)


def computed(case):
    speed = np.hypot(case["motion_east"], case["motion_north"])
    gradient = np.maximum(0, case["wind_ms"] - speed) / TO_SURFACE
    b_1980 = np.clip(gradient**2 * np.e * DENSITY / (case["deficit_hpa"] * 100), 1, 2.5)
    deficit = case["deficit_hpa"]
    b_2008 = (
        -4.4e-5 * deficit**2
        + 0.01 * deficit
        + 0.03 * case["rise_hpa_h"]
        - 0.014 * np.abs(case["lat"])
        + 0.15 * speed ** (0.6 * (1 - deficit / 215))
        + 1.0
    )
    b_2008 = np.clip(b_2008, TO_SURFACE**2, 2.5 * TO_SURFACE**2)
    share = np.minimum(1, case["radius_km"] / case["distance_km"])
    around_1980, around_2008 = around(b_1980, TO_SURFACE, case), around(b_2008, 1.0, case)
    return {
        "b_1980": b_1980,
        "around_1980": around_1980,
        "total_1980": total(around_1980, case),
        "b_2008": b_2008,
        "around_2008": around_2008,
        "total_2008": total(around_2008 - speed * share, case),
    }


def emanuel(wind):
    x = np.maximum(0, wind - 25.7) / (74.7 - 25.7)
    return x**3 / (1 + x**3)


def climada(case):
    """The same from CLIMADA's wind module, loaded without the rest of the package."""
    import importlib.util
    import types

    import pint
    import xarray as xr

    def module(name, **members):
        found = types.ModuleType(name)
        found.__dict__.update(members)
        sys.modules[name] = found
        return found

    root = Path(importlib.util.find_spec("climada").submodule_search_locations[0])
    module("climada")
    module("climada.hazard", Centroids=object)
    module("climada.hazard.tc_tracks", estimate_rmw=None)
    coordinates = module("climada.util.coordinates")
    constants = module("climada.util.constants", ONE_LAT_KM=111.12)
    module("climada.util", ureg=pint.UnitRegistry(), coordinates=coordinates, constants=constants)
    path = root / "hazard/trop_cyclone/trop_cyclone_windfields.py"
    spec = importlib.util.spec_from_file_location("windfields", path)
    fields = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fields)

    result = {name: [] for name in computed(case)}
    for i in range(len(case["lat"])):
        of = {name: values[i] for name, values in case.items()}
        speed = np.hypot(of["motion_east"], of["motion_north"])
        hour, centre = 3600.0, 1e5 - of["deficit_hpa"] * 100
        track = {
            "lat": of["lat"],
            "tstep": hour,
            "vmax": of["wind_ms"],
            "rad": of["radius_km"] * 1000,
            "pdelta": of["deficit_hpa"] * 100,
            "vtrans_norm": speed,
            "cp": 2 * ROTATION * np.sin(np.radians(abs(of["lat"]))),
        }
        track = xr.Dataset({name: ("time", [value, value]) for name, value in track.items()})
        track["lon"] = ("time", [0.0, 0.0])
        track["cen"] = ("time", [centre - of["rise_hpa_h"] * 100, centre])
        track["vtrans"] = (("time", "component"), [[of["motion_north"], of["motion_east"]]] * 2)
        track = track.assign_coords(time=[0, 1])
        track.attrs["latsign"] = np.sign(of["lat"])
        distance = of["distance_km"] * 1000
        vector = distance * np.array([of["north"], of["east"]])
        coordinates.dist_approx = lambda *_, **__: (np.full((1, 2, 1), distance), np.full((1, 2, 1, 2), vector))
        for model, name in [("H1980", "1980"), ("H08", "2008")]:
            number = fields.MODEL_VANG[model]
            mask = np.full((2, 1), True)
            swirl = fields.compute_angular_windspeeds(track.copy(), np.full((2, 1), distance), mask, number)
            wind, _ = fields._compute_windfields(track, np.zeros((1, 2)), number)
            result[f"around_{name}"].append(swirl[1, 0])
            result[f"total_{name}"].append(np.hypot(*wind[1, 0]))
            result[f"b_{name}"].append(float(track["hol_b"][1]))
    return {name: np.array(values) for name, values in result.items()}


def write(name, columns):
    with open(here / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([repr(float(value)) for value in row] for row in zip(*columns.values()))


case = cases()
results = computed(case)
write("catastrophe_winds.csv", case | results)
winds = np.concatenate([np.arange(0.0, 120.0, 7.3), [25.7, 25.8, 74.7, 200.0]])
write("catastrophe_damage.csv", {"wind_ms": winds, "share": emanuel(winds)})
if "--climada" in sys.argv[1:]:
    for name, values in climada(case).items():
        print(name, np.max(np.abs(values / results[name] - 1)))
