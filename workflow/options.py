"""Settings as the words of a command line."""

import shlex


def options(settings: dict) -> str:
    """Command-line options of a settings mapping: {"layer": -1} -> "--layer=-1" (sorted, quoted).

    None and False are left out, True is a bare flag, a list follows its option word by word.
    """
    words = []
    for key in sorted(settings):
        value = settings[key]
        name = "--" + key.replace("_", "-")
        if value is None or value is False or value == "":
            continue
        if value is True:
            words.append(name)
        elif isinstance(value, list | tuple):
            words += [name, *map(str, value)]
        else:
            words.append(f"{name}={value}")
    return shlex.join(words)
