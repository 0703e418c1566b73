"""The network of Segment Anything: an image and prompts, such as a box, become the mask of what is prompted.

The image encoder, which does most of the work, sees the image alone; the mask decoder then answers as many prompts as
wanted. The weights have the names of the published checkpoints, of which `sizes` reads how large the network is.

Source: Kirillov et al., Segment Anything, ICCV 2023, with its published implementation (Apache-2.0); MedSAM (Ma et al.,
Nature Communications 15:654, 2024) has the same network with other weights.

    sizes.py                how large the parts are, by the shapes of the weights
    image_encoder.py        a transformer over patches of the image, mostly in windows
    prompt_encoder.py       points, corners of boxes and coarse masks as features
    two_way_transformer.py  attention between the prompts and the image, in both directions
    mask_decoder.py         masks and their estimated quality
    network.py              all of it, and the loading of weights
"""
