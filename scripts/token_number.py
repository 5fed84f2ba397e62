"""A number of visual tokens as it is typed: `0.25` is a share, `256` a number of tokens."""


def number_of(flag: str, text: str) -> float | int:
    """Raises InputError where it is no number."""
    from vlm_jax.errors import InputError

    try:
        number = float(text) if "." in text else int(text)
    except ValueError:
        raise InputError(f"--{flag}={text}: wanted a share such as 0.25, or a whole number of tokens") from None
    if number == 1 and isinstance(number, int):
        raise InputError(f"--{flag}=1: all tokens are --{flag}=1.0, and a number of them starts at 2")
    return number
