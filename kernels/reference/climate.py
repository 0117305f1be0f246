"""Reference numbers of the climate kernel, from the eofs package and scikit-learn.

    python3 -m venv v && v/bin/pip install numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 eofs==2.0.0 \\
        netCDF4==1.7.5.1.post1
    v/bin/python kernels/reference/climate.py

Writes climate/*.npy, *.nc and *.nc4 beside this file, which planners/tests/climate reads. The fields are
quotients of small integers, so that any machine makes the same. Modes have the sign that makes their largest
loading positive, as the kernel gives them.
"""

from pathlib import Path

import numpy as np
from eofs.standard import Eof
from netCDF4 import Dataset
from scipy.io import netcdf_file
from sklearn.decomposition import PCA

here = Path(__file__).parent / "climate"
here.mkdir(exist_ok=True)
MODES = 5


def field(times, lats, lons):
    """Two standing patterns and noise; places in the south-west are missing."""
    t, i, j = np.meshgrid(np.arange(times), np.arange(lats), np.arange(lons), indexing="ij")
    noise = ((t * 911 + i * 577 + j * 131 + t * i * j * 37) % 2017 - 1008) / 512
    first = ((t * 7) % 13 - 6) * (i - lats // 2) / 4
    second = ((t * 5) % 11 - 5) * (j - lons // 2) / 8
    values = first + second + noise + (10 * i + j)
    values[:, 0, 0] = np.nan
    values[:, 1, 0] = np.nan
    return values


def turned(eofs, *columns):
    """Signs by the largest loading."""
    flat = np.nan_to_num(eofs.reshape(len(eofs), -1))
    signs = np.sign(flat[np.arange(len(flat)), np.abs(flat).argmax(axis=1)])
    shape = (-1,) + (1,) * (eofs.ndim - 1)
    return [eofs * signs.reshape(shape)] + [each * signs for each in columns]


def save(name, array):
    np.save(here / f"{name}.npy", np.ascontiguousarray(array))


def netcdf(name, values, latitudes, longitudes):
    """A record variable, packed into 16 bits beside another one of odd length: padding must be right."""
    with netcdf_file(here / f"{name}.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("level", 1)
        file.createDimension("latitude", len(latitudes))
        file.createDimension("longitude", len(longitudes))
        flag = file.createVariable("flag", "i1", ("time",))
        time = file.createVariable("time", "f8", ("time",))
        time.units = "days since 1900-01-01"
        lat = file.createVariable("latitude", "f4", ("latitude",))
        lat.units = "degrees_north"
        lon = file.createVariable("longitude", "f4", ("longitude",))
        lon.units = "degrees_east"
        z = file.createVariable("z", "i2", ("time", "level", "latitude", "longitude"))
        z.units = "m"
        z.scale_factor = 0.03125
        z.add_offset = 20.0
        z._FillValue = np.int16(-32000)
        lat[:], lon[:] = latitudes, longitudes
        for at in range(len(values)):
            flag[at], time[at] = at % 3, 30.0 * at
            packed = np.round((values[at] - 20.0) / 0.03125)
            z[at] = np.where(np.isnan(packed), -32000, packed)[np.newaxis].astype(np.int16)


def netcdf_4(name, values, latitudes, longitudes):
    """The same, compressed."""
    with Dataset(here / f"{name}.nc4", "w") as file:
        file.createDimension("time", None)
        file.createDimension("level", 1)
        file.createDimension("latitude", len(latitudes))
        file.createDimension("longitude", len(longitudes))
        time = file.createVariable("time", "f8", ("time",))
        time.units = "days since 1900-01-01"
        lat = file.createVariable("latitude", "f4", ("latitude",))
        lat.units = "degrees_north"
        lon = file.createVariable("longitude", "f4", ("longitude",))
        lon.units = "degrees_east"
        over = ("time", "level", "latitude", "longitude")
        z = file.createVariable(
            "z", "i2", over, fill_value=-32000, zlib=True, shuffle=True, chunksizes=(5, 1, 7, 4)
        )
        z.set_auto_maskandscale(False)
        z.units, z.scale_factor, z.add_offset = "m", 0.03125, 20.0
        lat[:], lon[:] = latitudes, longitudes
        time[:] = 30.0 * np.arange(len(values))
        packed = np.round((values - 20.0) / 0.03125)
        z[:] = np.where(np.isnan(packed), -32000, packed)[:, np.newaxis].astype(np.int16)


# More cells than samples, weighted by the square root of the cosine of the latitude.
latitudes = np.array([80.0, 65.0, 50.0, 35.0, 20.0, 5.0, -10.0])
longitudes = 10.0 * np.arange(9)
wide = field(24, 7, 9)
wide = np.round((wide - 20.0) / 0.03125) * 0.03125 + 20.0
netcdf("wide", wide, latitudes, longitudes)
netcdf_4("wide", wide, latitudes, longitudes)
save("wide", wide)
weights = np.sqrt(np.cos(np.deg2rad(latitudes)).clip(0.0, 1.0))[:, np.newaxis] * np.ones((1, 9))
save("wide_weights", weights)
solver = Eof(wide, weights=weights)
new = field(30, 7, 9)[24:] + 0.5
save("wide_new", new)
projected = solver.projectField(new - wide.mean(axis=0), neofs=MODES)
for scaling, name in enumerate(["", "_divided", "_multiplied"]):
    eofs, pcs = turned(solver.eofs(scaling, MODES), solver.pcs(scaling, MODES))
    save(f"wide_eofs{name}", eofs)
    save(f"wide_pcs{name}", pcs)
save("wide_projected", turned(solver.eofs(0, MODES), projected)[1])
save("wide_eigenvalues", solver.eigenvalues(MODES))
save("wide_variance_fractions", solver.varianceFraction(MODES))
save("wide_north_errors", solver.northTest(MODES))
save("wide_reconstruction", solver.reconstructedField([1, 3]))

# The same without weights, every cell divided by its standard deviation, by scikit-learn.
there = ~np.isnan(wide[0])
flat = wide[:, there]
standard = (flat - flat.mean(axis=0)) / flat.std(axis=0, ddof=1)
pca = PCA(MODES, svd_solver="full").fit(standard)
eofs, pcs = turned(pca.components_, pca.transform(standard))
save("standard_eofs", eofs)
save("standard_pcs", pcs)
save("standard_eigenvalues", pca.explained_variance_)
save("standard_variance_fractions", pca.explained_variance_ratio_)

# More samples than cells, nothing weighted, by scikit-learn.
tall = field(90, 4, 5)
save("tall", tall)
flat = tall[:, ~np.isnan(tall[0])]
pca = PCA(MODES, svd_solver="full").fit(flat)
eofs, pcs = turned(pca.components_, pca.transform(flat))
save("tall_eofs", eofs)
save("tall_pcs", pcs)
save("tall_eigenvalues", pca.explained_variance_)
save("tall_variance_fractions", pca.explained_variance_ratio_)
