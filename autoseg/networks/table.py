"""All networks of the literature that are built in: a network more is a page more, and a line here."""

from autoseg.networks.attention_unet import ATTENTION_UNET
from autoseg.networks.conresnet import CONRESNET
from autoseg.networks.cotr import COTR
from autoseg.networks.high_resolution import HIGH_RESOLUTION
from autoseg.networks.nnformer import NNFORMER
from autoseg.networks.page import Page
from autoseg.networks.resnet_unet import RESNET_UNET
from autoseg.networks.swin_unet import SWIN_UNET
from autoseg.networks.transunet import TRANSUNET
from autoseg.networks.unet import UNET
from autoseg.networks.unet_3d import UNET_3D
from autoseg.networks.unet_3plus import UNET_3PLUS
from autoseg.networks.unet_plus_plus import UNET_PLUS_PLUS
from autoseg.networks.vnet import VNET

NETWORKS: dict[str, Page] = {
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
