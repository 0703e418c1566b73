"""The table of the built-in networks of the literature; a new network is a new file and a line here."""

from autoseg.networks.literature.attention_unet import ATTENTION_UNET
from autoseg.networks.literature.conresnet import CONRESNET
from autoseg.networks.literature.cotr import COTR
from autoseg.networks.literature.high_resolution import HIGH_RESOLUTION
from autoseg.networks.literature.nnformer import NNFORMER
from autoseg.networks.literature.resnet_unet import RESNET_UNET
from autoseg.networks.literature.swin_unet import SWIN_UNET
from autoseg.networks.literature.transunet import TRANSUNET
from autoseg.networks.literature.unet import UNET
from autoseg.networks.literature.unet_3d import UNET_3D
from autoseg.networks.literature.unet_3plus import UNET_3PLUS
from autoseg.networks.literature.unet_plus_plus import UNET_PLUS_PLUS
from autoseg.networks.literature.vnet import VNET
from autoseg.networks.spec import NetworkSpec

NETWORKS: dict[str, NetworkSpec] = {
    "unet": UNET,
    "unet_3d": UNET_3D,
    "vnet": VNET,
    "resnet_unet": RESNET_UNET,
    "attention_unet": ATTENTION_UNET,
    "unet_plus_plus": UNET_PLUS_PLUS,
    "unet_3plus": UNET_3PLUS,
    "conresnet": CONRESNET,
    "high_resolution": HIGH_RESOLUTION,
    "cotr": COTR,
    "transunet": TRANSUNET,
    "nnformer": NNFORMER,
    "swin_unet": SWIN_UNET,
}
