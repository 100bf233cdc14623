# SPDX-License-Identifier: MIT
"""Every picture of the book in its one style: plots of data, training and attention, and diagrams.

A function returns a matplotlib Figure and leaves pyplot alone; ``show`` puts it into a notebook as
an image with alternative text. Tensors and arrays are taken alike. A colour means the same in all
of them (``ROLES``): orange the image and its patches, light blue tokens, dark blue the class token,
yellow positions, red attention, green the MLP, purple norms, grey the head.
"""

from .attention import plot_attention_arrows, plot_attention_map
from .attention_diagrams import attention_diagram, heads_diagram
from .bars import plot_bars, plot_ladder, plot_shares
from .canvas import Box, Canvas
from .curves import plot_history, plot_lines, plot_reliability
from .example import motif
from .images import plot_mistakes, show_groups, show_images
from .look import (
    CYCLE,
    DIVERGING,
    FONT_SIZE,
    MAX_WIDTH,
    PALETTE,
    ROLES,
    SEQUENTIAL,
    STYLE,
    WIDTH,
    style,
    use_style,
)
from .looking import (
    frames_html,
    plot_distance,
    plot_filters,
    plot_grids,
    plot_head_maps,
    plot_maps,
    show_frames,
)
from .matrices import plot_confusion, plot_heatmap
from .model_diagrams import HIGHLIGHTS, block_diagram, model_diagram
from .output import show, to_html, to_png, to_svg
from .pages import (
    comparison_diagram,
    notation_picture,
    page_pictures,
    write_pictures,
)
from .token_diagrams import (
    embedding_diagram,
    patch_cut_diagram,
    receptive_field_diagram,
    sequence_order_diagram,
)
from .tokens import plot_similarity, show_patches, show_token_sequence
from .training_diagrams import training_diagram

__all__ = [
    "CYCLE",
    "DIVERGING",
    "FONT_SIZE",
    "HIGHLIGHTS",
    "MAX_WIDTH",
    "PALETTE",
    "ROLES",
    "SEQUENTIAL",
    "STYLE",
    "WIDTH",
    "Box",
    "Canvas",
    "attention_diagram",
    "block_diagram",
    "comparison_diagram",
    "embedding_diagram",
    "frames_html",
    "heads_diagram",
    "model_diagram",
    "motif",
    "notation_picture",
    "page_pictures",
    "patch_cut_diagram",
    "plot_attention_arrows",
    "plot_attention_map",
    "plot_bars",
    "plot_confusion",
    "plot_distance",
    "plot_filters",
    "plot_grids",
    "plot_head_maps",
    "plot_heatmap",
    "plot_history",
    "plot_ladder",
    "plot_lines",
    "plot_maps",
    "plot_mistakes",
    "plot_reliability",
    "plot_shares",
    "plot_similarity",
    "receptive_field_diagram",
    "sequence_order_diagram",
    "show",
    "show_frames",
    "show_groups",
    "show_images",
    "show_patches",
    "show_token_sequence",
    "style",
    "to_html",
    "to_png",
    "to_svg",
    "training_diagram",
    "use_style",
    "write_pictures",
]
