"""Rewards that look at pictures. Importing them is cheap; models are loaded by ``load()`` and shared within the process."""

from raft_diffusion.rewards.aesthetic import Aesthetic
from raft_diffusion.rewards.clip_score import ClipScore
from raft_diffusion.rewards.jpeg import JpegCompressibility, JpegIncompressibility

__all__ = ["Aesthetic", "ClipScore", "JpegCompressibility", "JpegIncompressibility"]
