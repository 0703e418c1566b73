"""Triton kernels of instance norm, the sum with a shortcut, and leaky ReLU; called by `fused_norm` alone.

A map of shape (n, c, *size) is a table for each sample, with a row for each voxel and a column for each channel; where
they are in memory is told by the steps from one row, and from one column, to the next. A program works on a part of the
rows and a block of the columns of a sample, and calculates in float32.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["voxels", "channels", "rows"])
def sum_squares(x, partial, voxels, channels, rows, row_step, column_step, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Writes the mean of a part of the rows, and the sum of squared differences from it, for each channel.

    Source of the way in which blocks are joined: Chan et al. 1983, which keeps its digits where the mean is large.

    Args:
        x: The map.
        partial: Receives (n, parts, 2, channels), float32.
        voxels: Number of voxels of a sample.
        channels: Number of channels.
        rows: Number of rows of a part, a multiple of ROWS.
        row_step: Distance of voxels in memory.
        column_step: Distance of channels in memory.
        ROWS: Number of rows that are read at once.
        COLUMNS: Number of channels of a program.
    """
    part, sample = tl.program_id(0), tl.program_id(2)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x += sample.to(tl.int64) * voxels * channels
    mean = tl.zeros([COLUMNS], tl.float32)
    squares = tl.zeros([COLUMNS], tl.float32)
    first = part * rows
    last = tl.minimum(first + rows, voxels)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row[:, None] < last) & (column[None, :] < channels)
        block = tl.load(x + row[:, None] * row_step + column[None, :] * column_step, mask=mask, other=0.0).to(
            tl.float32
        )
        count = tl.minimum(ROWS, last - start).to(tl.float32)
        before = (start - first).to(tl.float32)
        block_mean = tl.sum(block, axis=0) / count
        difference = tl.where(mask, block - block_mean[None, :], 0.0)
        shift = block_mean - mean
        mean += shift * (count / (before + count))
        squares += tl.sum(difference * difference, axis=0) + shift * shift * (before * count / (before + count))
    partial += (sample * tl.num_programs(0) + part) * 2 * channels + column
    tl.store(partial, mean, mask=column < channels)
    tl.store(partial + channels, squares, mask=column < channels)


