"""A button that copies a text to the clipboard. The text is data to its script, never markup."""

import functools

import streamlit as st

_HTML = '<button type="button" aria-label="Copy"></button>'
_CSS = """
button { font: inherit; font-size: .875rem; color: var(--st-text-color); background: transparent; cursor: pointer;
  border: none; padding: .25rem 0; opacity: .7; }
button:hover, button:focus-visible { color: var(--st-primary-color); opacity: 1; }
"""
_JS = """
export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  button.textContent = "Copy";
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(data.text);
    } catch {  // pages that are not served over https have no clipboard of that kind
      const area = document.createElement("textarea");
      area.value = data.text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
}
"""


@functools.cache
def _component():
    return st.components.v2.component("copy_text", html=_HTML, css=_CSS, js=_JS)


def copy_button(text: str, *, key: str) -> None:
    """Draws the button."""
    _component()(data={"text": text}, key=key)
