"""Trained models on disk: networks, checkpoints, best.json, training statistics, bundles and model cards."""
