"""Times the sliding window of one program over a preprocessed image; the program that `prediction.py` starts.

    PYTHON tests/benchmarks/measure_prediction.py autoseg|nnunet MODEL IMAGE.npy RESULT.npy DEVICE

IMAGE is an array (c, z, y, x), float32, as the network sees it; RESULT gets the label map. Prints the seconds of the
shorter of two calls as JSON, since the first prepares the second.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

THREADS = 2


def main() -> None:
    """Calls the sliding window twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=("autoseg", "nnunet"))
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("device", type=torch.device)
    arguments = parser.parse_args()
    device = arguments.device
    if device.type == "cpu":
        torch.set_num_threads(THREADS)
    array = np.load(arguments.image)
    predict = {"autoseg": load_ours, "nnunet": load_theirs}[arguments.program](arguments.model, device)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        logits = predict(array)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    np.save(arguments.result, logits.argmax(0).to(torch.uint8).cpu().numpy())
    print(json.dumps({"seconds": min(seconds)}))


def load_ours(model: Path, device: torch.device):
    """Returns autoseg's function from an image to logits, with mirroring."""
    from autoseg.imaging.postprocessing import NO_RULES
    from autoseg.inference.segmenter import make_segmenter
    from autoseg.inference.sliding_window import predict_volume
    from autoseg.models.checkpoint import load_checkpoint

    segmenter = make_segmenter([load_checkpoint(model / "fold_0" / "checkpoint.pt")], NO_RULES, device)
    return lambda array: predict_volume(
        array,
        segmenter.predictor,
        patch_size=segmenter.configuration.patch_size,
        batch_size=segmenter.tiles_at_once,
        device=device,
    )


def load_theirs(model: Path, device: torch.device):
    """Returns nnU-Net's function from an image to logits, as its commands call it."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    return lambda array: predictor.predict_sliding_window_return_logits(torch.from_numpy(array))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