@triton.jit(do_not_specialize=["voxels", "channels", "rows", "parts"])
def join_squares(
    partial, statistics, voxels, channels, rows, parts, epsilon, PARTS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Writes the mean of all rows and the inverse of the standard deviation, for each sample and channel.

    Args:
        partial: What `sum_squares` wrote, (n, parts, 2, channels).
        statistics: Receives (n, 2, channels), float32.
        voxels: Number of voxels of a sample.
        channels: Number of channels.
        rows: Number of rows of a part; the last may have fewer.
        parts: Number of parts.
        epsilon: Added to the variance.
        PARTS: Number of parts that are read at once.
        COLUMNS: Number of channels of a program.
    """
    sample = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    partial += sample * parts * 2 * channels
    mean = tl.zeros([COLUMNS], tl.float32)
    squares = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        mask = (part[:, None] < parts) & (column[None, :] < channels)
        count = tl.maximum(tl.minimum(rows, voxels - part * rows), 0).to(tl.float32)
        means = tl.load(partial + part[:, None] * 2 * channels + column[None, :], mask=mask, other=0.0)
        mean += tl.sum(means * count[:, None], axis=0) / voxels
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        mask = (part[:, None] < parts) & (column[None, :] < channels)
        count = tl.maximum(tl.minimum(rows, voxels - part * rows), 0).to(tl.float32)
        place = partial + part[:, None] * 2 * channels + column[None, :]
        difference = tl.load(place, mask=mask, other=0.0) - mean[None, :]
        inner = tl.load(place + channels, mask=mask, other=0.0)
        squares += tl.sum(inner + tl.where(mask, difference * difference * count[:, None], 0.0), axis=0)
    variance = squares / voxels
    statistics += sample * 2 * channels + column
    tl.store(statistics, mean, mask=column < channels)
    tl.store(statistics + channels, 1 / tl.sqrt(variance + epsilon), mask=column < channels)


@triton.jit(do_not_specialize=["voxels", "channels", "slope"])
def normalize(
    x, shortcut, y, statistics, weight, bias, voxels, channels, row_step, column_step, slope,
    HAS_SHORTCUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes the normalized, scaled and shifted map, plus a shortcut, after the leaky ReLU.

    Blocks of rows are taken from the last to the first: `sum_squares` read the last ones last, so that they may still
    be in the cache.

    Args:
        x: The map.
        shortcut: A map of the same shape and order, read if HAS_SHORTCUT.
        y: Receives the result.
        statistics: What `join_squares` wrote.
        weight: Scale of each channel.
        bias: Shift of each channel.
        voxels: Number of voxels of a sample.
        channels: Number of channels.
        row_step: Distance of voxels in memory.
        column_step: Distance of channels in memory.
        slope: Negative slope of the leaky ReLU; 1 leaves it out.
        HAS_SHORTCUT: Whether there is a shortcut.
        ROWS: Number of rows of a program.
        COLUMNS: Number of channels of a program.
    """
    row = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sample = tl.num_programs(2) - 1 - tl.program_id(2)
    in_table = column < channels
    mask = (row[:, None] < voxels) & in_table[None, :]
    place = sample.to(tl.int64) * voxels * channels + (row[:, None] * row_step + column[None, :] * column_step)
    mean = tl.load(statistics + sample * 2 * channels + column, mask=in_table, other=0.0)
    scale = tl.load(statistics + (sample * 2 + 1) * channels + column, mask=in_table, other=0.0)
    scale *= tl.load(weight + column, mask=in_table, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=in_table, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    value = (value - mean[None, :]) * scale[None, :] + shift[None, :]
    if HAS_SHORTCUT:
        value += tl.load(shortcut + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + place, tl.where(value > 0, value, value * slope), mask=mask)


@triton.jit
def _gradient_of_sum(gradient, value, shift, y, place, mask, slope, HAS_SHORTCUT: tl.constexpr):
    """Returns the gradient before the leaky ReLU, whose sign is that of the result, or follows without a shortcut."""
    result = tl.load(y + place, mask=mask, other=0.0).to(tl.float32) if HAS_SHORTCUT else value + shift
    gradient = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
    return tl.where(result > 0, gradient, gradient * slope)


@triton.jit(do_not_specialize=["voxels", "channels", "rows", "slope"])
def sum_gradients(
    gradient, x, y, statistics, weight, bias, partial, voxels, channels, rows, row_step, column_step, slope,
    HAS_SHORTCUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes, for a part of the rows, the sums of the gradient of bias and of weight, for each channel.

    Args:
        gradient: Gradient of the result, in the order of the map.
        x: The map.
        y: The result, read if HAS_SHORTCUT; else its sign follows from the map.
        statistics: What `join_squares` wrote.
        weight: Scale of each channel.
        bias: Shift of each channel.
        partial: Receives (n, parts, 2, channels), float32.
        voxels: Number of voxels of a sample.
        channels: Number of channels.
        rows: Number of rows of a part, a multiple of ROWS.
        row_step: Distance of voxels in memory.
        column_step: Distance of channels in memory.
        slope: Negative slope of the leaky ReLU; 1 leaves it out.
        HAS_SHORTCUT: Whether there was a shortcut.
        ROWS: Number of rows that are read at once.
        COLUMNS: Number of channels of a program.
    """
    part, sample = tl.program_id(0), tl.program_id(2)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_table = column < channels
    mean = tl.load(statistics + sample * 2 * channels + column, mask=in_table, other=0.0)
    scale = tl.load(statistics + (sample * 2 + 1) * channels + column, mask=in_table, other=0.0)
    factor = scale * tl.load(weight + column, mask=in_table, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=in_table, other=0.0).to(tl.float32)
    of_bias = tl.zeros([COLUMNS], tl.float32)
    of_weight = tl.zeros([COLUMNS], tl.float32)
    first = part * rows
    last = tl.minimum(first + rows, voxels)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row[:, None] < last) & in_table[None, :]
        place = sample.to(tl.int64) * voxels * channels + (row[:, None] * row_step + column[None, :] * column_step)
        centred = tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - mean[None, :]
        of_sum = _gradient_of_sum(
            gradient, centred * factor[None, :], shift[None, :], y, place, mask, slope, HAS_SHORTCUT
        )
        of_bias += tl.sum(of_sum, axis=0)
        of_weight += tl.sum(of_sum * centred, axis=0)
    partial += (sample * tl.num_programs(0) + part) * 2 * channels + column
    tl.store(partial, of_bias, mask=in_table)
    tl.store(partial + channels, of_weight * scale, mask=in_table)


@triton.jit(do_not_specialize=["voxels", "channels", "slope"])
def gradient_of_map(
    gradient, x, y, statistics, weight, bias, sums, of_x, of_shortcut, voxels, channels, row_step, column_step, slope,
    HAS_SHORTCUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of the map, and of the shortcut if HAS_SHORTCUT.

    For the arguments that are not listed see `sum_gradients`; for the order of the rows see `normalize`.

    Args:
        sums: The sums of `sum_gradients` over all parts, (n, 2, channels).
        of_x: Receives the gradient of the map.
        of_shortcut: Receives that of the shortcut.
    """
    row = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sample = tl.num_programs(2) - 1 - tl.program_id(2)
    in_table = column < channels
    mask = (row[:, None] < voxels) & in_table[None, :]
    place = sample.to(tl.int64) * voxels * channels + (row[:, None] * row_step + column[None, :] * column_step)
    mean = tl.load(statistics + sample * 2 * channels + column, mask=in_table, other=0.0)
    scale = tl.load(statistics + (sample * 2 + 1) * channels + column, mask=in_table, other=0.0)
    factor = scale * tl.load(weight + column, mask=in_table, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=in_table, other=0.0).to(tl.float32)
    of_bias = tl.load(sums + sample * 2 * channels + column, mask=in_table, other=0.0) / voxels
    of_weight = tl.load(sums + (sample * 2 + 1) * channels + column, mask=in_table, other=0.0) / voxels
    centred = tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - mean[None, :]
    of_sum = _gradient_of_sum(gradient, centred * factor[None, :], shift[None, :], y, place, mask, slope, HAS_SHORTCUT)
    if HAS_SHORTCUT:
        tl.store(of_shortcut + place, of_sum, mask=mask)
    normalized = centred * scale[None, :]
    of_value = factor[None, :] * (of_sum - of_bias[None, :] - normalized * of_weight[None, :])
    tl.store(of_x + place, of_value, mask=mask)
