"""Made plans.zip in this folder, at commit 7b480b6: a workspace of plans of every kind, without images.

    PYTHONPATH=.:tests:tests/planning:tests/golden/version_1 python tests/golden/version_1/make_plans.py

It is kept to show how they were made. It uses modules as they were named at that commit, and need not run later.
"""

import json
import shutil
import tempfile
from pathlib import Path

from autoseg.decisions import plan_configurations
from autoseg.fingerprint import Fingerprint
from autoseg.networks.table import NETWORKS
from autoseg.plan import Plan
from autoseg.planning.correction import correct_plan
from make import HERE, pack
from planning_cases import GOLDEN, fingerprint_of
from test_mirroring import KIDNEYS, facts_of

from autoseg.planning.presets import RULES
from autoseg.workspace import DatasetFolders, Workspace

MONAI = ("UNet", "BasicUNet", "DynUNet", "SegResNet", "UNETR", "SwinUNETR")
ORGANS = {"background": 0, "liver": 1, "tumour": 2}
ANY = {"channel_names": {"0": "CT", "1": "MR"}, "file_ending": ".nii.gz"}
ONE = {**ANY, "channel_names": {"0": "CT"}}
SPACING_MM = (2.0, 0.8, 0.8)


def volumes(channels: int = 1) -> Fingerprint:
    """Volumes that are large enough for a cascade."""
    shapes = [(180 + 20 * number, 400 + 8 * number, 420) for number in range(8)]
    return fingerprint_of(shapes, [SPACING_MM] * 8, channels=channels, kept_share=0.9)


def begin(workspace: Workspace, number: int, name: str, info: dict, fingerprint: Fingerprint) -> DatasetFolders:
    """Writes a dataset without images."""
    folders = workspace.folders(f"Dataset{number:03d}_{name}")
    folders.raw.mkdir(parents=True)
    (folders.raw / "dataset.json").write_text(json.dumps(info))
    fingerprint.save(folders.fingerprint)
    return folders


def edit(folders: DatasetFolders, name: str, change) -> None:
    """Plans anew by that name, changes the file as a user would, and writes it as the program does."""
    number = int(folders.raw.name[7:10])
    plan_configurations(number, preset="8gb", plan_name=name, workspace=folders.raw.parents[1])
    path = folders.with_plan(name).plan
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    Plan.load(path).save(path)


def make_presets(workspace: Workspace) -> DatasetFolders:
    """All presets, and what training found out about memory."""
    folders = begin(workspace, 1, "Volumes", {**ANY, "labels": ORGANS}, volumes(2))
    for rules, known in RULES.items():
        for preset in known.presets:
            plan_configurations(1, preset=preset, rules=rules, plan_name=f"preset_{preset}", workspace=workspace.root)
    plan = plan_configurations(1, preset="8gb", plan_name="measured", workspace=workspace.root)
    for name, recomputed in (("2d", False), ("3d_fullres", True)):
        one = plan.configurations[name]
        plan = correct_plan(plan, name, {one.batch_size: 2 * one.estimated_bytes}, recomputed=recomputed)
    plan.save(folders.with_plan("measured").plan)
    return folders


def make_networks(workspace: Workspace) -> None:
    """Networks of the literature and of MONAI."""
    begin(workspace, 2, "Networks", {**ONE, "labels": ORGANS}, volumes())
    for name in NETWORKS:
        plan_configurations(2, preset="24gb", network=name, plan_name=f"network_{name}", workspace=workspace.root)
    given = "unet:padded=false,depth=4"
    plan_configurations(2, preset="24gb", network=given, plan_name="network_settings", workspace=workspace.root)
    for name in MONAI:
        chosen = f"monai:{name}"
        plan_configurations(2, preset="24gb", network=chosen, plan_name=f"monai_{name}", workspace=workspace.root)


