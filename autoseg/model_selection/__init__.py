"""Validation of folds on held-out cases, ensembles, and the choice of the best configuration."""
