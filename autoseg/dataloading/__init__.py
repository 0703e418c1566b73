"""Batches for training: patches, augmentation on the CPU or the device, and the threads that prepare batches."""
