"""The side of the chat page: which models answer, with how many visual tokens, how they are sampled, and what to do."""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from typing import Any

import streamlit as st

from dialogue import Dialogue, picture
from loaded_models import Held, budget_of
from plain_text import draw_errors, plain
from remote_images import fetch
from serving_state import Shared
from vlm_jax.errors import InputError
from vlm_jax.processing.token_budget import RESIZE, TokenBudget
from vlm_jax.serving.access import LOOPBACK_NAMES, is_loopback

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a visitor chose.

    Attributes:
      names: of the models that answer, one or two.
      budget: of visual tokens; None: each model's own.
      show_tokens: whether pictures are drawn with the tokens that stay.
    """

    names: list[str]
    budget: TokenBudget | None
    show_tokens: bool
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float | None
    seed: int

    def sampling(self, attempt: int) -> dict[str, Any]:
        """As `LoadedModel.stream` takes it; another draw for another attempt."""
        named = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty")
        return {"seed": self.seed + attempt, **{name: getattr(self, name) for name in named}}

    def tokens(self) -> dict[str, Any]:
        """What a record of the conversation says of the visual tokens; nothing where they are the model's own."""
        if self.budget is None:
            return {}
        return {"visual_tokens": self.budget.visual_tokens, "token_reduction": self.budget.method}


def sidebar(state: Shared, key: str, dialogue: Dialogue, clear: Callable[[Dialogue], None]) -> Settings:
    """Draws it."""
    with st.sidebar:
        names = _models(state.models.names)
        budget, show_tokens = _visual_tokens(state.models.known(names[0]))
        sampling = _sampling(state)
        if addresses_allowed(state.options.addresses):
            _address(dialogue)
        settings = Settings(names, budget, show_tokens, **sampling)
        with st.container(horizontal=True):
            st.button("Clear", icon=":material/delete:", on_click=clear, args=(dialogue,), disabled=not dialogue.turns)
            st.download_button(
                "Export",
                lambda: dialogue.exported(_identifier(key), state.models.names),
                file_name="conversation.zip",
                mime="application/zip",
                icon=":material/download:",
                on_click="ignore",
                disabled=not any(reply.text for turn in dialogue.turns for reply in turn.replies.values()),
                help="The conversation as a record that training reads, with its pictures.",
            )
    return settings


def _identifier(key: str) -> str:
    """Of an exported conversation. The key itself opens it, and is nobody else's."""
    return f"chat-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def addresses_allowed(option: str) -> bool:
    """Whether an image may be fetched from an address: by default only where nobody else reaches the page."""
    if option != "auto":
        return option == "on"
    headers = st.context.headers
    host = re.sub(r":\d+$", "", headers.get("Host") or "").strip("[]")
    forwarded = any(headers.get(name) for name in _FORWARDED)
    return is_loopback(st.get_option("server.address") or "0.0.0.0") and host in LOOPBACK_NAMES and not forwarded


def _models(names: list[str]) -> list[str]:
    if len(names) == 1:
        st.subheader(plain(names[0]))
        return names
    first = st.selectbox("Model", names, key="model")
    if not st.toggle("Compare with another model", key="compare", help="Both are asked, one after the other."):
        return [first]
    others = [name for name in names if name != first]
    return [first, st.selectbox("Second model", others, key="second")]


def _visual_tokens(known: Held | None) -> tuple[TokenBudget | None, bool]:
    st.subheader("Visual tokens")
    note = "It is not loaded yet: ask it something first."
    if known is not None:
        own = known.own
        share = f"{own.visual_tokens:.0%}" if isinstance(own.visual_tokens, float) else f"{own.visual_tokens}"
        note = f"It saw {'all' if own.takes_all else f'{share} by {own.method}'} of an image."
    budget = None
    if not st.toggle("As the model was trained", value=True, key="own_tokens", help=note):
        percent = st.slider("Share that stays", 1, 100, 25, format="%d %%", key="percent")
        methods = known.methods if known is not None else (RESIZE,)
        budget = budget_of(percent, st.selectbox("Chosen by", methods, key="method"))
    show = st.toggle("Show which tokens stay", key="show_tokens", help="What the model does not see is drawn dark.")
    return budget, show


def _sampling(state: Shared) -> dict[str, Any]:
    most = state.options.max_new_tokens
    with st.expander("Sampling"):
        return {
            "temperature": st.slider("Temperature", 0.0, 2.0, 0.0, 0.05, help="0: the likeliest answer, each time.",
                                     key="temperature"),
            "top_p": st.slider("Top p", 0.05, 1.0, 1.0, 0.05, key="top_p"),
            "top_k": int(st.number_input("Top k (0: all)", 0, 1000, 0, key="top_k")),
            "repetition_penalty": st.number_input("Repetition penalty", 1.0, 2.0, None, 0.05,
                                                  placeholder="the model's own", key="penalty"),
            "seed": int(st.number_input("Seed", 0, 2**31 - 1, 0, key="seed")),
            "max_new_tokens": int(st.number_input("Longest answer, tokens", 1, most, most, key="longest")),
        }  # fmt: skip


def _address(dialogue: Dialogue) -> None:
    with st.expander("Image from an address"), st.form("address", clear_on_submit=True, border=False):
        address = st.text_input("Address", placeholder="https://", key="address_text")
        if st.form_submit_button("Fetch") and address.strip():
            try:
                data = fetch(address)
                dialogue.add([picture(data.name, data)])
            except InputError as error:
                draw_errors(error.lines)
