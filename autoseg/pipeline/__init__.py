"""START HERE. Every command once, as a function that bears its name; each line of such a function is a stage.

    raw scans and masks
      -> fingerprint   what the data look like                      fingerprint.json
      -> plan          how to segment them, and why                 plan.json
      -> preprocess    crop, normalize, resample each case          preprocessed cases
      -> train         learn a fold, score it on held-out cases     checkpoint.pt, summary.json
      -> find_best     compare what was trained, alone and in pairs best.json
      -> predict       segment new scans with what was learned      masks

Stages are functions from values to values. The files between them are read and written by these functions, and by the
rooms below: `datasets`, `planning`, `preprocessing`, `training`, `model_selection` and `inference`. Up to preprocessing
nothing needs torch, which takes a second to load, so whatever needs torch is imported inside the function that uses it.
"""
