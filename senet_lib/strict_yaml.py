"""Settings as YAML, read strictly: UTF-8, no key twice, no longer than a person writes."""

import reprlib
from pathlib import Path
from typing import Any

from senet_lib.errors import RecipeError

MAX_BYTES = 100_000


def read(path: Path) -> Any:
    """What a YAML file of UTF-8 holds; RecipeError if missing, long, bad, or with a key twice."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path} is longer than {MAX_BYTES:,} bytes; settings are short")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path} is not UTF-8 (line {line}); save it as UTF-8") from None
    return parse(text, str(path))


# What an impossible date makes of the parser, for one, or a tag that its value is not.
_ODD = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)


def parse(text: str, where: str) -> Any:
    """What a text in YAML means; errors as in `read`, which call it `where`."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            lines: dict[Any, int] = {}
            for key_node, _ in node.value:
                line = key_node.start_mark.line + 1
                if key_node.tag == "tag:yaml.org,2002:merge":
                    raise RecipeError(f"{where} merges mappings (line {line}); write them out")
                key = key_node.value if isinstance(key_node, yaml.ScalarNode) else id(key_node)
                if key in lines:
                    raise RecipeError(f"{where} has {key} twice, in lines {lines[key]} and {line}")
                lines[key] = line
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except RecipeError:
        raise
    except RecursionError:
        raise RecipeError(f"{where} is nested too deeply") from None
    except (yaml.YAMLError, *_ODD) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f" (line {line + 1})"
        raise RecipeError(f"{where} is not valid YAML{place}") from None


def shown(value: Any) -> str:
    """A value in at most 80 characters, whatever it is."""
    try:
        text = reprlib.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
