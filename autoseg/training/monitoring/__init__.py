"""Monitors a training run: reports, curves, log files, experiment trackers, warnings, and the load of the GPU."""
