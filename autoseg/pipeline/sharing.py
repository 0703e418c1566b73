"""Models passed on: in one file from user to user, and from and to nnU-Net.

The functions are defined where the formats are known: `models.bundle` and `nnunet`.
"""

from autoseg.models.bundle import export_model, install_model
from autoseg.nnunet.dataset_install import install_nnunet
from autoseg.nnunet.export import export_nnunet

__all__ = ["export_model", "export_nnunet", "install_model", "install_nnunet"]
