"""Where a model runs."""

from typing import Literal

Device = Literal["cpu", "cuda"]
"""cpu: INT8, the same bits in any company. cuda: float16 on an NVIDIA GPU."""
