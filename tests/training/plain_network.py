"""The network written straight from the specification, module by module: the oracle of the fast one.

Released names and layouts; convolutions are `nn.Conv1d` between two permutes, every block takes SiLU of
its conditions itself, the conditions of frames are repeated before adaLN, missing conditions are filled
by boolean masks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.variants import Switches, Variant, lengths


class Conv(nn.Conv1d):
    """(B, T, C) → (B, T, O)."""

    def __init__(self, inputs: int, outputs: int, taps: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, taps, padding=taps // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 1)).permute(0, 2, 1).contiguous()


def affine(inputs: int, outputs: int, taps: int, bias: bool = True) -> nn.Module:
    return nn.Linear(inputs, outputs, bias) if taps == 1 else Conv(inputs, outputs, taps, bias)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, taps: int) -> None:
        super().__init__()
        self.w1 = affine(width, hidden, taps, bias=False)
        self.w2 = affine(hidden, width, taps, bias=False)
        self.w3 = affine(width, hidden, taps, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (64,), self.weight, eps=1.1920929e-7)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """(B, h, T, 64), neighbours as complex numbers turned by (T, 32) angles."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (32, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def rope(length: int, scale: float) -> Tensor:
    frequencies = 1.0 / (10000 ** (torch.arange(0, 64, 2).float() / 64)) * scale
    return torch.arange(length).float()[:, None] * frequencies


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = RmsNorm(), RmsNorm()

    def forward(self, x: Tensor, angles: Tensor | None) -> list[Tensor]:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, self.heads, 64, 3).permute(4, 0, 2, 1, 3)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = turned(q, angles), turned(k, angles)
        return [q, k, v]


def mixed(qkv: list[Tensor]) -> Tensor:
    o = functional.scaled_dot_product_attention(*(part.contiguous() for part in qkv))
    return o.permute(0, 2, 1, 3).flatten(2)


def norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale) + shift


class Block(nn.Module):
    def __init__(self, v: Variant, taps: int, pre_only: bool = False) -> None:
        super().__init__()
        self.pre_only = pre_only
        self.attn = Attention(v.width, v.heads)
        self.adaLN_modulation = nn.Sequential(
            nn.SiLU(), nn.Linear(v.width, v.width * (2 if pre_only else 6))
        )
        if not pre_only:
            self.linear1 = affine(v.width, v.width, taps)
            self.ffn = Mlp(v.width, v.hidden, taps)

    def before(self, x: Tensor, c: Tensor, angles: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        m = list(self.adaLN_modulation(c).chunk(2 if self.pre_only else 6, dim=-1))
        return self.attn(norm(x, m[0], m[1]), angles), m

    def after(self, x: Tensor, o: Tensor, m: list[Tensor]) -> Tensor:
        if self.pre_only:
            return x
        x = x + m[2] * self.linear1(o)
        return x + m[5] * self.ffn(norm(x, m[3], m[4]))

    def forward(self, x: Tensor, c: Tensor, angles: Tensor) -> Tensor:
        qkv, m = self.before(x, c, angles)
        return self.after(x, mixed(qkv), m)


class Joint(nn.Module):
    def __init__(self, v: Variant, last: bool) -> None:
        super().__init__()
        self.latent_block = Block(v, 3)
        self.clip_block = Block(v, 3, last)
        self.text_block = Block(v, 1, last)

    def forward(self, xs: list[Tensor], cs: list[Tensor], angles: list[Tensor | None]) -> list[Tensor]:
        blocks = [self.latent_block, self.clip_block, self.text_block]
        qkvs, ms = zip(*(b.before(x, c, a) for b, x, c, a in zip(blocks, xs, cs, angles)))  # noqa: B905
        joined = [torch.cat(parts, dim=2) for parts in zip(*qkvs)]  # noqa: B905
        os = mixed(joined).split([x.shape[1] for x in xs], dim=1)
        return [b.after(x, o, m) for b, x, o, m in zip(blocks, xs, os, ms)]  # noqa: B905


class Time(nn.Module):
    def __init__(self, v: Variant) -> None:
        super().__init__()
        self.width, self.scale = v.time_width, v.time_scale
        self.mlp = nn.Sequential(
            nn.Linear(v.time_width, v.width), nn.SiLU(), nn.Linear(v.width, v.width)
        )

    def forward(self, t: Tensor) -> Tensor:
        f = self.scale * (1.0 / 10000 ** (torch.arange(0, self.width, 2).float() / self.width))
        angles = t[:, None] * f
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class Final(nn.Module):
    def __init__(self, v: Variant) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(v.width, 2 * v.width))
        self.conv = Conv(v.width, v.latent_channels, 7)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.conv(norm(x, *self.adaLN_modulation(c).chunk(2, -1)))


