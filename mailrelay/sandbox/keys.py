"""Which credentials the sandbox takes."""


def is_good_key(key: str | None) -> bool:
    """Any key will do, except none, `wrong` and what starts with `wrong-`.

    So there is always a key at hand with which to see what bad credentials lead to.
    """
    return bool(key) and key != "wrong" and not str(key).startswith("wrong-")
