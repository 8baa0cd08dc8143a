"""Training: recipes, masked losses, exact checkpoints, calibration and the fit itself. Importing it starts TensorFlow."""

from __future__ import annotations

from data_pipelines.backend import require_tensorflow

require_tensorflow()
