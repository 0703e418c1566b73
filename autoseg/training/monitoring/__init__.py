"""What is known of a running training: progress, curves, log files, experiment trackers, health, load of the GPU."""
