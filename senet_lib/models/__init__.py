"""Networks, their blocks and attentions, and the registry that names them."""

from senet_lib import plugins
from senet_lib.models.attention import (
    _ATTENTIONS,
    AttentionSpec,
    list_attentions,
    register_attention,
)
from senet_lib.models.foreign_weights import copy_weights
from senet_lib.models.registry import (
    _MODELS,
    all_settings,
    check_name,
    create_model,
    describe,
    input_size,
    list_models,
    register_model,
    register_with_timm,
    split_name,
)

__all__ = [
    "AttentionSpec",
    "all_settings",
    "check_name",
    "copy_weights",
    "create_model",
    "describe",
    "input_size",
    "list_attentions",
    "list_models",
    "register_attention",
    "register_model",
    "register_with_timm",
    "split_name",
]

plugins.load([_MODELS, _ATTENTIONS])
