"""Times the sliding window of one program over a prepared image, and saves the label map; see prediction.py.

    python one_prediction.py {autoseg,nnunet} MODEL IMAGE RESULT [DEVICE]

IMAGE is an array (c, z, y, x), float32, as the network sees it. Prints the seconds as JSON: of the shortest of two
calls, since the first prepares the other.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

THREADS = 2


def main() -> None:
    """Calls it twice."""
    program, model, image, result, *rest = sys.argv[1:]
    device = torch.device(rest[0] if rest else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(THREADS)
    array = np.load(image)
    predict = (ours if program == "autoseg" else theirs)(Path(model), device)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        logits = predict(array)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    np.save(result, logits.argmax(0).to(torch.uint8).cpu().numpy())
    print(json.dumps({"seconds": min(seconds)}))


def ours(model: Path, device: torch.device):
    """The program's own, with mirroring."""
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


def theirs(model: Path, device: torch.device):
    """nnU-Net's, as its commands call it."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    return lambda array: predictor.predict_sliding_window_return_logits(torch.from_numpy(array))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
