"""Where trials run, and the mirror that shows them."""
