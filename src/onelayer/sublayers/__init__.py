"""The sublayers: what a block is made of. Attention, the feed-forward network, and the optional norm around them."""
