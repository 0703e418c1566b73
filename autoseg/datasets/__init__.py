"""A raw dataset: dataset.json and its cases, their integrity, their fingerprint, and the split into folds."""
