"""Distances and similarities between vectors."""

from lohe._C import ops

cosine_similarity = ops.cosine_similarity
pairwise_distance = ops.pairwise_distance
pdist = ops.pdist
