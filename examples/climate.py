"""Writes climate-1.nc and climate-2.nc, the fields of climate.toml: `python3 climate.py` with numpy and scipy.

Invented, not observed: two members of forty winters of pressure at sea level on a grid of 10 by 15 degrees. A
see-saw between high and middle latitudes, a wave with three ridges, a trend, and noise that is smooth in space;
land in the south-west is missing. The seed is fixed, so that the files are always the same.
"""

from pathlib import Path

import numpy as np
from scipy.io import netcdf_file

here = Path(__file__).parent
WINTERS = 40
latitudes = np.arange(20.0, 90.0, 10.0)
longitudes = np.arange(0.0, 360.0, 15.0)
lat, lon = np.meshgrid(np.deg2rad(latitudes), np.deg2rad(longitudes), indexing="ij")
seesaw = np.sin(3 * lat) * np.cos(lat)
wave = np.sin(2 * lat) * np.cos(3 * lon)
mean = 1013.0 + 8.0 * np.sin(2 * lat)


def smooth(noise):
    """Averages of neighbours, around the globe."""
    noise = (noise + np.roll(noise, 1, axis=-1) + np.roll(noise, -1, axis=-1)) / 3
    padded = np.pad(noise, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3


for member in (1, 2):
    random = np.random.Generator(np.random.Philox(member))
    index = random.standard_normal((2, WINTERS, 1, 1))
    noise = 3.0 * smooth(random.standard_normal((WINTERS, *lat.shape)))
    trend = np.linspace(-1.0, 1.0, WINTERS)[:, np.newaxis, np.newaxis]
    pressure = mean + 6.0 * index[0] * seesaw + 3.0 * index[1] * wave + trend * np.cos(lat) + noise
    pressure[:, :2, 4:8] = np.nan
    with netcdf_file(here / f"climate-{member}.nc", "w") as file:
        file.title = "Invented winters; see climate.py"
        file.Conventions = "CF-1.8"
        file.createDimension("time", None)
        file.createDimension("lat", len(latitudes))
        file.createDimension("lon", len(longitudes))
        for name, values, units, standard_name in [
            ("lat", latitudes, "degrees_north", "latitude"),
            ("lon", longitudes, "degrees_east", "longitude"),
        ]:
            variable = file.createVariable(name, "f4", (name,))
            variable.units, variable.standard_name = units, standard_name
            variable[:] = values
        time = file.createVariable("time", "f8", ("time",))
        time.units, time.standard_name, time.calendar = "days since 1980-01-15", "time", "noleap"
        psl = file.createVariable("psl", "i2", ("time", "lat", "lon"))
        psl.units, psl.standard_name = "hPa", "air_pressure_at_mean_sea_level"
        psl.scale_factor, psl.add_offset = 0.01, 1013.0
        psl._FillValue = np.int16(-32768)
        packed = np.round((pressure - 1013.0) / 0.01)
        for winter in range(WINTERS):
            time[winter] = 365.0 * winter
            psl[winter] = np.where(np.isnan(packed[winter]), -32768, packed[winter]).astype(np.int16)
