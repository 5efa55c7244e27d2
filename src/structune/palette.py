"""The colours of figures: of Okabe and Ito, which colour-blind readers tell apart, and the ink and the grid."""

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
INK, GREY, GRID = "#333333", "#8a8a8a", "#e6e6e6"

SERIES = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK]
"""Of lines whose kinds have no colours, in their order."""
