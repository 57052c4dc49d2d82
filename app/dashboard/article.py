"""The 52 instructions of the article by band: also those that this server does not have yet, which are told so."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.dashboard.reading import TIERS
from engine.instruction import TIERS as TIER_OF

BANDS: Mapping[str, tuple[str, ...]] = {
    "preprocessing": (
        "text_normalization",
        "deduplication",
        "dynamic_sharding",
        "quality_filter",
        "label_noise_detection",
        "pii_redaction",
        "multimodal_alignment",
        "decontamination",
        "stratified_split",
        "class_rebalancing",
        "length_bucketing",
        "sequence_packing",
    ),
    "augmentation": (
        "character_noise",
        "random_word_edits",
        "contextual_augmentation",
        "mixup",
        "image_augmentation",
        "cutoff",
    ),
    "gradients": (
        "low_rank_adaptation",
        "warmup_schedule",
        "weight_averaging",
        "adaptive_gradient_clipping",
        "sharpness_aware_minimization",
        "gradient_accumulation",
        "activation_checkpointing",
    ),
    "mixed_precision": (
        "autocast",
        "bf16_weights",
        "dynamic_loss_scaling",
        "eight_bit_optimizer",
        "float8_training",
    ),
    "adversarial_defence": (
        "adversarial_training",
        "poison_screening",
        "attention_detection",
        "feature_squeezing",
        "randomized_smoothing",
        "robustness_audit",
    ),
    "privacy": (
        "dp_sgd",
        "secure_aggregation",
        "membership_inference_audit",
        "dp_gradient_aggregation",
        "privacy_canaries",
        "exact_unlearning",
    ),
    "compression": (
        "knowledge_distillation",
        "semi_structured_sparsity",
        "structured_pruning",
        "low_rank_factorization",
        "post_training_quantization",
        "vocabulary_trimming",
    ),
    "quantization_aware_training": (
        "quantization_aware_training",
        "learned_step_size",
        "dynamic_range",
        "mixed_bit_allocation",
    ),
}
"""The names of each band; their numbers run on from 1."""


@dataclass(frozen=True)
class Named:
    """One of the 52."""

    number: int
    name: str
    band: str
    tier: str


def _numbered() -> Iterator[Named]:
    number = 0
    for band, names in BANDS.items():
        for name in names:
            number += 1
            yield Named(number, name, band, TIER_OF[band])


ALL = tuple(_numbered())
NUMBERS_OF_TIERS = tuple((tier, tuple(one.number for one in ALL if one.tier == tier)) for tier in TIERS)
"""The levels of the pyramid from the top, each with its numbers."""
