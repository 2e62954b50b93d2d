"""Networks of other people, for ``python -m bench.models``: pytorchcv's and transformers', and those of the tests.

The two packages come with the extra ``zoo``. Nothing is downloaded: weights are random, and the networks of
transformers are small. pytorchcv's are imported from their own modules, because its ``model_provider`` wants
torchvision. Sizes are the smallest that the authors' code takes, or close to it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, Any]  # a model in eval mode; its inputs: a tensor, a tuple, or a dict of keyword arguments

# Group "pytorchcv": module, its function, side of a square picture in pixels; "=" where the network is built for it.
PYTORCHCV = """
inceptionv3 inceptionv3 299
inceptionv4 inceptionv4 299
inceptionresnetv1 inceptionresnetv1 299
inceptionresnetv2 inceptionresnetv2 299
bninception bninception 224
nasnet nasnet_4a1056 224
pnasnet pnasnet5large 331
darts darts 224
polynet polynet 331
xception xception 299
hrnet hrnet_w18_small_v1 224
hrnet hrnetv2_w18 224
dla dla34 224
dpn dpn68 224
fishnet fishnet99 224
msdnet msdnet22 160
sknet sknet50 224
scnet scnet50 128
airnet airnet50_1x64d_r2 224
octresnet octresnet10_ad2 224
selecsls selecsls42 224
peleenet peleenet 224
hardnet hardnet39ds 224
vovnet vovnet27s 224
densenet densenet121 224
condensenet condensenet74_c4_g4 224
resattnet resattnet56 224
resnet resnet18 224
resnet resnet50 224
preresnet preresnet18 224
resnesta resnestabc14 64
resnext resnext50_32x4d 224
seresnet seresnet18 224
seresnext seresnext50_32x4d 224
senet senet16 224
wrn wrn50_2 224
drn drnc26 224
regnet regnetx002 64
diapreresnet diapreresnet10 224
revnet revnet38 224
irevnet irevnet301 224
alexnet alexnet 224
zfnet zfnet 224
vgg vgg11 224
vgg bn_vgg11 224
squeezenet squeezenet_v1_0 224
squeezenext sqnxt23_w1 224
shufflenet shufflenet_g3_w1 224
shufflenetv2 shufflenetv2_wd2 224
mobilenet mobilenet_w1 224
mobilenetv2 mobilenetv2_w1 224
mobilenetv3 mobilenetv3_small_w1 224
efficientnet efficientnet_b0 64
ghostnet ghostnet 224
mixnet mixnet_s 224
mnasnet mnasnet_b1 224
channelnet channelnet 224
espnetv2 espnetv2_wd2 224
nin_cifar nin_cifar10 32
fractalnet_cifar fractalnet_cifar10 32
shakeshakeresnet_cifar shakeshakeresnet20_2x16d_cifar10 32
unet unet_cityscapes 64
linknet linknet_cityscapes 64
segnet segnet_cityscapes 64
enet enet_cityscapes 64
cgnet cgnet_cityscapes 64
sinet sinet_cityscapes 128
dabnet dabnet_cityscapes 64
lednet lednet_cityscapes 64
contextnet ctxnet_cityscapes 64
fastscnn fastscnn_cityscapes =128
icnet icnet_resnetd50b_cityscapes =128
bisenet bisenet_resnet18_celebamaskhq =128
fcn8sd fcn8sd_resnetd50b_voc 64
deeplabv3 deeplabv3_resnetd50b_voc =64
pspnet pspnet_resnetd50b_voc =128
danet danet_resnetd50b_cityscapes 64
simplepose_coco simplepose_resnet18_coco 64
simpleposemobile_coco simplepose_mobile_resnet18_coco 64
alphapose_coco alphapose_fastseresnet101b_coco 64
lwopenpose_cmupan lwopenpose2d_mobilenet_cmupan_coco 64
ibppose_coco ibppose_coco 64
centernet centernet_resnet18_voc 64
lffd lffd20x5s320v2_widerface 128
"""


@dataclass(frozen=True)
class Entry:
    """A network of the zoo. ``make`` raises what its package raises, or ImportError where that is not installed."""

    group: str
    name: str
    make: Callable[[], Made]


def pytorchcv(module: str, function: str, side: str) -> Made:
    """A convolutional network for one square picture, lively, from a seed."""
    make = getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)
    pixels = int(side.removeprefix("="))
    torch.manual_seed(0)
    model = make(in_size=(pixels, pixels)) if side.startswith("=") else make()
    return with_statistics(model, torch.randn(2, 3, pixels, pixels)), torch.randn(1, 3, pixels, pixels)


def with_statistics(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The model in eval mode, its batch norms as if it had seen this batch in training.

    Without that a deep network of random weights outputs its last bias whatever the input is, or grows beyond measure.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = None  # a running average of all that it has seen
    with torch.no_grad():
        model(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.eval().momentum = momentum
    return model


TEXT = {"vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
IMAGE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
DECODER = {**TEXT, "num_key_value_heads": 2, "use_cache": False}
T5 = {"vocab_size": 99, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": 4, "use_cache": False}
SEQ2SEQ = {
    "vocab_size": 99,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "use_cache": False,
}
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}


def ids(length: int = 12) -> torch.Tensor:
    """Two sentences of random words."""
    return torch.randint(3, 99, (2, length))


def image(side: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, side, side)


def masked() -> dict[str, torch.Tensor]:
    """The second sentence is shorter than the first."""
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 8:] = 0
    return {"input_ids": ids(), "attention_mask": mask}


def transformer(kind: str, configure: Callable[[Any], Any], inputs: Callable[[], Mapping[str, Any]]) -> Made:
    """A network of transformers, of random weights.

    Args:
        kind: its class, as in ``BertModel``.
        configure: from the package to the configuration.
        inputs: the keyword arguments.
    """
    package = importlib.import_module("transformers")
    torch.manual_seed(0)
    model: nn.Module = getattr(package, kind)(configure(package)).eval()
    return model, dict(inputs())


def _clip(package: Any, config: str) -> Any:
    text = {**TEXT, **MARKS, "max_position_embeddings": 16, "projection_dim": 32}
    return getattr(package, config)(text_config=text, vision_config={**IMAGE, "projection_dim": 32}, projection_dim=32)


def _detr(package: Any) -> Any:
    backbone = package.ResNetConfig(**RESNET, out_features=["stage4"])
    sizes = {key: size for key, size in SEQ2SEQ.items() if key not in ("vocab_size", "use_cache")}
    return package.DetrConfig(use_timm_backbone=False, backbone=None, backbone_config=backbone, num_queries=8, **sizes)


TRANSFORMERS: dict[str, tuple[str, Callable[[Any], Any], Callable[[], Mapping[str, Any]]]] = {
    "CLIP": (
        "CLIPModel",
        lambda package: _clip(package, "CLIPConfig"),
        lambda: {**masked(), "pixel_values": image()},
    ),
    "SigLIP": (
        "SiglipModel",
        lambda package: _clip(package, "SiglipConfig"),
        lambda: {"input_ids": ids(), "pixel_values": image()},
    ),
    "BERT": ("BertModel", lambda package: package.BertConfig(**TEXT), masked),
    "RoBERTa": ("RobertaModel", lambda package: package.RobertaConfig(**TEXT), masked),
    "DistilBERT": (
        "DistilBertModel",
        lambda package: package.DistilBertConfig(vocab_size=99, dim=64, n_layers=3, n_heads=4, hidden_dim=96),
        masked,
    ),
    "GPT-2": (
        "GPT2LMHeadModel",
        lambda package: package.GPT2Config(
            vocab_size=99, n_embd=64, n_layer=3, n_head=4, n_positions=32, use_cache=False, **MARKS
        ),
        lambda: {"input_ids": ids()},
    ),
    "Llama": ("LlamaForCausalLM", lambda package: package.LlamaConfig(**DECODER), lambda: {"input_ids": ids()}),
    "Mixtral": (
        "MixtralForCausalLM",
        lambda package: package.MixtralConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2),
        lambda: {"input_ids": ids()},
    ),
    "T5": (
        "T5Model",
        lambda package: package.T5Config(**T5),
        lambda: {"input_ids": ids(), "decoder_input_ids": ids(6)},
    ),
    "BART": (
        "BartModel",
        lambda package: package.BartConfig(**SEQ2SEQ, **MARKS, decoder_start_token_id=2),
        lambda: {"input_ids": ids(), "decoder_input_ids": ids(6)},
    ),
    "Whisper": (
        "WhisperModel",
        lambda package: package.WhisperConfig(
            **SEQ2SEQ, **MARKS, decoder_start_token_id=1, num_mel_bins=20, max_source_positions=40
        ),
        lambda: {"input_features": torch.randn(2, 20, 80), "decoder_input_ids": ids(6)},
    ),
    "Wav2Vec2": (
        "Wav2Vec2Model",
        lambda package: package.Wav2Vec2Config(
            **TEXT,
            conv_dim=(32, 32, 32),
            conv_stride=(5, 2, 2),
            conv_kernel=(10, 3, 3),
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        ),
        lambda: {"input_values": torch.randn(2, 1600)},
    ),
    "ViT": ("ViTModel", lambda package: package.ViTConfig(**IMAGE), lambda: {"pixel_values": image()}),
    "YOLOS": (
        "YolosForObjectDetection",
        lambda package: package.YolosConfig(**{**IMAGE, "image_size": [32, 32]}, num_detection_tokens=8),
        lambda: {"pixel_values": image()},
    ),
    "DETR": ("DetrForObjectDetection", _detr, lambda: {"pixel_values": image(64)}),
    "Swin": (
        "SwinModel",
        lambda package: package.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
        ),
        lambda: {"pixel_values": image()},
    ),
    "ConvNeXT": (
        "ConvNextModel",
        lambda package: package.ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1]),
        lambda: {"pixel_values": image()},
    ),
    "SegFormer": (
        "SegformerForSemanticSegmentation",
        lambda package: package.SegformerConfig(
            hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=32
        ),
        lambda: {"pixel_values": image(64)},
    ),
}


def plain() -> list[Entry]:
    """The networks of the tests, which are written without :class:`kit.Branches`."""
    models = importlib.import_module("tests.graphs.plain_models").MODELS
    return [Entry("plain", name, make) for name, make in models.items()]


def entries() -> list[Entry]:
    """The whole zoo."""
    lines = [line.split() for line in PYTORCHCV.strip().splitlines()]
    return [
        *(Entry("pytorchcv", function, partial(pytorchcv, module, function, side)) for module, function, side in lines),
        *(Entry("transformers", name, partial(transformer, *how)) for name, how in TRANSFORMERS.items()),
        *plain(),
    ]
