"""Shapes of a model: a vision tower, a decoder, and what joins them.

Only what changes the computation is kept. How a `config.json` says it is `qwen_config`'s and `llava_config`'s.
"""

import dataclasses

ENCODERS = ("clip", "siglip", "vit")
"""Families of `EncoderConfig`."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower of a Qwen-VL model. Lengths named `patch_size` and `window_size` are pixels.

    Attributes:
      family: qwen2_5_vl or qwen2_vl. Qwen2.5-VL has RMSNorm, SwiGLU and windows; Qwen2-VL has LayerNorm, an MLP with
        QuickGELU, and every block sees the whole picture.
    """

    depth: int
    hidden: int
    heads: int
    mlp: int
    out_hidden: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    window_size: int = 112
    channels: int = 3
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    pixel_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    """Normalisation of pixels in [0, 1]; CLIP's values unless the folder's image processor says otherwise."""
    family: str = "qwen2_5_vl"

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def merge_unit(self) -> int:
        """Patches that become one visual token."""
        return self.merge_size**2

    @property
    def window_units(self) -> int:
        """Side of an attention window, in merged units."""
        return self.window_size // self.patch_size // self.merge_size

    @property
    def block_slots(self) -> int:
        """Patch slots of one attention block (one full window)."""
        return self.window_units**2 * self.merge_unit

    @property
    def patch_values(self) -> int:
        """Pixel values of one patch of a still image, one temporal slice: C · ph · pw."""
        return self.channels * self.patch_size**2


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A picture encoder of fixed resolution (CLIP, SigLIP, ViT), as an assembled model takes it.

    A square view of `image_size` pixels is one attention block: its patches, after a class token where the family has
    one. What the rest of the package asks of a tower is asked by the same names as of `VisionConfig`.

    Attributes:
      family: of `ENCODERS`.
      depth: layers that run; features are taken behind the last of them.
      unused_layers: those that the checkpoint holds behind it. They are carried along, never run, never trained.
      final_norm: whether features go through the encoder's last norm.
      keep_class: whether the class token becomes a visual token.
      pooler: whether the checkpoint holds what pools the patches into one vector; carried along.
      out_hidden: the decoder's width.
    """

    family: str
    depth: int
    hidden: int
    heads: int
    mlp: int
    out_hidden: int
    image_size: int
    patch_size: int
    channels: int = 3
    unused_layers: int = 0
    final_norm: bool = False
    keep_class: bool = False
    pooler: bool = False
    activation: str = "gelu"
    norm_eps: float = 1e-6
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    merge_size: int = 1
    temporal_patch_size: int = 1
    window_units: int = 1
    global_blocks: tuple[int, ...] = ()

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def merge_unit(self) -> int:
        return 1

    @property
    def side(self) -> int:
        """Patches along the side of a view; what is left at its right and bottom edge (SigLIP-SO400M) is not seen."""
        return self.image_size // self.patch_size

    @property
    def class_slots(self) -> int:
        """1 where a class token stands before the patches."""
        return 0 if self.family == "siglip" else 1

    @property
    def block_slots(self) -> int:
        """Slots of a view, the class token's included."""
        return self.side**2 + self.class_slots

    @property
    def view_tokens(self) -> int:
        """Visual tokens of a view."""
        return self.side**2 + (self.class_slots if self.keep_class else 0)

    @property
    def patch_values(self) -> int:
        """Pixel values of one patch: C · ph · pw."""
        return self.channels * self.patch_size**2


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The Qwen2 or Qwen2.5 language model, with M-RoPE in a Qwen-VL model.

    Attributes:
      mrope_sections: frequencies that follow time, row and column; one section of all is plain RoPE.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    mrope_sections: tuple[int, ...] = (16, 24, 24)
    tied: bool = False

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclasses.dataclass(frozen=True)
class VLMConfig:
    """A whole model: tower, decoder, and the ids that tie text to pictures.

    Attributes:
      connector: merger (Qwen-VL's), mlp (two layers with GELU between) or linear.
      newline: whether rows of tiles end with a learned embedding (LLaVA-NeXT's `image_newline`).
      video_token, vision_start_token, vision_end_token: -1 where the model has none.
    """

    vision: VisionConfig | EncoderConfig
    decoder: DecoderConfig
    image_token: int = 151655
    video_token: int = 151656
    vision_start_token: int = 151652
    vision_end_token: int = 151653
    init_std: float = 0.02
    connector: str = "merger"
    newline: bool = False

    @classmethod
    def of_parts(cls, encoder: EncoderConfig, decoder: DecoderConfig, **more) -> "VLMConfig":
        """An assembled model: text models have no tokens around pictures."""
        return cls(encoder, decoder, video_token=-1, vision_start_token=-1, vision_end_token=-1, **more)

    @property
    def assembled(self) -> bool:
        """Whether the tower is one of fixed resolution, joined to a language model."""
        return isinstance(self.vision, EncoderConfig)


def not_counts(config: VLMConfig) -> list[str]:
    """Shapes that are no whole numbers above 0, in words."""
    return [
        f"{part} {field.name} is {value!r}; wanted a whole number above 0"
        for part, shapes in (("vision", config.vision), ("decoder", config.decoder))
        for field in dataclasses.fields(shapes)
        if field.type is int
        and field.name != "unused_layers"
        and (type(value := getattr(shapes, field.name)) is not int or value < 1)
    ]


def inconsistencies(config: VLMConfig) -> list[str]:
    """What in a model's shapes does not go together, in words."""
    vision, decoder = config.vision, config.decoder
    faults = []
    if vision.out_hidden != decoder.hidden:
        faults.append(
            f"vision out_hidden_size {vision.out_hidden} differs from the decoder's hidden_size {decoder.hidden}"
        )
    if decoder.hidden % decoder.heads or decoder.heads % decoder.kv_heads:
        faults.append(
            f"hidden_size {decoder.hidden}, {decoder.heads} heads and {decoder.kv_heads} key-value heads do not divide"
        )
    elif sum(decoder.mrope_sections) * 2 != decoder.head_dim:
        faults.append(f"mrope_section {list(decoder.mrope_sections)} must sum to half the head dim {decoder.head_dim}")
    if isinstance(vision, EncoderConfig):
        if vision.hidden % vision.heads:
            faults.append(f"vision hidden_size {vision.hidden} does not divide into {vision.heads} heads")
        if vision.image_size < vision.patch_size:
            faults.append(f"image_size {vision.image_size} is below patch_size {vision.patch_size}")
        return faults
    if vision.hidden % vision.heads or vision.head_dim % 4:
        faults.append(
            f"vision hidden_size {vision.hidden} over {vision.heads} heads must give a head dim divisible by 4"
        )
    if vision.window_size % (vision.patch_size * vision.merge_size):
        faults.append(f"window_size {vision.window_size} is not a multiple of patch × merge")
    return faults
