"""The transformer of the mask decoder: tokens attend to each other and to the image, and the image to the tokens."""

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.segment_anything.layers import Perceptron
from autoseg.networks.segment_anything.sizes import DECODER_HEADS, Sizes


class TwoWayTransformer(nn.Module):
    """Exchanges information between tokens and image.

    Args:
        sizes: Sizes of the network.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(sizes, is_first=number == 0) for number in range(sizes.layers))
        self.final_attn_token_to_image = _Attention(sizes.features, sizes.attention_width)
        self.norm_final_attn = nn.LayerNorm(sizes.features)

    def forward(self, tokens: Tensor, pixels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the tokens and the pixels after all layers.

        Args:
            tokens: What is asked, shape (n, tokens, features).
            pixels: The encoded image, shape (n, pixels, features).
            places: Where each pixel lies, shape (1, pixels, features).
        """
        answers = tokens
        for layer in self.layers:
            answers, pixels = layer(answers, pixels, tokens, places)
        update = self.final_attn_token_to_image(answers + tokens, pixels + places, pixels)
        return self.norm_final_attn(answers + update), pixels


class _Layer(nn.Module):
    """Four steps, each with a norm after it: tokens to tokens, tokens to image, a perceptron, image to tokens."""

    def __init__(self, sizes: Sizes, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = _Attention(sizes.features, sizes.features)
        self.norm1 = nn.LayerNorm(sizes.features)
        self.cross_attn_token_to_image = _Attention(sizes.features, sizes.attention_width)
        self.norm2 = nn.LayerNorm(sizes.features)
        self.mlp = Perceptron(sizes.features, sizes.token_hidden, nn.ReLU())
        self.norm3 = nn.LayerNorm(sizes.features)
        self.norm4 = nn.LayerNorm(sizes.features)
        self.cross_attn_image_to_token = _Attention(sizes.features, sizes.attention_width)

    def forward(self, answers: Tensor, pixels: Tensor, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns answers and pixels; `tokens` are those that entered the transformer.

        The first layer replaces the tokens by what they attend to, instead of adding it.
        """
        if self.is_first:
            answers = self.norm1(self.self_attn(answers, answers, answers))
        else:
            asked = answers + tokens
            answers = self.norm1(answers + self.self_attn(asked, asked, answers))
        asked, found = answers + tokens, pixels + places
        answers = self.norm2(answers + self.cross_attn_token_to_image(asked, found, pixels))
        answers = self.norm3(answers + self.mlp(answers))
        asked = answers + tokens
        return answers, self.norm4(pixels + self.cross_attn_image_to_token(found, asked, answers))


class _Attention(nn.Module):
    """Multi-head attention, which may have fewer features inside than outside."""

    def __init__(self, features: int, inside: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(features, inside)
        self.k_proj = nn.Linear(features, inside)
        self.v_proj = nn.Linear(features, inside)
        self.out_proj = nn.Linear(inside, features)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Maps (n, tokens, features), and keys and values of any other number of tokens, to (n, tokens, features)."""
        queries, keys, values = (_split_heads(x) for x in (self.q_proj(query), self.k_proj(key), self.v_proj(value)))
        attended = F.scaled_dot_product_attention(queries, keys, values)
        result: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return result


def _split_heads(x: Tensor) -> Tensor:
    """Maps (n, tokens, features) to (n, heads, tokens, features of a head)."""
    samples, tokens, features = x.shape
    return x.view(samples, tokens, DECODER_HEADS, features // DECODER_HEADS).transpose(1, 2)
