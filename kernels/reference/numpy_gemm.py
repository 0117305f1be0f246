"""Writes the operands and numpy's products that tests/numpy.rs compares with: `python3 numpy_gemm.py`.

Run with numpy 2.4.6 (its OpenBLAS, one thread). The operands are quotients of small integers, each rounded once,
so that any machine makes the same; the products are those of the machine it ran on, within the bound of any.
`A` is written in C order, `B` in Fortran order, products in either.
"""

from pathlib import Path

import numpy as np

here = Path(__file__).parent / "numpy"
ROWS, DEPTH, COLS = 13, 37, 11


def entries(rows, cols, multiplier, dtype):
    numbers = np.arange(rows * cols, dtype=np.int64) * multiplier % 2017 - 1008
    return (numbers.astype(dtype) / dtype(97)).reshape(rows, cols)


here.mkdir(exist_ok=True)
for name, dtype in [("f64", np.float64), ("f32", np.float32)]:
    a = entries(ROWS, DEPTH, 911, dtype)
    b = entries(DEPTH, COLS, 1327, dtype)
    np.save(here / f"a_{name}.npy", a)
    np.save(here / f"b_{name}.npy", np.asfortranarray(b))
    np.save(here / f"ab_{name}.npy", a @ b)
    np.save(here / f"aat_{name}.npy", np.asfortranarray(a @ a.T))
