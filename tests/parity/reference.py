"""Answers questions by nnU-Net; a program for the python of its environment, where this project is not installed.

    PATH/TO/python tests/parity/reference.py TASK FOLDER

FOLDER holds question.json and, if the question has arrays, question.npz; the program writes answer.npz there. `ask` in
`both_programs.py` writes the question, runs the program and reads the answer. nnU-Net is called, never copied.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
PLANNERS = {
    "plain": "ExperimentPlanner",
    "resenc_m": "nnUNetPlannerResEncM",
    "resenc_l": "nnUNetPlannerResEncL",
    "resenc_xl": "nnUNetPlannerResEncXL",
}
PROCESSES = 2


def main() -> None:
    """Answers one question."""
    task, folder = sys.argv[1], Path(sys.argv[2])
    question = json.loads((folder / "question.json").read_text())
    arrays = dict(np.load(folder / "question.npz")) if (folder / "question.npz").is_file() else {}
    np.savez_compressed(folder / "answer.npz", **TASKS[task](question, arrays))


def prepare(question: dict, arrays: Arrays) -> Arrays:
    """Takes the fingerprint of a dataset, plans it by several planners, and preprocesses by the usual plan."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as commands

    numbers = [question["number"]]
    commands.extract_fingerprints(numbers, num_processes=PROCESSES, clean=True, verbose=False)
    for preset in question["presets"]:
        commands.plan_experiments(numbers, PLANNERS[preset])
    commands.preprocess(
        numbers, "nnUNetPlans", question["configurations"], [PROCESSES] * len(question["configurations"])
    )
    return {}


def read_cases(question: dict, arrays: Arrays) -> Arrays:
    """Reads all cases that were preprocessed for a configuration: CASE_image and CASE_label."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    cases = nnUNetDatasetBlosc2(question["folder"])
    found = {}
    for name in cases.identifiers:
        image, label, _, _ = cases.load_case(name)
        found |= {f"{name}_image": np.asarray(image[:]), f"{name}_label": np.asarray(label[:])[0]}
    return found


def split(question: dict, arrays: Arrays) -> Arrays:
    """Returns the folds of lists of cases, as JSON."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    found = [generate_crossval_split(sorted(names)) for names in question["names"]]
    return {"splits": np.array(json.dumps([[{k: list(map(str, v)) for k, v in f.items()} for f in s] for s in found]))}


def tile(question: dict, arrays: Arrays) -> Arrays:
    """Returns the starts of tiles: an array for each axis of each image, named IMAGE_AXIS by number."""
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    found = {}
    for number, (size, patch) in enumerate(question["images"]):
        steps = compute_steps_for_sliding_window(tuple(size), tuple(patch), 0.5)
        found |= {f"{number}_{axis}": np.array(starts) for axis, starts in enumerate(steps)}
    return found


def weigh(question: dict, arrays: Arrays) -> Arrays:
    """Returns the Gaussian of tiles by number: in float32, and in half precision, in which nnU-Net uses it."""
    import torch
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    found = {}
    for number, patch in enumerate(question["patches"]):
        for name, dtype in (("single", torch.float32), ("half", torch.float16)):
            weights = compute_gaussian(
                tuple(patch), 1.0 / 8, value_scaling_factor=10, dtype=dtype, device=torch.device("cpu")
            )
            found[f"{number}_{name}"] = weights.float().numpy()
    return found


