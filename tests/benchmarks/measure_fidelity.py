"""Trains one fold by nnU-Net's own trainer; the program that `fidelity.py` starts in nnU-Net's environment.

    PYTHON tests/benchmarks/measure_fidelity.py FOLDER

FOLDER holds question.json: plans and dataset as nnU-Net's files have them, the configuration, the seed, the number of
epochs and of steps in each, the initial learning rate and the momentum. Trains fold 0, segments its held-out cases, and
writes answer.json: the training loss of each epoch, and the Dice of each structure and their mean.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    """Trains, segments and scores."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    folder = Path(sys.argv[1])
    question = json.loads((folder / "question.json").read_text())
    torch.set_num_threads(question["threads"])
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(question["seed"])
    plans = {**question["plans"], "continue_training": False}
    trainer = nnUNetTrainer(plans, question["configuration"], 0, question["dataset"], device=torch.device("cpu"))
    trainer.initial_lr, trainer.num_epochs = question["rate"], question["epochs"]
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = question["steps"], 1
    trainer.initialize()
    for group in trainer.optimizer.param_groups:
        group["momentum"] = question["momentum"]
    losses, end_epoch = [], trainer.on_train_epoch_end

    def keep_losses(outputs: list[dict]) -> None:
        losses.append(float(np.mean([output["loss"] for output in outputs])))
        end_epoch(outputs)

    trainer.on_train_epoch_end = keep_losses
    trainer.run_training()
    trainer.perform_actual_validation()
    scores = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    answer = {
        "losses": losses,
        "labels": {label: float(values["Dice"]) for label, values in scores["mean"].items()},
        "dice": float(scores["foreground_mean"]["Dice"]),
    }
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
