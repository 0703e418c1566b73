"""Validation of folds on held-out cases, validation of ensembles, and the choice of the best configuration."""
