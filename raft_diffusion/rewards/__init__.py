"""Rewards that look at pictures. Importing them is cheap; models are loaded by ``load()`` and shared within the process."""

from raft_diffusion.rewards.aesthetic import Aesthetic
from raft_diffusion.rewards.clip_score import ClipScore
from raft_diffusion.rewards.gen_eval import GenEval
from raft_diffusion.rewards.hps import HpsV2
from raft_diffusion.rewards.image_reward import ImageReward
from raft_diffusion.rewards.jpeg import JpegCompressibility, JpegIncompressibility
from raft_diffusion.rewards.ocr import Ocr
from raft_diffusion.rewards.pick_score import PickScore
from raft_diffusion.rewards.pixels import Colorfulness, Contrast, Sharpness
from raft_diffusion.rewards.vlm_judge import VlmJudge

__all__ = [
    "Aesthetic",
    "ClipScore",
    "Colorfulness",
    "Contrast",
    "GenEval",
    "HpsV2",
    "ImageReward",
    "JpegCompressibility",
    "JpegIncompressibility",
    "Ocr",
    "PickScore",
    "Sharpness",
    "VlmJudge",
]
