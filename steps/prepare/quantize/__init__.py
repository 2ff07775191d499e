"""Weights in another precision: by AMD Quark in memory, shard by shard, or simulated."""
