"""Writes the invented buildings of catastrophe.toml: `python3 catastrophe.py`.

Buildings lie around ten towns of South Florida; places, classes and values come from a generator of its own, so that
any machine writes the same file. Nothing in it is anybody's house.
"""

import math

# Name, latitude, longitude, half width of the triangle that places are drawn from, buildings.
TOWNS = [
    ("Miami", 25.78, -80.27, 0.10, 80),
    ("Hialeah", 25.87, -80.31, 0.06, 40),
    ("Kendall", 25.67, -80.36, 0.06, 50),
    ("Homestead", 25.47, -80.46, 0.05, 45),
    ("Fort Lauderdale", 26.13, -80.18, 0.07, 50),
    ("Boca Raton", 26.37, -80.14, 0.05, 25),
    ("West Palm Beach", 26.70, -80.11, 0.07, 30),
    ("Naples", 26.17, -81.75, 0.07, 30),
    ("Fort Myers", 26.60, -81.85, 0.07, 30),
    ("Key Largo", 25.10, -80.43, 0.03, 10),
]
# Class, cumulative share, middle value in dollars.
CLASSES = [("wood_frame", 0.35, 260e3), ("masonry", 0.85, 380e3), ("reinforced_concrete", 1.0, 2.4e6)]

state = 20251121


def uniform():
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 11) / 2**53


with open("catastrophe_exposure.csv", "w") as file:
    file.write("# Invented buildings around towns of South Florida; values in US dollars.\n")
    file.write("id,lat,lon,value,class,deductible,limit\n")
    for town, lat, lon, width, count in TOWNS:
        for number in range(1, count + 1):
            north = lat + width * (uniform() + uniform() - 1)
            east = lon + width * (uniform() + uniform() - 1)
            share = uniform()
            name, _, middle = next(entry for entry in CLASSES if share < entry[1])
            value = round(middle * math.exp(0.5 * (uniform() + uniform() + uniform() - 1.5) * 2), -3)
            row = [
                f"{town.lower().replace(' ', '_')}-{number}",
                f"{north:.4f}",
                f"{east:.4f}",
                f"{value:.0f}",
                name,
                f"{0.02 * value:.0f}",
                f"{0.8 * value:.0f}",
            ]
            file.write(",".join(row) + "\n")
