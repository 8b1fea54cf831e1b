"""The look of each viseme: six lip parameters and a dominance."""

import numpy as np

from omni_avsr.toy.phones import VISEMES

PARAMETERS = 6
OPENING, WIDTH, ROUNDING, TEETH, TONGUE, TUCK = range(PARAMETERS)  # columns of a lip track

# Opening is negative where the lips are pressed together; teeth are the upper ones; tuck is that of
# the lower lip. A star leaves the parameter to the neighbouring looks. The more dominant of two
# looks at the same time wins.
_SHAPES = """
           opening  width  rounding  teeth  tongue  tuck  dominance
rest         -0.02   0.50      0.10   0.00    0.00  0.00        0.7
closed       -0.15      *         *   0.00    0.00  0.00        2.2
bite          0.12   0.55         *   0.95    0.00  1.00        1.8
dental        0.26   0.55      0.10   0.65    0.95  0.00        1.2
tip           0.24      *         *   0.60    0.55  0.00        0.7
hiss          0.14   0.65      0.10   0.95    0.10  0.00        1.1
hush          0.26   0.30      0.70   0.85    0.10  0.00        1.4
back          0.32      *         *   0.40    0.25  0.00        0.6
pucker        0.14   0.10      0.95   0.10    0.00  0.10        1.5
smile         0.30   0.95      0.00   0.70    0.30  0.00        1.1
mid           0.52   0.70      0.05   0.60    0.35  0.00        1.1
open          0.92   0.60      0.10   0.50    0.30  0.00        1.3
round         0.66   0.25      0.70   0.20    0.20  0.00        1.3
purse         0.24   0.10      0.95   0.10    0.10  0.00        1.3
neutral       0.36   0.50      0.25   0.40    0.20  0.00        0.8
"""
_DOMINANCE_IF_FREE = 0.1  # share of a look's dominance that its free parameters have


def _read_shapes(table: str) -> np.ndarray:
    """Returns the table's numbers in the order of VISEMES, NaN for a star: (looks, 7)."""
    shapes = {}
    for row in table.strip().splitlines()[1:]:
        look, *numbers = row.replace("*", "nan").split()
        shapes[look] = [float(number) for number in numbers]
    return np.array([shapes[look] for look in VISEMES])


LOOK_INDEX = {look: index for index, look in enumerate(VISEMES)}
_TABLE = _read_shapes(_SHAPES)
_GIVEN = _TABLE[:, :PARAMETERS]
_IS_FREE = np.isnan(_GIVEN)
TARGETS = np.where(_IS_FREE, _GIVEN[LOOK_INDEX["neutral"]], _GIVEN)  # (looks, 6)
DOMINANCE = np.where(_IS_FREE, _DOMINANCE_IF_FREE, 1.0) * _TABLE[:, PARAMETERS:]  # (looks, 6)
