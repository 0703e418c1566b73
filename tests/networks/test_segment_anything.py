"""The network of Segment Anything has the published weights, and calculates what the papers say."""

import re

import pytest
import torch
from small_segment_anything import TINY, random_network

from autoseg.errors import ModelError
from autoseg.networks.segment_anything.image_encoder import _WindowAttention
from autoseg.networks.segment_anything.network import SegmentAnything, build_from_weights
from autoseg.networks.segment_anything.prompt_encoder import TokenKind
from autoseg.networks.segment_anything.sizes import VIT_B, VIT_H, VIT_L, Sizes, read_sizes

PUBLISHED = {  # names of weights in the published checkpoints, without the numbers of blocks and layers
    "image_encoder.pos_embed", "image_encoder.patch_embed.proj.{}", "image_encoder.blocks.#.norm1.{}",
    "image_encoder.blocks.#.attn.rel_pos_h", "image_encoder.blocks.#.attn.rel_pos_w",
    "image_encoder.blocks.#.attn.qkv.{}", "image_encoder.blocks.#.attn.proj.{}", "image_encoder.blocks.#.norm2.{}",
    "image_encoder.blocks.#.mlp.lin1.{}", "image_encoder.blocks.#.mlp.lin2.{}", "image_encoder.neck.0.weight",
    "image_encoder.neck.1.{}", "image_encoder.neck.2.weight", "image_encoder.neck.3.{}",
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "prompt_encoder.point_embeddings.#.weight",
    "prompt_encoder.not_a_point_embed.weight", "prompt_encoder.no_mask_embed.weight",
    *(f"prompt_encoder.mask_downscaling.{number}.{{}}" for number in (0, 1, 3, 4, 6)),
    *(
        f"mask_decoder.transformer.{part}.{projection}_proj.{{}}"
        for part in (
            "layers.#.self_attn", "layers.#.cross_attn_token_to_image", "layers.#.cross_attn_image_to_token",
            "final_attn_token_to_image",
        )
        for projection in ("q", "k", "v", "out")
    ),
    *(f"mask_decoder.transformer.layers.#.norm{number}.{{}}" for number in (1, 2, 3, 4)),
    "mask_decoder.transformer.layers.#.mlp.lin1.{}", "mask_decoder.transformer.layers.#.mlp.lin2.{}",
    "mask_decoder.transformer.norm_final_attn.{}", "mask_decoder.iou_token.weight", "mask_decoder.mask_tokens.weight",
    *(f"mask_decoder.output_upscaling.{number}.{{}}" for number in (0, 1, 3)),
    "mask_decoder.output_hypernetworks_mlps.#.layers.#.{}", "mask_decoder.iou_prediction_head.layers.#.{}",
}  # fmt: skip


def on_meta(sizes: Sizes) -> SegmentAnything:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return SegmentAnything(sizes)


@pytest.mark.parametrize(
    ("sizes", "encoder", "total"),
    [(VIT_B, 89_670_912, 93_735_472), (VIT_L, 308_278_272, 312_342_832), (VIT_H, 637_026_048, 641_090_608)],
    ids=["B", "L", "H"],
)
def test_published_sizes_have_the_published_numbers_of_parameters(sizes: Sizes, encoder: int, total: int) -> None:
    """In total and in each part; the weights say which size it is."""
    network = on_meta(sizes)
    parts = (network.image_encoder, network.prompt_encoder, network.mask_decoder, network)
    counts = [sum(weight.numel() for weight in part.parameters()) for part in parts]
    assert counts == [encoder, 6_220, 4_058_340, total]
    assert read_sizes(network.state_dict(), "these") == sizes


