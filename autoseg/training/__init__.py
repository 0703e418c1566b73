"""Trains folds: jobs and folds on disk, the loop over epochs, losses, optimization, several processes, monitoring."""
