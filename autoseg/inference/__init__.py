"""Inference: a trained network segments an image of any size, and a folder of scans."""