def test_weights_have_the_published_names() -> None:
    """All of them, and no other."""
    found = set()
    for name in on_meta(VIT_B).state_dict():
        general = re.sub(r"(blocks|layers|point_embeddings|output_hypernetworks_mlps)\.\d+", r"\1.#", name)
        found.add(general)
    expected = {
        name.format(kind) for name in PUBLISHED for kind in (("weight", "bias") if name.endswith("{}") else ("",))
    }
    assert found == expected
    shapes = {name: tuple(weight.shape) for name, weight in on_meta(VIT_B).state_dict().items()}
    assert shapes["image_encoder.pos_embed"] == (1, 64, 64, 768)
    assert shapes["image_encoder.blocks.0.attn.rel_pos_h"] == (27, 64)
    assert [shapes[f"image_encoder.blocks.{number}.attn.rel_pos_w"][0] for number in (2, 5, 8, 11)] == [127] * 4
    assert shapes["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] == (2, 128)
    assert shapes["mask_decoder.output_upscaling.0.weight"] == (256, 64, 2, 2)
    assert shapes["mask_decoder.output_hypernetworks_mlps.3.layers.2.weight"] == (32, 256)


def test_shapes_of_a_whole_pass() -> None:
    """Several prompts on one encoded image, also with a coarse mask."""
    network = random_network()
    points, kinds = torch.zeros(5, 3, 2), torch.full((5, 3), int(TokenKind.FOREGROUND))
    with torch.no_grad():
        encoded = network.encode(torch.zeros(1, 3, 64, 64))
        logits, qualities = network.decode(encoded, points, kinds)
        refined, _ = network.decode(encoded, points, kinds, logits[:, :1])
    assert encoded.shape == (1, 64, 8, 8)
    assert logits.shape == refined.shape == (5, 4, 32, 32)
    assert qualities.shape == (5, 4)
    assert not torch.allclose(logits, refined)


def test_window_attention_is_that_of_the_paper() -> None:
    """Written as sums over pairs: windows by slicing, zeros beyond the image, a bias by query and offset."""
    torch.manual_seed(3)
    edge, size, heads, width = 3, 8, TINY.width // TINY.head_width, TINY.head_width
    layer = _WindowAttention(TINY, edge).requires_grad_(requires_grad=False)
    for table in (layer.rel_pos_h, layer.rel_pos_w):
        table.normal_()
    image = torch.randn(1, size, size, TINY.width)
    found = layer(image)
    padded = torch.zeros(9, 9, TINY.width)
    padded[:size, :size] = image[0]
    expected = torch.zeros_like(padded)
    places = [(y, x) for y in range(edge) for x in range(edge)]
    bias = torch.zeros(heads, 9, 9)
    for top in range(0, 9, edge):
        for left in range(0, 9, edge):
            patches = padded[top : top + edge, left : left + edge].reshape(9, -1)
            query, key, value = layer.qkv(patches).view(9, 3, heads, width).permute(1, 2, 0, 3)
            for i, (y, x) in enumerate(places):
                for j, (other_y, other_x) in enumerate(places):
                    offsets = layer.rel_pos_h[y - other_y + 2] + layer.rel_pos_w[x - other_x + 2]
                    bias[:, i, j] = query[:, i] @ offsets
            shares = (query @ key.mT / width**0.5 + bias).softmax(dim=2)
            mixed = (shares @ value).transpose(0, 1).reshape(9, -1)
            expected[top : top + edge, left : left + edge] = layer.proj(mixed).view(edge, edge, -1)
    assert torch.allclose(found[0], expected[:size, :size], atol=1e-4)


def test_a_box_is_two_corners_and_padding_has_no_place() -> None:
    """Corners at another place, or exchanged, are other tokens; where padding lies does not matter."""
    network = random_network()
    encode = network.prompt_encoder.encode_points
    corners = torch.tensor([[[8.0, 4.0], [40.0, 50.0]]])
    kinds = torch.tensor([[TokenKind.FIRST_CORNER, TokenKind.LAST_CORNER]])
    tokens = encode(corners, kinds)
    assert tokens.shape == (1, 2, TINY.features)
    angles = (
        2
        * torch.pi
        * (2 * (corners[0] + 0.5) / TINY.image - 1)
        @ network.state_dict()["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    )
    for number, table in ((0, 2), (1, 3)):
        meaning = network.prompt_encoder.point_embeddings[table].weight[0]
        assert torch.allclose(tokens[0, number], torch.cat([angles.sin(), angles.cos()], dim=1)[number] + meaning)
    assert not torch.allclose(encode(corners.flip(1), kinds), tokens)
    padding = torch.full((1, 2), int(TokenKind.PADDING))
    assert torch.equal(encode(corners, padding), encode(corners + 9, padding))


def test_weights_of_a_file_give_the_same_masks() -> None:
    """In any number type, and without gradients."""
    network = random_network()
    again = build_from_weights({name: weight.double() for name, weight in network.state_dict().items()}, "these")
    assert again.sizes == TINY
    assert not any(weight.requires_grad for weight in again.parameters())
    image, points = torch.randn(1, 3, 64, 64), torch.rand(2, 1, 2) * 64
    kinds = torch.ones(2, 1, dtype=torch.long)
    with torch.no_grad():
        masks = [one.decode(one.encode(image), points, kinds)[0] for one in (network, again)]
    assert torch.equal(*masks)
    assert not torch.allclose(masks[0][0], masks[0][1])  # two points mean two things


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image_encoder.pos_embed": None}, "these lacks the weights 'image_encoder.pos_embed' of Segment Anything"),
        ({"mask_decoder.iou_token.weight": None}, "lacks the weights 'mask_decoder.iou_token.weight'"),
        ({"image_encoder.pos_embed": torch.zeros(1, 8, 9, 64)}, "is for images of 64 x 72 pixels"),
        ({"image_encoder.pos_embed": torch.zeros(1, 300, 300, 1)}, "is for images of 2400 x 2400 pixels"),
        ({"image_encoder.pos_embed": torch.zeros(3)}, "'image_encoder.pos_embed' have the shape 3;"),
        ({"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(5, 24)}, "rel_pos_h' have the shape 5 x 24"),
        ({"image_encoder.blocks.0.attn.rel_pos_h": None}, "lacks the weights 'image_encoder.blocks.0.attn.rel_pos_h'"),
        ({"mask_decoder.mask_tokens.weight": torch.zeros(4, 60)}, "60"),
        ({"image_encoder.neck.1.bias": torch.full((64,), torch.nan)}, "'image_encoder.neck.1.bias' are not all finite"),
        ({"image_encoder.neck.1.bias": torch.zeros(3)}, "'image_encoder.neck.1.bias' have the shape 3 instead of 64"),
        ({"extra.weight": torch.zeros(3)}, "these holds the weights 'extra.weight', which this network has not"),
    ],
)
def test_other_weights_are_named(change: dict, text: str) -> None:
    """One that lacks, one too many, and shapes that do not fit together."""
    weights = {**random_network().state_dict(), **change}
    with pytest.raises(ModelError) as caught:
        build_from_weights({name: value for name, value in weights.items() if value is not None}, "these")
    assert text in str(caught.value)
