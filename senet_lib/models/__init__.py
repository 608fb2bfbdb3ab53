"""Networks, their blocks and attentions, and the registry that names them."""

from senet_lib import plugins
from senet_lib.models.attention import _ATTENTIONS
from senet_lib.models.attention import AttentionSpec as AttentionSpec
from senet_lib.models.attention import list_attentions as list_attentions
from senet_lib.models.attention import register_attention as register_attention
from senet_lib.models.foreign_weights import copy_weights as copy_weights
from senet_lib.models.registry import _MODELS
from senet_lib.models.registry import all_settings as all_settings
from senet_lib.models.registry import check_name as check_name
from senet_lib.models.registry import create_model as create_model
from senet_lib.models.registry import describe as describe
from senet_lib.models.registry import input_size as input_size
from senet_lib.models.registry import list_models as list_models
from senet_lib.models.registry import register_model as register_model
from senet_lib.models.registry import register_with_timm as register_with_timm
from senet_lib.models.registry import split_name as split_name

plugins.load([_MODELS, _ATTENTIONS])
