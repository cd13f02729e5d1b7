"""What may be shown of a value: parameters, tags and error lines pass through here before anyone else reads them.

One decision: a text is judged by its name (a config key or a variable that sounds like a secret) and by its shape (known key
formats, a password inside a URL, a secret of this process's environment). What it costs: a harmless text under such a name is
hidden too; numbers and booleans never are (`num_tokens` is a size). Source: FAULTS, row 36.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

SECRET_NAME = re.compile(r"token|secret|passw|key|credential", re.IGNORECASE)
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}")
URL_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
MIN_SECRET_CHARS = 12  # shorter values of the environment occur inside ordinary words
REDACTED = "[redacted]"


def redact(name: str, value: Any) -> Any:
    """`value` without secrets; lists and mappings are walked, everything that is no text passes unchanged."""
    if isinstance(value, Mapping):
        return {k: redact(f"{name}.{k}", v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(name, v) for v in value]
    if not isinstance(value, str) or not value:
        return value
    return REDACTED if SECRET_NAME.search(name) else redact_text(value)


def redact_text(text: str) -> str:
    """A text with every known shape of a secret, and this process's own secrets, blotted out."""
    for secret in own_secrets():
        text = text.replace(secret, REDACTED)
    return URL_USERINFO.sub(REDACTED, SECRET_VALUE.sub(REDACTED, text))


def own_secrets() -> list[str]:
    """Values of environment variables that are named like a secret, longest first; paths are not secrets."""
    found = [v for k, v in os.environ.items() if SECRET_NAME.search(k) and len(v) >= MIN_SECRET_CHARS]
    return sorted((v for v in found if not v.startswith(("/", "~"))), key=len, reverse=True)
