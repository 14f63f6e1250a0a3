"""Where options come from: command line, environment, a TOML file, defaults, in this order.

Every option of a command has an environment variable (`AMSYNC_` and its name in capitals) and a
key in the file. Secrets may also be given as `AMSYNC_<NAME>_FILE`, the path of a file that
holds the value; it ranks below the plain variable and above the TOML file. click does the
parsing; this module supplies what click should look at.
"""

import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from amsync.errors import ConfigError

PREFIX = "AMSYNC_"


def variable(name: str) -> str:
    """Environment variable of an option, as AMSYNC_DATA_DIR for data_dir."""
    return PREFIX + name.upper()


def read_toml(
    path: Path, kinds: Mapping[str, type], secrets: Collection[str] = ()
) -> dict[str, Any]:
    """Read the options from a TOML file; keys as on the command line, with - or _.

    `kinds` says what each value must be: bool, int, float, str, object for int or str, list for
    one text or an array of texts, dict for an array of tables.

    Raises:
        ConfigError: The file can't be read, is no TOML, has a key that is no option, or a value
            of another kind than the option's.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config={path}: can't be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config={path} is not valid TOML: {error}") from error
    options = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in kinds:
            allowed = ", ".join(sorted(kinds))
            raise ConfigError(f"config={path}: {key!r} is no option; allowed are {allowed}")
        kind = kinds[name]
        if type(value) not in _ACCEPTED[kind] or not _has_parts(value, kind):
            wanted = _WORDS.get(kind) or " or ".join(_WORDS[each] for each in _ACCEPTED[kind])
            shown = "..." if name in secrets else repr(value)
            raise ConfigError(f"config={path}: {key}={shown} is not allowed; give {wanted}")
        options[name] = [value] if kind is list and isinstance(value, str) else value
    return options


def _has_parts(value: object, kind: type) -> bool:
    """Tell whether an array has the parts that it must have."""
    if not isinstance(value, list):
        return True
    return all(type(each) is (dict if kind is dict else str) for each in value)


_ACCEPTED: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (float, int),
    str: (str,),
    object: (int, str),
    list: (str, list),
    dict: (list,),
}
_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a text or an array of texts",
    dict: "an array of tables",
}


def read_secret_files(names: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Read options whose value is in a file named by AMSYNC_<NAME>_FILE.

    Raises:
        ConfigError: The file can't be read.
    """
    values = {}
    for name in names:
        path = environment.get(f"{variable(name)}_FILE")
        if not path:
            continue
        try:
            values[name] = Path(path).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{variable(name)}_FILE={path}: can't be read: {error}") from error
    return values


def defaults(
    config: Path | None, kinds: Mapping[str, type], secrets: Collection[str]
) -> dict[str, Any]:
    """What click should take where neither command line nor environment says something.

    Raises:
        ConfigError: See `read_toml` and `read_secret_files`.
    """
    values: dict[str, Any] = read_toml(config, kinds, secrets) if config is not None else {}
    values.update(read_secret_files(secrets, os.environ))
    return values