def build(question: dict):
    """The network of a model folder, without deep supervision."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = Path(question["model"])
    plans = PlansManager(json.loads((folder / "plans.json").read_text()))
    dataset = json.loads((folder / "dataset.json").read_text())
    configuration = plans.get_configuration(question["configuration"])
    channels = determine_num_input_channels(plans, configuration, dataset)
    outputs = plans.get_label_manager(dataset).num_segmentation_heads
    return nnUNetTrainer.build_network_architecture(
        plans, configuration, channels, outputs, enable_deep_supervision=False
    )


def save_model(question: dict, arrays: Arrays) -> Arrays:
    """Makes a trained fold of weights; every name that the network has must be there, and no other."""
    import torch

    network = build(question)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()}, strict=True)
    fold = Path(question["model"]) / f"fold_{question['fold']}"
    fold.mkdir(parents=True, exist_ok=True)
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": question["configuration"]},
        "inference_allowed_mirroring_axes": tuple(question["mirror_axes"]),
    }
    torch.save(content, fold / "checkpoint_final.pth")
    return {}


def train(question: dict, arrays: Arrays) -> Arrays:
    """Trains fold 0 of a preprocessed dataset by the usual trainer, for a moment; the answer names the model folder.

    In so few steps only AdamW learns something, and with patches that mostly hold foreground.
    """
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = {**question["plans"], "continue_training": False}
    torch.manual_seed(0)
    trainer = nnUNetTrainer(plans, question["configuration"], 0, question["dataset"], device=torch.device("cpu"))

    def configure():
        optimizer = torch.optim.AdamW(trainer.network.parameters(), question["learning_rate"])
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)

    trainer.configure_optimizers = configure
    trainer.num_epochs, trainer.num_iterations_per_epoch = question["epochs"], question["steps_per_epoch"]
    trainer.num_val_iterations_per_epoch = question["validation_steps"]
    trainer.oversample_foreground_percent = question["foreground_fraction"]
    trainer.run_training()
    return {"model": np.array(trainer.output_folder_base)}


def ask_network(question: dict, arrays: Arrays) -> Arrays:
    """A network with random weights, biases and norms: its weights by name, its logits, also in double precision."""
    import torch

    torch.manual_seed(question["seed"])
    network = build(question)
    with torch.no_grad():
        for value in network.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
    weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(arrays["patches"]))
        precise = network.double()(torch.from_numpy(arrays["patches"]).double())
    return {"logits": logits.numpy(), "precise": precise.numpy(), **weights}


def predict(question: dict, arrays: Arrays) -> Arrays:
    """Segments a folder of scans and saves probabilities, as the command does.

    If the question asks for `single`, tiles are weighed and added up in single precision, where nnU-Net by itself takes
    half. That tells differences by the rounding of half precision from all others.
    """
    import torch
    from nnunetv2.inference import predict_from_raw_data
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    if question["single"]:
        torch.half = torch.float32
        weigh_tile = predict_from_raw_data.compute_gaussian
        in_single = partial(weigh_tile, dtype=torch.float32)
        in_single.cache_clear = weigh_tile.cache_clear
        predict_from_raw_data.compute_gaussian = in_single
    Path(question["output"]).mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(question["model"], (0,))
    predictor.predict_from_files_sequential(question["scans"], question["output"], save_probabilities=True)
    return {}


def ensemble(question: dict, arrays: Arrays) -> Arrays:
    """Averages the probabilities of folders."""
    from nnunetv2.ensembling.ensemble import ensemble_folders

    ensemble_folders(question["folders"], question["output"], num_processes=1)
    return {}


def export(question: dict, arrays: Arrays) -> Arrays:
    """Turns logits of preprocessed cases into NUMBER_segmentation and NUMBER_probabilities."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    found = {}
    for number, case in enumerate(question["cases"]):
        plans = PlansManager(case["plans"])
        segmentation, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            arrays[f"{number}_logits"],
            plans,
            plans.get_configuration(case["configuration"]),
            plans.get_label_manager(case["dataset"]),
            case["properties"],
            return_probabilities=True,
        )
        found |= {f"{number}_segmentation": segmentation, f"{number}_probabilities": np.asarray(probabilities)}
    return found


def preprocess(question: dict, arrays: Arrays) -> Arrays:
    """Preprocesses arrays as cases: NUMBER_image, NUMBER_label, and NUMBER_box of the crop."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    found = {}
    for number, case in enumerate(question["cases"]):
        plans = PlansManager(case["plans"])
        configuration = plans.get_configuration(case["configuration"])
        preprocessor = configuration.preprocessor_class(verbose=False)
        image, label, properties = preprocessor.run_case_npy(
            arrays[f"{number}_image"],
            arrays[f"{number}_label"][np.newaxis],
            {"spacing": case["spacing"]},
            plans,
            configuration,
            case["dataset"],
        )
        found |= {f"{number}_image": image, f"{number}_label": label[0]}
        found[f"{number}_box"] = np.array(properties["bbox_used_for_cropping"])
    return found


def evaluate(question: dict, arrays: Arrays) -> Arrays:
    """Compares folders of label maps; writes summary.json beside the segmentations."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2

    for one in question["folders"]:
        compute_metrics_on_folder2(
            one["reference"], one["prediction"], one["dataset"], one["plans"], num_processes=1, chill=True
        )
    return {}


def decide(question: dict, arrays: Arrays) -> Arrays:
    """Finds the postprocessing of folders of segmentations, and applies it: postprocessing.json and postprocessed/."""
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    for one in question["folders"]:
        determine_postprocessing(one["prediction"], one["reference"], one["plans"], one["dataset"], num_processes=1)
    return {}


TASKS = {
    task.__name__: task
    for task in (
        prepare,
        read_cases,
        split,
        tile,
        weigh,
        save_model,
        train,
        ask_network,
        predict,
        ensemble,
        export,
        preprocess,
        evaluate,
        decide,
    )
}

if __name__ == "__main__":
    main()
