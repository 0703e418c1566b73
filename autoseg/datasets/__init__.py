"""Raw datasets: dataset.json and the cases, their integrity, their fingerprint, and the folds."""
