"""Settings with which the networks of MONAI are small enough for tests."""

NARROW = {
    "UNet": {"channels": [4, 8, 16], "strides": [2, 2]},
    "AttentionUnet": {"channels": [4, 8, 16], "strides": [2, 2]},
    "BasicUNet": {"features": [4, 4, 8, 8, 8, 4]},
    "BasicUNetPlusPlus": {"features": [4, 4, 8, 8, 8, 4], "deep_supervision": True},
    "DynUNet": {
        "kernel_size": [3] * 4,
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2] * 3,
        "filters": [4, 8, 8, 8],
        "deep_supervision": True,
        "deep_supr_num": 2,
    },
    "SegResNet": {"blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "SegResNetDS": {"init_filters": 8, "blocks_down": [1, 1, 1], "dsdepth": 2},
    "SegResNetDS2": {"init_filters": 8, "blocks_down": [1, 1, 1], "dsdepth": 2},
    "MedNeXt": {"init_filters": 4, "blocks_down": [1, 1], "blocks_up": [1, 1], "deep_supervision": True},
    "UNETR": {"feature_size": 4, "hidden_size": 24, "mlp_dim": 24},
    "SwinUNETR": {"feature_size": 12},
    "VNet": {"dropout_prob_down": None, "dropout_prob_up": [None, 0.0]},
}
