"""Training: recipes, masked losses, exact checkpoints, calibration and the fit itself."""
