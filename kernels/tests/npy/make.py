"""Makes the .npy files beside it with numpy: `python3 make.py`. The tests read what it wrote."""

import io
from pathlib import Path

import numpy as np

here = Path(__file__).parent
c = np.array([[1.5, -2.0, 0.25], [3.0, 4.0, -5.5]])

np.save(here / "c.npy", c)
np.save(here / "fortran.npy", np.asfortranarray(c))
np.save(here / "f4.npy", c.astype("<f4"))
np.save(here / "big_endian.npy", c.astype(">f8"))
np.save(here / "integers.npy", c.astype("<i8"))
np.save(here / "objects.npy", np.array([[None, 1]], dtype=object), allow_pickle=True)
np.save(here / "record.npy", np.zeros(2, dtype=[("x", "<f8"), ("y", "<f8")]))
np.save(here / "vector.npy", c.ravel())
np.save(here / "cube.npy", c.reshape(1, 2, 3))
np.save(here / "empty.npy", c[:0])

nan = c.copy()
nan[1, 0] = np.nan
np.save(here / "nan.npy", nan)
infinite = np.asfortranarray(c)
infinite[0, 2] = -np.inf
np.save(here / "infinite_fortran.npy", infinite)

with open(here / "version_2.npy", "wb") as file:
    np.lib.format.write_array(file, c, version=(2, 0))
whole = (here / "c.npy").read_bytes()
(here / "truncated.npy").write_bytes(whole[:-3])
(here / "truncated_header.npy").write_bytes(whole[:40])
(here / "trailing.npy").write_bytes(whole + b"\0")

header = io.BytesIO()
np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 3)})
(here / "absurd.npy").write_bytes(header.getvalue())
