"""Times the sliding window of one program over a preprocessed image; `prediction.py` and `runtimes.py` start it.

    PYTHON tests/benchmarks/measure_prediction.py autoseg|nnunet MODEL IMAGE.npy RESULT.npy DEVICE
        [--threads 2] [--runtime torch]

With --runtime the networks of autoseg calculate in float32; "onnx" and "openvino" take an exported MODEL.

IMAGE is an array (c, z, y, x), float32, as the network sees it; RESULT gets the label map. Prints the seconds of the
shorter of two calls as JSON, since the first prepares the second, and those of all its threads on the processor.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    """Calls the sliding window twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=("autoseg", "nnunet"))
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("device", type=torch.device)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtime", choices=("torch", "onnx", "openvino"))
    arguments = parser.parse_args()
    device = arguments.device
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    array = np.load(arguments.image)
    if arguments.program == "nnunet":
        predict = load_theirs(arguments.model, device)
    else:
        predict = load_ours(arguments.model, device, arguments.runtime)
    seconds, processor_seconds = [], []
    for _ in range(2):
        started, worked = time.perf_counter(), time.process_time()
        logits = predict(array)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
        processor_seconds.append(time.process_time() - worked)
    logits = logits.cpu().numpy() if isinstance(logits, torch.Tensor) else logits
    np.save(arguments.result, logits.argmax(0).astype(np.uint8))
    print(json.dumps({"seconds": min(seconds), "processor_seconds": min(processor_seconds)}))


def load_ours(model: Path, device: torch.device, runtime: str | None = None):
    """Returns autoseg's function from an image to logits, with mirroring."""
    from autoseg.imaging.postprocessing import NO_RULES
    from autoseg.inference.exported_segmenter import make_exported_segmenter
    from autoseg.inference.sliding_window import predict_volume
    from autoseg.inference.torch_segmenter import make_segmenter
    from autoseg.models.checkpoint import load_checkpoint
    from autoseg.workspace import ModelFolder

    if runtime in ("onnx", "openvino"):
        segmenter = make_exported_segmenter(ModelFolder(path=model), (0,), NO_RULES, runtime=runtime)
    else:
        fold = load_checkpoint(model / "fold_0" / "checkpoint.pt")
        segmenter = make_segmenter([fold], NO_RULES, device, exact=runtime == "torch")
    return lambda array: predict_volume(
        array,
        segmenter.predictor,
        patch_size=segmenter.configuration.patch_size,
        batch_size=segmenter.tiles_at_once,
        device=segmenter.device,
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