def make_edited(folders: DatasetFolders) -> None:
    """Parts of an installed package, and settings that differ from the usual ones."""

    def custom(plan: dict) -> None:
        plan["training"]["loss"]["own"] = {"name": "my_loss", "settings": {"factor": 2.5, "names": ["a", None]}}
        one = plan["configurations"]["3d_fullres"]
        one["network"] = {"name": "my_network", "settings": {"features": 16, "deep": {"own": True}}}
        one["augmentation"]["own"] = [{"name": "my_transform", "settings": {}, "probability": 0.25}, {"name": "other"}]

    def adamw(plan: dict) -> None:
        plan["training"] |= {
            "budget_seconds": 3600.0, "optimizer": "adamw", "learning_rate": 1e-4, "adam_betas": [0.8, 0.99],
            "schedule": "cosine", "schedule_power": 0.9, "warmup_share": 0.05, "micro_batch_size": 1,
            "recompute_activations": True, "compile": "off", "seed": 7,
            "loss": {"overlap": "tversky", "voxelwise": "focal", "focal_exponent": 3.0, "overlap_weight": 0.5,
                     "class_weights": [1.0, 2.0, 3.0]},
        }  # fmt: skip

    def plateau(plan: dict) -> None:
        plan["training"] |= {"schedule": "plateau", "plateau_share": 0.1, "step_factor": 0.2, "average_decay": 0.999}
        plan["training"]["loss"] = {"overlap": "squared_dice", "voxelwise": "top_k", "top_k_share": 0.2}
        plan["configurations"]["3d_fullres"]["augmentation"] |= {
            "deformation_probability": 0.2, "histogram_matching_probability": 0.1, "rotation_axes": [0],
        }  # fmt: skip

    edit(folders, "custom", custom)
    edit(folders, "adamw", adamw)
    edit(folders, "plateau", plateau)


def make_labels(workspace: Workspace) -> None:
    """What a dataset.json may say of labels, channels and files."""
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3}
    pictures = fingerprint_of([(1, 480, 640)] * 6, [(999.0, 1.0, 1.0)] * 6, channels=3)
    begin(workspace, 3, "Regions", {**ONE, "labels": regions, "regions_class_order": [1, 2, 3]}, volumes())
    begin(workspace, 4, "Ignore", {**ONE, "labels": {**ORGANS, "ignore": 3}}, volumes())
    masks = {"background": 0, "lung": [1, 2], "nodule": [2], "vessel": [3]}
    begin(workspace, 5, "Masks", {**ONE, "labels": masks, "masks": True}, volumes())
    sides = {"background": 0, "kidney_left": 1, "kidney_right": 2}
    begin(workspace, 6, "Sides", {**ONE, "labels": sides}, facts_of(KIDNEYS))
    begin(workspace, 7, "Lone", {**ONE, "labels": {"background": 0, "kidney_left": 1}}, facts_of({1: KIDNEYS[1]}))
    words = {"sides": [["venstre", "hoejre"]], "groups": "^(p\\d+)_", "name": "Kidneys"}
    named = {"background": 0, "venstre nyre": 1, "hoejre nyre": 2}
    begin(workspace, 8, "Words", {**ONE, **words, "labels": named}, facts_of(KIDNEYS))
    colours = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    begin(workspace, 9, "Pictures", {**colours, "labels": {"background": 0, "cell": 1}}, pictures)
    partly = {"annotated": {"case_000": ["liver"]}, "groups": {"case_000": "a", "case_001": "a"}}
    reader = {"overwrite_image_reader_writer": "NibabelIOWithReorient", "numTraining": 8}
    begin(workspace, 10, "Annotated", {**ONE, **partly, **reader, "labels": ORGANS}, volumes())
    for name, scheme in (("Rescaled", "rescale_to_0_1"), ("Untouched", "noNorm")):
        number = 11 + (name == "Untouched")
        begin(workspace, number, name, {**ONE, "channel_names": {"0": scheme}, "labels": ORGANS}, volumes())
    for number in range(3, 13):
        plan_configurations(number, preset="8gb", plan_name="usual", workspace=workspace.root)


def make_theirs(workspace: Workspace) -> None:
    """Of a fingerprint that nnU-Net took, and files of folds that it dealt."""
    folders = workspace.folders("Dataset013_Theirs")
    folders.raw.mkdir(parents=True)
    folders.preprocessed.mkdir(parents=True)
    shutil.copy(GOLDEN / "LiverCT" / "dataset.json", folders.raw)
    shutil.copy(GOLDEN / "LiverCT" / "dataset_fingerprint.json", folders.preprocessed)
    plan_configurations(13, preset="resenc_l", rules="nnunet", plan_name="usual", workspace=workspace.root)


def main() -> None:
    """Makes all, and writes it beside this file."""
    with tempfile.TemporaryDirectory() as name:
        workspace = Workspace(root=Path(name))
        folders = make_presets(workspace)
        make_networks(workspace)
        make_edited(folders)
        make_labels(workspace)
        make_theirs(workspace)
        pack(workspace.root, HERE / "plans.zip")


if __name__ == "__main__":
    main()
