"""Training data: splits into folds, preprocessed cases on disk, patches, augmentation and the loader."""
