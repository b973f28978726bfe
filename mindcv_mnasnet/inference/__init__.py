"""Trained networks in use: predictions, validation, comparison with published results."""
