"""The folder of a run and what lies in it: checkpoints, log, curves, resuming; for training, weights and inference."""