class PlainNetwork(nn.Module):
    """`training.network.Network` without any care for speed."""

    def __init__(self, v: Variant, switches: Switches | None = None) -> None:
        super().__init__()
        self.variant, self.switches = v, switches or Switches()
        d, wide = v.width, nn.SiLU if v.v2 else nn.SELU
        narrow = [nn.SiLU()] if v.v2 else []
        self.register_buffer("latent_mean", torch.zeros(1, 1, v.latent_channels))
        self.register_buffer("latent_std", torch.ones(1, 1, v.latent_channels))
        self.register_buffer("empty_string_feat", torch.zeros(77, 1024))
        self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, 8, 768))
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, 1024))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, 768))
        if self.switches.fill == "learned":
            self.empty_text_feat = nn.Parameter(torch.zeros(77, 1024))
        self.audio_input_proj = nn.Sequential(Conv(v.latent_channels, d, 7), wide(), Mlp(d, v.hidden, 7))
        self.clip_input_proj = nn.Sequential(nn.Linear(1024, d), *narrow, Mlp(d, v.hidden, 3))
        self.sync_input_proj = nn.Sequential(Conv(768, d, 7), wide(), Mlp(d, v.hidden, 3))
        self.text_input_proj = nn.Sequential(nn.Linear(1024, d), *narrow, Mlp(d, v.hidden, 1))
        self.clip_cond_proj, self.text_cond_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.global_cond_mlp = Mlp(d, v.hidden, 1)
        self.final_layer = Final(v)
        self.t_embed = Time(v)
        self.joint_blocks = nn.ModuleList(Joint(v, i == v.num_joint - 1) for i in range(v.num_joint))
        self.fused_blocks = nn.ModuleList(Block(v, 3) for _ in range(v.num_fused))

    def fill(
        self, x: Tensor | None, own: Tensor, batch: int, tokens: int, without: Tensor | None
    ) -> Tensor:
        if self.switches.fill == "zeros":
            own = own * 0
        own = own.expand(tokens, -1)
        if x is None:
            return own.expand(batch, -1, -1)
        if without is not None and without.any():
            x = x.clone()
            x[without] = own
        return x

    def forward(  # type: ignore[no-untyped-def]
        self, latent, clip, sync, text, t, *, without_clip=None, without_sync=None, without_text=None
    ) -> Tensor:
        batch, n, _ = latent.shape
        spec = lengths(n, self.variant)
        own_text = self.empty_text_feat if self.switches.fill == "learned" else self.empty_string_feat
        clip = self.fill(clip, self.empty_clip_feat, batch, spec.num_clip_frames, without_clip)
        sync = self.fill(sync, self.empty_sync_feat, batch, spec.num_sync_features, without_sync)
        text = self.fill(text, own_text, batch, 77, without_text)
        sync = (sync.view(batch, -1, 8, 768) + self.sync_pos_emb).flatten(1, 2)
        x = self.audio_input_proj(latent)
        clip, sync, text = (
            self.clip_input_proj(clip),
            self.sync_input_proj(sync),
            self.text_input_proj(text),
        )
        pooled = self.clip_cond_proj(clip.mean(1)) + self.text_cond_proj(text.mean(1))
        t = torch.as_tensor(t, dtype=torch.float32).expand(batch)
        c_global = (self.t_embed(t) + self.global_cond_mlp(pooled))[:, None]
        if self.switches.sync == "sum":
            clip = repeated(clip, sync.shape[1]) + sync
            c_ext = c_global
        else:
            c_ext = c_global + repeated(sync, n)
        scale = n / clip.shape[1] if self.switches.rope == "aligned" else 1.0
        angles = [rope(n, 1.0), rope(clip.shape[1], scale), None]
        xs = [x, clip, text]
        for block in self.joint_blocks:
            xs = block(xs, [c_ext, c_global, c_global], angles)
        x = xs[0]
        for block in self.fused_blocks:
            x = block(x, c_ext, angles[0])
        return self.final_layer(x, c_global)


def repeated(x: Tensor, length: int) -> Tensor:
    """Nearest neighbours in time."""
    return functional.interpolate(x.permute(0, 2, 1), length, mode="nearest-exact").permute(0, 2, 1)


def plain(state: dict[str, Tensor], variant: Variant, switches: Switches | None = None) -> PlainNetwork:
    """The oracle with weights in the released layout."""
    network = PlainNetwork(variant, switches)
    network.load_state_dict(state, strict=True)
    return network
