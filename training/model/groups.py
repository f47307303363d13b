"""Parts of the network that are frozen together, by the beginnings of their tensors' names.

They are the same in `network.Network` and in released files.
"""

GROUPS: dict[str, tuple[str, ...]] = {
    "projections": (
        "audio_input_proj.", "clip_input_proj.", "sync_input_proj.", "text_input_proj.",
        "sync_pos_emb", "empty_clip_feat", "empty_sync_feat", "empty_text_feat",
    ),
    "conditions": ("clip_cond_proj.", "text_cond_proj.", "global_cond_mlp.", "t_embed."),
    "joint": ("joint_blocks.",),
    "fused": ("fused_blocks.",),
    "final": ("final_layer.",),
}  # fmt: skip


def group_of(name: str) -> str:
    """The group of a trained tensor of the network."""
    found = [group for group, begins in GROUPS.items() if name.startswith(begins)]
    assert len(found) == 1, f"{name}: of the groups {found}, expected one"
    return found[0]
